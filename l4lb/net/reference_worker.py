"""A worker that runs the Python reference on the netfilterqueue package: readable, not fast.

A module of its own because Scapy takes a good part of a second to import, which no other datapath needs.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from typing import Any

from netfilterqueue import COPY_PACKET, NetfilterQueue

from l4lb.dataplane.decision import Decision, Flow, Reason, SlotCounters, Verdict
from l4lb.dataplane.reference import balancer as reference
from l4lb.dataplane.selection import Selected, Selection
from l4lb.dataplane.table import MARK_MASK, MARK_REPLY, Table
from l4lb.errors import L4lbError
from l4lb.net.rawsocket import RawSender
from l4lb.net.worker import OnFailure

_JOIN_TIMEOUT_S = 5
_LARGEST_COPY = 4016  # the package's buffer holds no more of a packet


class ReferenceBalancer:
    """The reference balancer behind a lock, for it is not made for several threads."""

    def __init__(self, inner: reference.Balancer) -> None:
        self._inner = inner
        self._lock = threading.Lock()

    def publish(self, table: Table) -> None:
        """See `Balancer.publish`."""
        with self._lock:
            self._inner.publish(table)

    def decide(self, packet: bytes, now_ms: int) -> Any:
        """See `Balancer.decide`."""
        with self._lock:
            return self._inner.decide(packet, now_ms)

    def expire(self, now_ms: int) -> int:
        """See `Balancer.expire`."""
        with self._lock:
            return self._inner.expire(now_ms)

    def preview(self, packet: bytes, now_ms: int) -> Any:
        """See `Balancer.preview`."""
        with self._lock:
            return self._inner.preview(packet, now_ms)

    def find(self, packet: bytes, now_ms: int) -> Flow | None:
        """See `Balancer.find`."""
        with self._lock:
            return self._inner.find(packet, now_ms)

    def find_source(self, address: bytes, port: int, protocol: int, now_ms: int) -> Flow | None:
        """See `Balancer.find_source`."""
        with self._lock:
            return self._inner.find_source(address, port, protocol, now_ms)

    def reasons(self) -> dict[Reason, int]:
        """See `Balancer.reasons`."""
        with self._lock:
            return self._inner.reasons()

    def slot_counters(self, slot: int) -> SlotCounters:
        """See `Balancer.slot_counters`."""
        with self._lock:
            return self._inner.slot_counters(slot)

    def take_beginnings(self) -> list[tuple[int, int, int]]:
        """See `Balancer.take_beginnings`."""
        with self._lock:
            return self._inner.take_beginnings()

    def flow_count(self) -> int:
        """See `Balancer.flow_count`."""
        with self._lock:
            return self._inner.flow_count()

    def flows(self) -> Iterator[Flow]:
        """See `Balancer.flows`."""
        with self._lock:
            return iter(list(self._inner.flows()))

    def select(self, selection: Selection) -> Selected:
        """See `Balancer.select`."""
        with self._lock:
            return self._inner.select(selection)

    @property
    def groups(self) -> int:
        """See `Balancer.groups`."""
        return self._inner.groups

    def remove_flows(self, slot: int, first_group: int, groups: int) -> int:
        """See `Balancer.remove_flows`."""
        with self._lock:
            return self._inner.remove_flows(slot, first_group, groups)

    @property
    def capacity(self) -> int:
        """See `Balancer.capacity`."""
        return self._inner.capacity


def make_reference_balancer(*, capacity: int, key: bytes, ports: tuple[int, int]) -> ReferenceBalancer:
    """A balancer for the workers here; see `Balancer`."""
    return ReferenceBalancer(reference.Balancer(capacity=capacity, key=key, ports=ports))


class ReferenceWorker:
    """Serves a queue with the netfilterqueue package and the Python reference: readable, not fast."""

    def __init__(
        self,
        number: int,
        balancer: ReferenceBalancer,
        *,
        length: int,
        now_ms: Callable[[], int],
        on_failure: OnFailure,
    ) -> None:
        self.number = number
        self.balancer = balancer
        self._now_ms = now_ms
        self._on_failure = on_failure
        self._counts = {"packets": 0, "dropped": 0, "sent": 0, "send_failed": 0}
        self._sender = RawSender()
        self._queue = NetfilterQueue()
        try:
            self._queue.bind(number, self._answer, length, COPY_PACKET, _LARGEST_COPY)
        except OSError as error:
            raise L4lbError(
                f"queue {number}: cannot be bound ({error}); another process may listen on it"
            ) from error
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._serve, name=f"queue-{number}", daemon=True)

    def start(self) -> None:
        """Begins to serve."""
        self._thread.start()

    def pause(self) -> None:
        """The package cannot keep a queue without serving it: L4lbError."""
        raise L4lbError("the datapath reference cannot be paused; restart the daemon")

    def fileno(self) -> int:
        """The descriptor of the queue's socket."""
        return int(self._queue.get_fd())

    def stop(self) -> None:
        """Ends the thread and gives the queue up."""
        os.write(self._stop_write, b".")
        if self._thread.is_alive():
            self._thread.join(_JOIN_TIMEOUT_S)
        self._queue.unbind()
        self._sender.close()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def loop_counts(self) -> dict[str, int]:
        """Counters of the queue loop."""
        return dict(self._counts)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._queue.get_fd(), select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        try:
            while True:
                ready = {fd for fd, _ in poll.poll()}
                if self._stop_read in ready:
                    return
                self._queue.run(block=False)
        except Exception as error:
            self._on_failure(f"queue {self.number}: {error!r}")
            raise

    def _answer(self, packet: Any) -> None:
        decision = self.balancer.decide(packet.get_payload(), self._now_ms())
        self._counts["packets"] += 1
        mark = packet.get_mark()
        # A VIP of which the table does not know yet is left pending: the rules count and drop it. What was
        # only perhaps for us, because it came to a port of the pool, goes on.
        if decision.reason is not Reason.NOT_BALANCED or mark & MARK_REPLY:
            mark &= ~MARK_MASK
        if decision.sent:
            self._send(decision)
            packet.drop()
            return
        if decision.verdict is Verdict.DROP:
            self._counts["dropped"] += 1
            packet.drop()
            return
        if decision.packet is not None:
            packet.set_payload(decision.packet)
        elif decision.verdict is Verdict.FORWARD:
            mark |= decision.mark
        packet.set_mark(mark)
        packet.accept()

    def _send(self, decision: Decision) -> None:
        assert decision.packet is not None
        try:
            self._sender.send(decision.packet)
            self._counts["sent"] += 1
        except OSError:
            self._counts["send_failed"] += 1
