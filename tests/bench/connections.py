"""HTTP through the gateway: new connections a second, and requests a second on connections kept.

Three nginx answer with 3 bytes; wrk asks, with `Connection: close` or without. Whoever closes first keeps
the port in TIME_WAIT; with `close` that is nginx (towards a proxy: the proxy towards the client, nginx
towards the proxy), so neither the client nor a proxy runs out of ports, and a returning port is accepted
by its newer timestamp. Client, gateway and servers share the machine's cores on every side alike.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.bench import ours, peers
from tests.bench.errors import BenchError
from tests.bench.report import Better, Measure, Target
from tests.bench.runner import Sample, Series, Settings, alternate, progress
from tests.support.lab import Lab, unique_prefix, wait_for

ABOUT = "HTTP connections and requests a second beside DNAT, HAProxy and nginx stream"
PROGRAMS = ("haproxy", "nft", "nginx", "wrk")
DEFAULTS = Settings(runs=7, seconds=1.0)
QUICK = Settings(runs=1, seconds=0.5, quick=True)
NEEDS_LAB = True

BACKENDS = 3
WEB_PORT = 8080
CONNECTIONS = 32
THREADS = 2  # with one, wrk and not DNAT would be what is measured
_URL = f"http://{ours.VIP}/"
_SYSCTLS = {
    "net.ipv4.tcp_tw_reuse": "1",
    "net.core.somaxconn": "4096",
    "net.ipv4.tcp_max_syn_backlog": "4096",
}
_DNAT, _HAPROXY, _STREAM = "conntrack-dnat", "haproxy", "nginx-stream"


@dataclass(frozen=True, slots=True)
class Side:
    """A way to the servers, and how it is held up."""

    name: str
    up: Callable[[Lab, Sequence[str]], AbstractContextManager[object]]


def run(settings: Settings) -> list[Measure]:
    """New connections, then requests on kept ones: two datapaths with one worker, and the defaults."""
    peers.need_stream_module()
    sides = [
        Side(_DNAT, lambda lab, backends: peers.dnat(lab, ours.VIP, backends)),
        Side(_HAPROXY, lambda lab, backends: peers.haproxy(lab, ours.VIP, backends)),
        Side(_STREAM, lambda lab, backends: peers.nginx_stream(lab, ours.VIP, backends)),
        Side("mark", _ours("mark", workers=1)),
        Side("auto", _ours("auto", workers="auto")),
        Side("rewrite", _ours("rewrite", workers=1)),
    ]
    progress("bench: setting up")
    with contextlib.ExitStack() as stack:
        labs = {side.name: _set_up(side, stack) for side in sides}
        progress("\n")
        closed = alternate(
            {name: _measure(lab, settings.seconds, close=True) for name, lab in labs.items()},
            settings.runs,
            "new connections,",
        )
        kept = alternate(
            {name: _measure(lab, settings.seconds, close=False) for name, lab in labs.items()},
            settings.runs,
            "requests,",
        )
    new = (Target(1.0, of=_HAPROXY), Target(1.3, of=_STREAM))
    return [
        *_measures("new_connections_per_s", "connections/s", "more", closed["per_s"], new),
        *_measures("new_connections_errors", "errors", "less", closed["errors"], ()),
        *_measures("requests_per_s", "requests/s", "more", kept["per_s"], (Target(1.2, of=_HAPROXY),)),
    ]


def _measures(
    kind: str, unit: str, better: Better, found: Mapping[str, Series], targets: Sequence[Target]
) -> list[Measure]:
    others = {peer: found[peer] for peer in (_DNAT, _HAPROXY, _STREAM)}
    return [
        Measure(f"{kind}/{name}", unit, better, found[name], others, targets)
        for name in ("mark", "auto", "rewrite")
    ]


def _set_up(side: Side, stack: contextlib.ExitStack) -> Lab:
    progress(f" {side.name},")
    lab = stack.enter_context(Lab(unique_prefix("bench"), backends=BACKENDS))
    for host in (lab.client, lab.gateway, *lab.backends):
        for key, value in _SYSCTLS.items():
            host.run(["sysctl", "-qw", f"{key}={value}"], check=False)
    peers.start_web(lab, WEB_PORT)
    stack.enter_context(side.up(lab, [f"{host.v4}:{WEB_PORT}" for host in lab.backends]))
    asked = ["curl", "-sS", "--max-time", "1", _URL]
    wait_for(
        lambda: lab.client.run(asked, check=False).stdout == "ok\n", 10, f"an answer through {side.name}"
    )
    return lab


def _ours(
    datapath: str, workers: int | str
) -> Callable[[Lab, Sequence[str]], AbstractContextManager[object]]:
    def up(lab: Lab, backends: Sequence[str]) -> AbstractContextManager[object]:
        service = ours.Service("web", f"{ours.VIP}:80/tcp", backends)
        return ours.daemon(lab, datapath, [service], workers=workers)

    return up


def _measure(lab: Lab, seconds: float, *, close: bool) -> Callable[[], Sample]:
    whole = max(1, round(seconds))
    argv = [
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{whole}s",
        *(["-H", "Connection: close"] if close else []),
        _URL,
    ]

    def measure() -> Sample:
        said = lab.client.run(argv, timeout=whole + 20).stdout
        rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
        if rate is None:
            raise BenchError(f"wrk gave no rate: {said.strip()}")
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
        return {"per_s": float(rate[1]), "errors": float(sum(map(int, errors.groups()))) if errors else 0.0}

    return measure
