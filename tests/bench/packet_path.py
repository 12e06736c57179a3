"""Packets a second of the smallest frame through the gateway, and packets lost at a modest rate.

One core sends; forwarding in the kernel runs on that core too, and a queue's listener on another. What a
side adds to plain forwarding is what it costs. Every side gets the same datagrams of the same flows, spread
over the same backends, on fresh rules.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from l4lb.net import nft
from l4lb.net.probe import probe_host
from tests.bench import ours, peers
from tests.bench.datagrams import Side, choice, set_up
from tests.bench.report import Measure, Target
from tests.bench.runner import Series, Settings, alternate, progress
from tests.bench.senders import pin
from tests.bench.traffic import PORT
from tests.support.lab import Lab, wait_for

ABOUT = "64-byte UDP packets a second beside forwarding, nft, DNAT, netfilterqueue; loss at 60 kpps"
PROGRAMS = ("nft", "gcc", "netfilterqueue")
DEFAULTS = Settings(runs=15, seconds=0.4)
QUICK = Settings(runs=1, seconds=0.1, quick=True)
NEEDS_LAB = True

STEADY_RATE = 60_000
# Loss is looked for in fewer and longer windows.
STEADY_RUNS, STEADY_SECONDS = 1 / 5, 5
# So that the reference, too, has emptied its queue before another side's turn.
REFERENCE_QUEUE = 256
_QUEUE = 0
_FORWARDING = "forwarding"
_PACKAGE = "netfilterqueue"


def run(settings: Settings) -> list[Measure]:
    """One measure for each of our datapaths, then the losses.

    Every side has a lab of its own in which it stays up, so that turns are short and whatever else the
    machine does meets all sides alike.
    """
    sides = [
        Side(_FORWARDING, contextlib.nullcontext, to_vip=False, steady=True),
        Side("stateless-nft", _stateless),
        Side("conntrack-dnat", _conntrack),
        Side(_PACKAGE, _package, to_vip=False, steady=True),
        Side("mark", _ours("mark", 1), steady=True),
        Side("mark_2_workers", _ours("mark", 2)),
        Side("rewrite", _ours("rewrite", 1), steady=True),
        Side("reference", _ours("reference", 1, REFERENCE_QUEUE)),
    ]
    progress("bench: setting up")
    with contextlib.ExitStack() as stack:
        ready = [set_up(side, stack) for side in sides]
        progress("\n")
        rates = alternate({r.side.name: r.rate(settings.seconds) for r in ready}, settings.runs)
        steady_seconds = settings.seconds * STEADY_SECONDS
        losses = alternate(
            {r.side.name: r.loss(steady_seconds, STEADY_RATE) for r in ready if r.side.steady},
            max(1, round(settings.runs * STEADY_RUNS)),
            "lost at 60 kpps,",
        )
    return _measures(rates | losses)


def _measures(found: dict[str, dict[str, Series]]) -> list[Measure]:
    rates, losses = found["packets_per_s"], found["lost"]
    others = (_FORWARDING, "stateless-nft", "conntrack-dnat", _PACKAGE)
    targets = {"mark": [Target(1.25, of=_PACKAGE)], "rewrite": [Target(1.0, of=_PACKAGE)]}
    measures = [
        Measure(
            f"packets_per_s/{name}",
            "packets/s",
            "more",
            rates[name],
            {peer: rates[peer] for peer in others},
            targets.get(name, ()),
        )
        for name in ("mark", "mark_2_workers", "rewrite", "reference")
    ]
    for name in ("mark", "rewrite"):
        measures.append(
            Measure(
                f"lost_at_60_kpps/{name}",
                "packets",
                "less",
                losses[name],
                {peer: losses[peer] for peer in (_FORWARDING, _PACKAGE)},
                (Target(0, sense="at_most"),),
            )
        )
    return measures


# The sides ------------------------------------------------------------------------------------------


def _ours(
    datapath: str, workers: int, queue: int = ours.QUEUE_LENGTH
) -> Callable[[Lab], AbstractContextManager[object]]:
    def up(lab: Lab) -> AbstractContextManager[object]:
        backends = [f"{host.v4}:{PORT}" for host in lab.backends]
        service = ours.Service("blast", f"{ours.VIP}:{PORT}/udp", backends)
        prefix = pin(1) if workers == 1 else ()
        return ours.daemon(lab, datapath, [service], workers=workers, queue=queue, prefix=prefix)

    return up


def _stateless(lab: Lab) -> AbstractContextManager[object]:
    """What a person would write by hand: one rule, the flow's hash chooses the new destination."""
    return peers.nft_rules(
        lab,
        "type filter hook prerouting priority -300",
        f"ip daddr {ours.VIP} udp dport {PORT} ip daddr set {choice(lab)}",
    )


def _conntrack(lab: Lab) -> AbstractContextManager[object]:
    """The same with connection tracking, which also translates the answers."""
    return peers.nft_rules(
        lab,
        "type nat hook prerouting priority dstnat",
        f"ip daddr {ours.VIP} udp dport {PORT} dnat to {choice(lab)}",
    )


@contextlib.contextmanager
def _package(lab: Lab) -> Iterator[None]:
    """The package accepts what passes: plain forwarding, with the way through the queue added."""
    command = [*pin(1), sys.executable, "-m", "tests.bench.accept_all", str(_QUEUE), str(ours.QUEUE_LENGTH)]
    process = lab.gateway.popen(command, log="netfilterqueue.log")
    try:

        def ready() -> bool:
            process.check_running()
            return "ready" in process.output()

        wait_for(ready, 10, "the netfilterqueue package to bind its queue")
        with _queued(lab):
            yield
    finally:
        process.stop()


@contextlib.contextmanager
def _queued(lab: Lab) -> Iterator[None]:
    """The shortest way into the queue, made as the daemon makes it: by nftables or xtables' target in it."""
    hook = "type filter hook prerouting priority -300"
    with peers.nft_rules(lab, hook, f"udp dport {PORT} goto to_user", chains=["to_user"]):
        with lab.gateway.enter():
            if probe_host().has("nft-queue"):
                nft.run_nft(f"add rule inet {peers.TABLE} to_user queue num {_QUEUE}")
            else:
                nft.add_queue_rules(peers.TABLE, {"to_user": _QUEUE})
        yield
