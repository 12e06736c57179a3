"""What is left of legitimate traffic in a flood of packets with forged sources.

wrk asks over connections that were made before: undisturbed, during a flood of SYNs to the same address and
port, and during a flood of datagrams. Everything runs on the same cores: what the flood costs its sender and
the backend is missing on every side alike, and plain forwarding shows how much that is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from tests.bench import ours, peers, sides, spoofed, web
from tests.bench.newcomers import count_failed
from tests.bench.report import Better, Measure, Target
from tests.bench.runner import Sample, Series, Settings, alternate, progress
from tests.bench.served import asking
from tests.bench.usage import resident_mib
from tests.support.lab import Lab, Process

ABOUT = "requests on kept connections during floods of SYNs and datagrams from forged sources"
PROGRAMS = ("haproxy", "nft", "nginx", "wrk", "gcc")
DEFAULTS = Settings(runs=5, seconds=3.0)
QUICK = Settings(runs=1, seconds=1.0, quick=True)
NEEDS_LAB = True

NEWCOMERS = 100
UDP_PART = 1 / 3
"""The flood of datagrams is this much shorter."""
_FORWARDING = "forwarding"
_OURS = ("offload", "mark")


def run(settings: Settings) -> list[Measure]:
    """`offload` and `mark` with the default workers, beside routing to the one backend, and HAProxy."""
    every = [
        sides.direct(_FORWARDING),
        sides.Side(sides.HAPROXY, _haproxy),
        *(sides.Side(name, _ours(name)) for name in _OURS),
    ]
    progress("bench: setting up")
    with contextlib.ExitStack() as stack:
        ready = {}
        for side in every:
            up = ready[side.name] = web.set_up(side, stack, backends=1)
            spoofed.prepare(up.lab)
        progress("\n")
        before = {name: resident_mib(up.process.pid) for name, up in ready.items() if up.process}
        found = alternate(
            {name: _measurement(up, settings.seconds, before.get(name)) for name, up in ready.items()},
            settings.runs,
        )
        capacity = {name: ours.status(ready[name].lab)["flow_capacity"] for name in _OURS}
    kept = (Target(0.5, of=_FORWARDING),)
    none, flat = (Target(0, sense="at_most"),), (Target(5, sense="at_most"),)
    return [
        *_measures("kept_in_syn_flood", "of requests/s", "more", found["kept"], kept),
        *_measures("requests_per_s_in_syn_flood", "requests/s", "more", found["flooded"], kept),
        *_measures("requests_per_s_undisturbed", "requests/s", "more", found["undisturbed"], ()),
        *_measures("failed_newcomers", f"of {NEWCOMERS} connections", "less", found["failed"], none),
        *_measures("syns_sent_per_s", "SYN/s", "more", found["syns"], ()),
        *_measures("undecided_in_syn_flood", "packets", "less", found["undecided"], ()),
        *_measures("kept_in_udp_flood", "of requests/s", "more", found["kept_udp"], kept),
        *_measures("datagrams_sent_per_s", "packets/s", "more", found["datagrams"], ()),
        *_measures("memory_growth_mib", "MiB", "less", found["growth"], flat),
        *(
            Measure(
                f"flows_after_flood/{name}",
                "flows",
                "less",
                found["flows"][name],
                targets=(Target(capacity[name], sense="at_most"),),
            )
            for name in _OURS
        ),
    ]


def _measurement(up: web.Web, seconds: float, memory: float | None) -> Callable[[], Sample]:
    """Requests a second of one side, undisturbed and in the floods. `memory`: what its process began with."""

    def measure() -> Sample:
        with asking(up) as served:
            undisturbed = served.per_s(seconds)
            before = ours.status(up.lab)
            with spoofed.flood(up.lab, up.address, up.port) as syns, ThreadPoolExecutor(1) as pool:
                newcomers = pool.submit(count_failed, up, NEWCOMERS, seconds)
                flooded = served.per_s(seconds)
                failed = newcomers.result()
            after = ours.status(up.lab)
        sample = {
            "undisturbed": undisturbed,
            "flooded": flooded,
            "kept": flooded / undisturbed,
            "failed": float(failed),
            "syns": syns.per_s,
        }
        with asking(up) as served:
            undisturbed = served.per_s(seconds * UDP_PART)
            with spoofed.flood(up.lab, up.address, spoofed.UDP_PORT, udp=True) as datagrams:
                sample["kept_udp"] = served.per_s(seconds * UDP_PART) / undisturbed
        sample["datagrams"] = datagrams.per_s
        if before and after:
            sample["undecided"] = after["undecided"] - before["undecided"]
        if up.process and memory is not None:
            sample["growth"] = resident_mib(up.process.pid) - memory
        if status := ours.status(up.lab):
            sample["flows"] = status["flows"]
        return sample

    return measure


def _measures(
    kind: str, unit: str, better: Better, found: Mapping[str, Series], targets: Sequence[Target]
) -> list[Measure]:
    others = {peer: series for peer, series in found.items() if peer not in _OURS}
    return [Measure(f"{kind}/{name}", unit, better, found[name], others, targets) for name in _OURS]


def _ours(datapath: str) -> sides.Up:
    """The web server's service, and another one for the datagrams."""

    def up(lab: Lab, backends: Sequence[str]) -> AbstractContextManager[object]:
        sinks = [f"{host.v4}:{spoofed.UDP_PORT}" for host in lab.backends]
        services = [
            ours.Service("web", f"{ours.VIP}:{web.PORT}/tcp", backends, on_failure="hash"),
            ours.Service("sink", f"{ours.VIP}:{spoofed.UDP_PORT}/udp", sinks, on_failure="hash"),
        ]
        return ours.daemon(lab, datapath, services)

    return up


@contextlib.contextmanager
def _haproxy(lab: Lab, backends: Sequence[str]) -> Iterator[Process]:
    """Here the gateway answers the SYNs, and meets the datagrams."""
    spoofed.swallow_answers(lab.gateway)
    with peers.haproxy(lab, ours.VIP, backends) as process:
        yield process
