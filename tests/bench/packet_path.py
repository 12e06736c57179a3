"""Packets a second of the smallest frame through the gateway, and packets lost at a modest rate.

One core sends; forwarding in the kernel runs on that core too, and a queue's listener on another. What a
side adds to plain forwarding is what it costs. Every side gets the same datagrams of the same flows, spread
over the same backends, on fresh rules.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from l4lb.net import nft
from l4lb.net.probe import probe_host
from tests.bench import ours, peers
from tests.bench.report import Measure, Target
from tests.bench.runner import Sample, Series, Settings, alternate, progress
from tests.bench.traffic import PORT, Counters, blast_for, build_blast, check_path, pin
from tests.support.lab import Lab, unique_prefix, wait_for

ABOUT = "64-byte UDP packets a second beside forwarding, nft, DNAT, netfilterqueue; loss at 60 kpps"
PROGRAMS = ("nft", "gcc", "netfilterqueue")
DEFAULTS = Settings(runs=15, seconds=0.4)
QUICK = Settings(runs=1, seconds=0.1, quick=True)
NEEDS_LAB = True

BACKENDS = 3
STEADY_RATE = 60_000
# Loss is looked for in fewer and longer windows.
STEADY_RUNS, STEADY_SECONDS = 1 / 5, 5
# So that the reference, too, has emptied its queue before another side's turn.
REFERENCE_QUEUE = 256
_QUEUE = 0
_FORWARDING = "forwarding"
_PACKAGE = "netfilterqueue"


@dataclass(frozen=True, slots=True)
class Side:
    """A way through the gateway. `up` holds it; `to_vip` says whether the sender aims at the VIP."""

    name: str
    up: Callable[[Lab], AbstractContextManager[object]]
    to_vip: bool = True
    steady: bool = False
    """Whether its loss at the steady rate is measured."""


def run(settings: Settings) -> list[Measure]:
    """One measure for each of our datapaths, then the losses.

    Every side has a lab of its own in which it stays up, so that turns are short and whatever else the
    machine does meets all sides alike.
    """
    build_blast()
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
        ready = [_set_up(side, stack) for side in sides]
        progress("\n")
        rates = alternate({r.side.name: r.rate(settings.seconds) for r in ready}, settings.runs)
        losses = alternate(
            {r.side.name: r.loss(settings.seconds * STEADY_SECONDS) for r in ready if r.side.steady},
            max(1, round(settings.runs * STEADY_RUNS)),
            "lost at 60 kpps,",
        )
    return _measures(rates | losses)


@dataclass(frozen=True, slots=True)
class Ready:
    """A side that is up, in its lab."""

    side: Side
    lab: Lab
    counters: Counters
    targets: Sequence[str]

    def rate(self, seconds: float) -> Callable[[], Sample]:
        """Measures what is delivered while the sender sends what it can."""

        def measure() -> Sample:
            blast = blast_for(self.lab, self.counters, self.targets, seconds)
            # The next side's turn begins when this one's queue is empty.
            self.counters.wait_quiet()
            return {"packets_per_s": blast.received / blast.seconds}

        return measure

    def loss(self, seconds: float) -> Callable[[], Sample]:
        """Counts what is lost at the steady rate."""

        def measure() -> Sample:
            before = self.counters.delivered()
            sent = blast_for(self.lab, self.counters, self.targets, seconds, STEADY_RATE).sent
            self.counters.wait_quiet()
            return {"lost": sent - (self.counters.delivered() - before)}

        return measure


def _set_up(side: Side, stack: contextlib.ExitStack) -> Ready:
    progress(f" {side.name},")
    lab = stack.enter_context(Lab(unique_prefix("bench"), backends=BACKENDS))
    counters = stack.enter_context(Counters(lab))
    targets = [ours.VIP] if side.to_vip else [host.v4 for host in lab.backends]
    stack.enter_context(side.up(lab))
    check_path(lab, counters, targets)
    return Ready(side, lab, counters, targets)


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
        f"ip daddr {ours.VIP} udp dport {PORT} ip daddr set {_choice(lab)}",
    )


def _conntrack(lab: Lab) -> AbstractContextManager[object]:
    """The same with connection tracking, which also translates the answers."""
    return peers.nft_rules(
        lab,
        "type nat hook prerouting priority dstnat",
        f"ip daddr {ours.VIP} udp dport {PORT} dnat to {_choice(lab)}",
    )


def _choice(lab: Lab) -> str:
    backends = ", ".join(f"{n} : {host.v4}" for n, host in enumerate(lab.backends))
    return f"jhash ip saddr . udp sport mod {len(lab.backends)} seed 0x1 map {{ {backends} }}"


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
