"""All workers of a daemon: for each a balancer with its flows, a queue of headers, and a queue of whole
packets.

Both queues of a worker share its balancer, so a flow is the same worker's however its packets come.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from l4lb.control.pool import divide_ports
from l4lb.dataplane.balancer import Balancer, SharedCounters
from l4lb.dataplane.nativetable import NativeTable
from l4lb.dataplane.table import Table
from l4lb.model import Datapath, L4Config
from l4lb.net.handover import pack_file, unpack_file
from l4lb.net.logs import log
from l4lb.net.queue import read_kernel_queues
from l4lb.net.worker import NativeWorker, OnFailure, Worker

Json = dict[str, Any]
_DRAIN_TIMEOUT_S = 2.0
_EXPIRE_TURNS = 20
"""The whole flow table is looked through for expired flows in this many turns."""
_EXPIRE_GROUPS = 256


@dataclass(frozen=True, slots=True)
class CrewPlan:
    """How many workers, on which queues, with which share of what the configuration bounds."""

    datapath: Datapath
    workers: int
    first_queue: int
    queue_length: int
    capacity: int
    """Flows of one worker."""
    ports: Sequence[tuple[int, int]]
    """Masquerade ports of each worker, first and last."""


def plan_crew(config: L4Config, datapath: Datapath, workers: int) -> CrewPlan:
    """The share of each of `workers`."""
    return CrewPlan(
        datapath=datapath,
        workers=workers,
        first_queue=config.queue.first,
        queue_length=config.queue.length,
        capacity=-(-config.flows.capacity // workers),
        ports=divide_ports(config.masquerade.first_port, config.masquerade.last_port, workers),
    )


class Crew:
    """Made idle; `start` binds the queues and serves them."""

    def __init__(self, plan: CrewPlan, key: bytes, now_ms: Callable[[], int], on_failure: OnFailure) -> None:
        self.plan = plan
        self.workers: list[Worker] = []
        """One for each balancer, on its queue of headers."""
        self.helpers: list[Worker] = []
        """The same on the queues of whole packets."""
        self._key = key
        self._now_ms = now_ms
        self._on_failure = on_failure
        self._shared = SharedCounters()
        self._compiled: NativeTable | None = None
        self._expired_turn = 0

    @property
    def everyone(self) -> list[Worker]:
        """All workers, each with a queue."""
        return [*self.workers, *self.helpers]

    def start(self, table: Table) -> None:
        """Binds every queue and serves it; L4lbError where one cannot be bound, with those bound before to
        be stopped."""
        for n in range(self.plan.workers):
            balancer = self._make_balancer(n)
            self.workers.append(self._make_worker(self.plan.first_queue + n, balancer, whole=False))
            self.helpers.append(
                self._make_worker(self.plan.first_queue + self.plan.workers + n, balancer, whole=True)
            )
        self.publish(table)
        for worker in self.everyone:
            worker.start()

    def pause(self) -> None:
        """Ends all threads; the queues stay bound, and packets wait in them."""
        for worker in self.everyone:
            worker.pause()

    def resume(self) -> None:
        """Serves the queues again after `pause`."""
        for worker in self.everyone:
            worker.start()

    def pack(self) -> tuple[dict[str, int], dict[str, int], Json]:
        """Queue sockets by number, memory files with flows and affinities, and counters. After `pause`."""
        queues = {f"queue-{worker.number}": worker.fileno() for worker in self.everyone}
        files = {
            f"flows-{n}": pack_file(f"flows-{n}", worker.balancer.dump())
            for n, worker in enumerate(self.workers)
        }
        files["affinities"] = pack_file("affinities", self._shared.dump_affinities(self._now_ms()))
        counters = {
            "workers": [worker.balancer.counters() for worker in self.workers],
            "shared": self._shared.counters(),
        }
        return queues, files, counters

    def unpack(
        self, table: Table, queues: Mapping[str, int], files: Mapping[str, int], counters: Json
    ) -> None:
        """In place of `start`: goes on with what another crew has packed."""
        for n in range(self.plan.workers):
            balancer = self._make_balancer(n)
            for whole, team in ((False, self.workers), (True, self.helpers)):
                number = self.plan.first_queue + n + self.plan.workers * whole
                team.append(
                    self._make_worker(number, balancer, whole=whole, descriptor=queues[f"queue-{number}"])
                )
        # The limits of sources and the ports of masquerade are counted by the table.
        self.publish(table)
        for n, worker in enumerate(self.workers):
            if lost := worker.balancer.load(unpack_file(files[f"flows-{n}"])):
                log("no room for flows of the program before", level=logging.WARNING, flows=lost)
            worker.balancer.load_counters(counters["workers"][n])
        self._shared.load_affinities(unpack_file(files["affinities"]))
        self._shared.load_counters(counters["shared"])
        for worker in self.everyone:
            worker.start()

    def publish(self, table: Table) -> None:
        """Decide by `table` from the next batch on."""
        if self._native:
            self._compiled = NativeTable(table, self._compiled)
        for worker in self.workers:
            worker.balancer.publish(self._compiled if self._native else table)

    def stop(self) -> None:
        """Ends all threads and gives the queues up."""
        for worker in self.everyone:
            worker.stop()
        self.workers.clear()
        self.helpers.clear()

    def wait_for_empty_queues(self) -> None:
        """Lets the workers answer what was queued before the rules stopped; bounded."""
        own = {worker.number for worker in self.everyone}
        deadline = time.monotonic() + _DRAIN_TIMEOUT_S
        while any(q.waiting for q in read_kernel_queues() if q.number in own):
            if time.monotonic() > deadline:
                log("queues did not run empty", level=logging.WARNING)
                return
            time.sleep(0.005)

    def flows_of(self, slot: int) -> int:
        """How many flows remember a slot, over all workers."""
        return self.workers[0].balancer.slot_counters(slot).flows if self.workers else 0

    def take_beginnings(self) -> dict[int, tuple[int, int]]:
        """By slot how many flows began, and how many failed to, over all workers since the last call."""
        found: dict[int, tuple[int, int]] = {}
        for worker in self.workers:
            for slot, begun, failed in worker.balancer.take_beginnings():
                before = found.get(slot, (0, 0))
                found[slot] = before[0] + begun, before[1] + failed
        return found

    def remove_flows(self, slot: int) -> int:
        """Forgets every flow of a slot, a slice of each table at a time; returns how many."""
        removed = 0
        for worker in self.workers:
            groups = worker.balancer.groups
            for first in range(0, groups, _EXPIRE_GROUPS):
                removed += worker.balancer.remove_flows(slot, first, min(_EXPIRE_GROUPS, groups - first))
        return removed

    @property
    def untracked_sources(self) -> int:
        """Flows whose source had no place in the table of limits."""
        return int(self._shared.untracked()) if self._native else 0

    @property
    def crowded_out_affinities(self) -> int:
        """Clients whose affinity was forgotten early, for others had to be remembered."""
        return int(self._shared.crowded_out()) if self._native else 0

    def expire(self) -> None:
        """Removes expired flows, a slice of every table at a time: 1/20 a call."""
        self._expired_turn = at = (self._expired_turn + 1) % _EXPIRE_TURNS
        now = self._now_ms()
        for worker in self.workers:
            if not self._native:
                if at == 0:
                    worker.balancer.expire(now)
                continue
            groups = worker.balancer.groups
            first, end = groups * at // _EXPIRE_TURNS, groups * (at + 1) // _EXPIRE_TURNS
            for group in range(first, end, _EXPIRE_GROUPS):
                worker.balancer.expire_groups(group, min(_EXPIRE_GROUPS, end - group), now)

    @property
    def _native(self) -> bool:
        return self.plan.datapath is not Datapath.REFERENCE

    def _make_balancer(self, n: int) -> Any:
        first, last = self.plan.ports[n]
        ports = (first, last - first + 1)
        if self._native:
            return Balancer(capacity=self.plan.capacity, key=self._key, shared=self._shared, ports=ports)
        from l4lb.net.reference_worker import make_reference_balancer

        return make_reference_balancer(capacity=self.plan.capacity, key=self._key, ports=ports)

    def _make_worker(
        self, number: int, balancer: Any, *, whole: bool, descriptor: int | None = None
    ) -> Worker:
        length = self.plan.queue_length
        if self._native:
            return NativeWorker(
                number,
                balancer,
                rewrite=self.plan.datapath is Datapath.REWRITE,
                whole=whole,
                length=length,
                on_failure=self._on_failure,
                descriptor=descriptor,
            )
        from l4lb.net.reference_worker import ReferenceWorker

        return ReferenceWorker(
            number, balancer, length=length, now_ms=self._now_ms, on_failure=self._on_failure
        )
