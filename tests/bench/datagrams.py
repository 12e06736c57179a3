"""The sides of the benchmarks of small datagrams: each in a lab of its own, in which it stays up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.bench import ours
from tests.bench.runner import Sample, progress
from tests.bench.traffic import Counters, blast_for, check_path
from tests.support.lab import Lab, unique_prefix

BACKENDS = 3


@dataclass(frozen=True, slots=True)
class Side:
    """A way through the gateway. `up` holds it; `to_vip` says whether the sender aims at the VIP."""

    name: str
    up: Callable[[Lab], AbstractContextManager[object]]
    to_vip: bool = True
    steady: bool = False
    """Whether its loss at the steady rate is measured."""


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

    def loss(self, seconds: float, rate: float) -> Callable[[], Sample]:
        """Counts what is lost at `rate` packets a second."""

        def measure() -> Sample:
            before = self.counters.delivered()
            sent = blast_for(self.lab, self.counters, self.targets, seconds, rate).sent
            self.counters.wait_quiet()
            return {"lost": sent - (self.counters.delivered() - before)}

        return measure


def set_up(side: Side, stack: contextlib.ExitStack) -> Ready:
    """A side in a lab of its own, when the datagrams of every flow arrive."""
    progress(f" {side.name},")
    lab = stack.enter_context(Lab(unique_prefix("bench"), backends=BACKENDS))
    counters = stack.enter_context(Counters(lab))
    targets = [ours.VIP] if side.to_vip else [host.v4 for host in lab.backends]
    stack.enter_context(side.up(lab))
    check_path(lab, counters, targets)
    return Ready(side, lab, counters, targets)


def choice(lab: Lab) -> str:
    """An nftables expression: the address of the backend that the hash of the client's endpoint chooses."""
    backends = ", ".join(f"{n} : {host.v4}" for n, host in enumerate(lab.backends))
    return f"jhash ip saddr . udp sport mod {len(lab.backends)} seed 0x1 map {{ {backends} }}"
