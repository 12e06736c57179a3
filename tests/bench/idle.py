"""What a balancer costs while nothing happens, with many backends that it watches as well, and how soon after
its start it balances."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from tests.bench import many, ours, peers
from tests.bench.report import Measure, Target
from tests.bench.runner import Sample, Settings, alternate, progress
from tests.bench.usage import cpu_share
from tests.support.lab import Lab, LabError, Process, unique_prefix, wait_for

ABOUT = (
    "share of a core that the idle balancer uses, also with 5000 backends, and seconds to the first answer"
)
PROGRAMS = ("haproxy", "nginx", "nft")
DEFAULTS = Settings(runs=3, seconds=10.0)
QUICK = Settings(runs=1, seconds=1.0, quick=True)
NEEDS_LAB = True

WEB_PORT = 8080
_START_TIMEOUT_S = 15.0
_FIRST_CHECKS_S = 5.0
"""All backends are asked for the first time within an interval."""
_ATTEMPT_S = 0.05
_HAPROXY = "haproxy"

Start = Callable[[Lab, Sequence[str]], AbstractContextManager[Process]]


def run(settings: Settings) -> list[Measure]:
    """The daemon in `mark`, beside HAProxy; both share the time in which nothing happens."""
    starts: dict[str, Start] = {"ours": _ours, _HAPROXY: _haproxy}
    progress("bench: setting up")
    with contextlib.ExitStack() as stack:
        labs = {}
        for name in starts:
            progress(f" {name},")
            labs[name] = stack.enter_context(Lab(unique_prefix("bench"), backends=1))
            peers.start_web(labs[name], WEB_PORT)
        progress("\n")
        found = alternate(
            {name: _measure(labs[name], start, settings.seconds) for name, start in starts.items()},
            settings.runs,
        )
    share, first = found["idle_share"], found["first_answer_s"]
    watching = _measure_watching(settings)
    return [
        Measure(
            "idle_share",
            "of a core",
            "less",
            share["ours"],
            {_HAPROXY: share[_HAPROXY]},
            (Target(0.01, sense="at_most"),),
        ),
        Measure(
            "first_answer_s",
            "seconds",
            "less",
            first["ours"],
            {_HAPROXY: first[_HAPROXY]},
            (Target(2, sense="at_most"),),
        ),
        *watching,
    ]


def _measure(lab: Lab, start: Start, seconds: float) -> Callable[[], Sample]:
    backends = [f"{host.v4}:{WEB_PORT}" for host in lab.backends]

    def measure() -> Sample:
        began = time.monotonic()
        with start(lab, backends) as process:
            wait_for(lambda: _answered(lab, process), _START_TIMEOUT_S, "a first answer")
            first = time.monotonic() - began
            # Idleness is measured by the passing of time.
            share = cpu_share(process.pid, lambda: time.sleep(seconds))
        return {"first_answer_s": first, "idle_share": share}

    return measure


def _measure_watching(settings: Settings) -> list[Measure]:
    """With backends that are watched: by how flows begin, and by TCP every 5 s as well."""
    services, backends = (5, 100) if settings.quick else (50, 100)
    passive = {"passive": {"failures": 3, "inhibit": "10s", "longest": "1m"}}
    kinds: dict[str, dict[str, Any]] = {
        "passive": passive,
        "checked": {**passive, "health": {"type": "tcp", "interval": "5s"}},
    }
    measures = []
    for kind, more in kinds.items():
        with Lab(unique_prefix("bench"), backends=1) as lab:
            many.prepare(lab)
            peers.start_web(lab, WEB_PORT, "0.0.0.0")
            config = many.configuration(services, backends, WEB_PORT, more=more)
            with many.daemon(lab, config) as (process, _):
                time.sleep(_FIRST_CHECKS_S)
                found = alternate(
                    {"ours": _share(process, settings.seconds)}, settings.runs, f"{kind}, round"
                )
        measures.append(
            Measure(
                f"idle_share/{services * backends}_{kind}_backends",
                "of a core",
                "less",
                found["share"]["ours"],
                targets=(Target(0.3, sense="at_most"),),
            )
        )
    return measures


def _share(process: Process, seconds: float) -> Callable[[], Sample]:
    return lambda: {"share": cpu_share(process.pid, lambda: time.sleep(seconds))}


def _answered(lab: Lab, process: Process) -> bool:
    """Whether a request to the VIP is answered. An unanswered one is given up soon and tried again."""
    process.check_running()
    try:
        with lab.client.enter(), socket.create_connection((ours.VIP, 80), timeout=_ATTEMPT_S) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return bool(sock.recv(1))
    except OSError:
        return False


@contextlib.contextmanager
def _ours(lab: Lab, backends: Sequence[str]) -> Iterator[Process]:
    service = ours.Service("web", f"{ours.VIP}:80/tcp", backends)
    process, _ = ours.start_daemon(lab, "mark", [service])
    with _ended(process):
        yield process


@contextlib.contextmanager
def _haproxy(lab: Lab, backends: Sequence[str]) -> Iterator[Process]:
    with peers.address(lab, ours.VIP):
        process = peers.start_haproxy(lab, ours.VIP, backends)
        with _ended(process):
            yield process


@contextlib.contextmanager
def _ended(process: Process) -> Iterator[None]:
    """Ends it, and an error where it does not end as asked."""
    try:
        yield
    finally:
        if process.stop(timeout=10) not in (0, -signal.SIGTERM):
            raise LabError(f"{process.shown} ended with {process.returncode}: {process.output()[-500:]}")
