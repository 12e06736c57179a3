"""One generation: the workers of one configuration, and the steward that looks after them.

The master makes generations, and reaps and replaces their processes; nothing here waits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from l4lb.net.logs import log
from l7.process.blueprint import Blueprint
from l7.process.channel import ChannelClosedError, Json, make_pair
from l7.process.children import Child, fork_child
from l7.process.counts import Ledger
from l7.process.kit import Belongings, StewardKit, WorkerEnd
from l7.process.steward import steer
from l7.process.worker import work

_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 5.0
_LIVED_S = 10.0
"""A process that lived so long did not fail at its start: it is replaced at once."""


@dataclass(slots=True, eq=False)
class Generation:
    """`blueprint` is None for one that the program before has left: its processes cannot be replaced."""

    ledger: Ledger
    blueprint: Blueprint | None
    belongings: Belongings
    workers: dict[int, Child] = field(default_factory=dict)
    steward: Child | None = None
    due: list[tuple[float, int | None, int]] = field(default_factory=list)
    """Processes to be started again: when, which worker (None: the steward), and after how many failures."""
    steward_until_s: float = float("inf")
    """Leaving: when the steward is killed, should it not have ended."""

    last_words: Json | None = None
    """Leaving: what its steward is told when the next one serves."""

    is_carried: bool = False
    """Its counts are, or are about to be, those of another generation."""

    @property
    def is_empty(self) -> bool:
        """Whether no process of it is left."""
        return self.steward is None and not self.workers

    # -- forking

    def fork_worker(self, number: int, failures: int = 0) -> Child:
        """Starts a worker. It serves when a steward tells it to."""
        blueprint = self.blueprint
        assert blueprint is not None
        sockets = self.belongings.sockets
        own = sockets.of_worker(blueprint.config, number, blueprint.workers)
        steward_end, worker_end = make_pair()
        kept = {id(sock) for _, sock in own}
        others = [one for one in self.belongings.everything() if id(one) not in kept]

        def run() -> int:
            return work(blueprint, number, own, worker_end)

        pid = fork_child(run, f"worker {number}", blueprint.identity, [*others, steward_end])
        worker_end.close()
        child = Child(pid, steward_end, time.monotonic(), number, failures)
        self.workers[number] = child
        return child

    def fork_steward(self, older: Iterable[Generation], state: Json | None, failures: int = 0) -> Child:
        """Starts the steward, with the channels of all workers that there are."""
        blueprint = self.blueprint
        assert blueprint is not None
        master_end, steward_end = make_pair()
        generations = [self, *older]
        ends = [
            WorkerEnd(one.number, child.number, child.pid, child.channel)
            for one in generations
            for child in one.workers.values()
        ]
        kit = StewardKit(
            blueprint,
            [one.ledger for one in generations[1:] if not one.is_carried],
            steward_end,
            ends,
            self.belongings,
            state,
        )
        kept = {id(end.channel) for end in ends} | {id(self.belongings.admin), id(self.belongings.metrics)}
        others = [one for one in self.belongings.everything() if id(one) not in kept]

        def run() -> int:
            return steer(kit)

        pid = fork_child(run, "steward", blueprint.identity, [*others, master_end])
        steward_end.close()
        self.steward = Child(pid, master_end, time.monotonic(), failures=failures)
        return self.steward

    # -- children

    def children(self) -> Iterator[Child]:
        """The steward, if there is one, and the workers."""
        if self.steward is not None:
            yield self.steward
        yield from self.workers.values()

    def remove(self, pid: int) -> Child | None:
        """Forgets a child that has ended; None where it is not of this generation."""
        child = next((child for child in self.children() if child.pid == pid), None)
        if child is None:
            return None
        if child is self.steward:
            self.steward = None
        else:
            del self.workers[child.number]
            if self.blueprint is not None:
                self.blueprint.layout.clear_gauges(self.ledger.counters.row(child.number))
        child.channel.close()
        return child

    def plan_restart(self, child: Child, number: int | None) -> float:
        """Notes that a child is to be started again, the later the oftener it failed; in how many seconds."""
        now_s = time.monotonic()
        failures = 0 if now_s - child.began_s >= _LIVED_S else child.failures + 1
        delay_s = min(_FIRST_DELAY_S * 2 ** (failures - 1), _LONGEST_DELAY_S) if failures else 0.0
        self.due.append((now_s + delay_s, number, failures))
        return delay_s

    def signal_workers(self, number: signal.Signals) -> None:
        """Sends all workers a signal."""
        for child in self.workers.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)

    def signal_all(self, number: signal.Signals) -> None:
        """Sends all processes a signal."""
        for child in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)

    def tell_steward(self, message: Json, descriptors: Iterable[int] = ()) -> None:
        """Sends the steward a message, if there is one; one that does not read any more is about to be
        replaced."""
        if self.steward is None:
            return
        try:
            self.steward.channel.send(message, list(descriptors))
        except ChannelClosedError as error:
            log("the steward does not hear", level=logging.WARNING, pid=self.steward.pid, why=error)

    @property
    def number(self) -> int:
        """How many there were before, and 1."""
        return self.ledger.number

    def close(self) -> None:
        """Closes all channels, and forgets the processes."""
        for child in self.children():
            child.channel.close()
        self.steward = None
        self.workers.clear()

    def describe(self) -> Json:
        """For the steward's answers."""
        return {
            "generation": self.number,
            "workers": [{"number": child.number, "pid": child.pid} for child in self.workers.values()],
        }
