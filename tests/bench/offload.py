"""The datapath `offload` with the default workers: what the kernel does once it has learned a flow.

New connections still come to user space, requests on kept ones and bulk no longer do; and while established
traffic passes, the daemon should have nothing to do.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.bench import sides, stream, web
from tests.bench.errors import BenchError
from tests.bench.report import Better, Measure, Target
from tests.bench.runner import Sample, Series, Settings, alternate, progress
from tests.bench.usage import cpu_share

ABOUT = "connections, requests, bulk and the daemon's own work where the kernel learns established flows"
PROGRAMS = ("haproxy", "iperf3", "nft", "nginx", "wrk")
DEFAULTS = Settings(runs=7, seconds=1.0)
QUICK = Settings(runs=1, seconds=0.2, quick=True)
NEEDS_LAB = True

BULK_SECONDS, SHARE_SECONDS = 2.0, 4.0
"""By how much streams take longer than requests: windows open slowly, and clock ticks are 10 ms."""
RATE = "1G"
_LEARN_S = 0.5
_OURS = ("offload", "mark")


def run(settings: Settings) -> list[Measure]:
    """Everything for `offload`, and for `mark` beside it."""
    return [*_web(settings), *_streams(settings)]


def _web(settings: Settings) -> list[Measure]:
    closed, kept = web.measure_sides(_sides(web.PORT), settings)
    new = (Target(1.2, of=sides.DNAT), Target(1.4, of=sides.HAPROXY))
    requests = (Target(0.95, of=sides.DNAT), Target(1.5, of=sides.HAPROXY))
    return [
        *_measures("new_connections_per_s", "connections/s", "more", closed["per_s"], new),
        *_measures("new_connections_errors", "errors", "less", closed["errors"], ()),
        *_measures("requests_per_s", "requests/s", "more", kept["per_s"], requests),
    ]


def _streams(settings: Settings) -> list[Measure]:
    every = [sides.direct(), *_sides(stream.PORT)]
    progress("bench: setting up")
    with contextlib.ExitStack() as stack:
        ready = {side.name: stream.set_up(side, stack) for side in every}
        progress("\n")
        bulk = alternate(
            {name: up.measurement(settings.seconds * BULK_SECONDS) for name, up in ready.items()},
            settings.runs,
            "bulk,",
        )
        paced = alternate(
            {
                name: _at_1_gbit(up, up.process.pid, settings.seconds * SHARE_SECONDS)
                for name, up in ready.items()
                if up.process
            },
            settings.runs,
            "1 Gbit/s,",
        )
    share = (Target(0.01, sense="at_most"),)
    return [
        *_measures("gbit_per_s", "Gbit/s", "more", bulk["gbit_per_s"], (Target(0.9, of=sides.DIRECT),)),
        *_measures("share_at_1_gbit", "of a core", "less", paced["share"], share),
        *_measures("share_without_traffic", "of a core", "less", paced["idle"], ()),
        *_measures("gbit_per_s_at_1_gbit", "Gbit/s", "more", paced["gbit"], ()),
    ]


def _sides(port: int) -> list[sides.Side]:
    return [
        sides.dnat(port),
        sides.haproxy(port),
        *(sides.balanced(name, name, port) for name in _OURS),
    ]


def _at_1_gbit(up: stream.Stream, pid: int, seconds: float) -> Callable[[], Sample]:
    """The share of a core that the process uses: while nothing passes, and in the midst of a paced stream."""

    def measure() -> Sample:
        idle = cpu_share(pid, lambda: time.sleep(seconds))
        with ThreadPoolExecutor(1) as pool:
            # The stream outlasts what is measured, before and after.
            sent = pool.submit(up.send, math.ceil(seconds + 2 * _LEARN_S), rate=RATE)
            time.sleep(_LEARN_S)
            share = cpu_share(pid, lambda: time.sleep(seconds))
            if sent.done():
                raise BenchError(f"the stream ended too early, with {sent.result():.3g} Gbit/s")
            return {"share": share, "idle": idle, "gbit": sent.result()}

    return measure


def _measures(
    kind: str, unit: str, better: Better, found: Mapping[str, Series], targets: Sequence[Target]
) -> list[Measure]:
    """Of `offload` with the targets, and of `mark` without."""
    peers = {peer: series for peer, series in found.items() if peer not in _OURS}
    return [
        Measure(f"{kind}/{name}", unit, better, found[name], peers, targets if name == "offload" else ())
        for name in _OURS
    ]
