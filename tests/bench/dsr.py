"""Packets a second of the smallest frame with direct return, where answers go past the gateway.

So what a gateway can carry of requests is all that it can do. The packets keep the
VIP as their destination; what counts them at the backends looks at their port alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

from tests.bench import ours, peers
from tests.bench.datagrams import Side, set_up
from tests.bench.report import Measure, Target
from tests.bench.runner import Settings, alternate, progress
from tests.bench.senders import pin
from tests.bench.traffic import PORT
from tests.support.lab import Lab

ABOUT = "64-byte UDP packets a second with direct return, beside forwarding and nft alone"
PROGRAMS = ("nft", "gcc")
DEFAULTS = Settings(runs=15, seconds=0.4)
QUICK = Settings(runs=1, seconds=0.1, quick=True)
NEEDS_LAB = True

_FORWARDING = "forwarding"
_STATELESS = "stateless-nft"
_FIRST_MARK = 100


def run(settings: Settings) -> list[Measure]:
    """One measure for `offload` and for `mark`, one worker each."""
    sides = [
        Side(_FORWARDING, contextlib.nullcontext, to_vip=False),
        Side(_STATELESS, _stateless),
        Side("offload", _ours("offload")),
        Side("mark", _ours("mark")),
    ]
    progress("bench: setting up")
    with contextlib.ExitStack() as stack:
        ready = [set_up(side, stack) for side in sides]
        progress("\n")
        rates = alternate({r.side.name: r.rate(settings.seconds) for r in ready}, settings.runs)
    found = rates["packets_per_s"]
    targets = {"offload": [Target(0.9, of=_FORWARDING)]}
    return [
        Measure(
            f"packets_per_s/{name}",
            "packets/s",
            "more",
            found[name],
            {peer: found[peer] for peer in (_FORWARDING, _STATELESS)},
            targets.get(name, ()),
        )
        for name in ("offload", "mark")
    ]


def _ours(datapath: str) -> Callable[[Lab], AbstractContextManager[object]]:
    def up(lab: Lab) -> AbstractContextManager[object]:
        backends = [host.v4 for host in lab.backends]
        service = ours.Service("blast", f"{ours.VIP}:{PORT}/udp", backends, forward="dsr")
        return ours.daemon(lab, datapath, [service], workers=1, prefix=pin(1))

    return up


def _stateless(lab: Lab) -> AbstractContextManager[object]:
    """What a person would write by hand: the flow's hash marks the packet, and each mark has a route."""
    for mark, host in enumerate(lab.backends, start=_FIRST_MARK):
        lab.gateway.run(["ip", "route", "add", "default", "via", host.v4, "table", str(mark)])
        lab.gateway.run(["ip", "rule", "add", "fwmark", str(mark), "lookup", str(mark)])
    chosen = f"jhash ip saddr . udp sport mod {len(lab.backends)} seed 0x1 offset {_FIRST_MARK}"
    return peers.nft_rules(
        lab,
        "type filter hook prerouting priority mangle",
        f"ip daddr {ours.VIP} udp dport {PORT} meta mark set {chosen}",
    )
