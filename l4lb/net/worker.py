"""Workers: threads that serve one queue each, by the native loop or by the reference."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from netfilterqueue import COPY_PACKET, NetfilterQueue

from l4lb.dataplane import balancer as native
from l4lb.dataplane.decision import Flow, Reason, SlotCounters, Verdict
from l4lb.dataplane.reference import balancer as reference
from l4lb.dataplane.table import MARK_MASK, Table
from l4lb.errors import L4lbError
from l4lb.net.nfqueue import QueueLoop
from l4lb.net.queue import COPY_ALL, COPY_HEADERS, open_queue, wake

OnFailure = Callable[[str], None]
_JOIN_TIMEOUT_S = 5
_REFERENCE_COPY = 4016  # the package's buffer holds no more of a packet


class Worker(Protocol):
    """What the daemon knows of a worker, whatever serves its queue."""

    number: int

    def start(self) -> None:
        """Begins to serve; the queue is bound when this returns."""

    def stop(self) -> None:
        """Ends the thread and gives the queue up; packets still queued are dropped by the kernel."""

    def loop_counts(self) -> dict[str, int]:
        """Counters of the queue loop."""

    @property
    def balancer(self) -> Any:
        """The worker's balancer; safe to use from any thread."""


class NativeWorker:
    """Serves a queue with the native loop, without the GIL."""

    def __init__(
        self,
        number: int,
        balancer: native.Balancer,
        *,
        rewrite: bool,
        length: int,
        on_failure: OnFailure,
    ) -> None:
        self.number = number
        self.balancer = balancer
        copy_range = COPY_ALL if rewrite else COPY_HEADERS
        self._socket = open_queue(number, length=length, copy_range=copy_range, fail_open=True)
        self._loop = QueueLoop(
            balancer, self._socket.fileno(), queue=number, copy_range=copy_range, rewrite=rewrite
        )
        self._on_failure = on_failure
        self._thread = threading.Thread(target=self._serve, name=f"queue-{number}", daemon=True)

    def start(self) -> None:
        """Begins to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and gives the queue up."""
        self._loop.stop()
        if self._thread.is_alive():
            wake(self._socket, self.number)
            self._thread.join(_JOIN_TIMEOUT_S)
            if self._thread.is_alive():
                raise L4lbError(f"queue {self.number}: its worker does not end")
        self._socket.close()

    def loop_counts(self) -> dict[str, int]:
        """Counters of the queue loop."""
        return self._loop.counts()

    def _serve(self) -> None:
        try:
            self._loop.run()
        except OSError as error:
            self._on_failure(str(error))


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

    def reasons(self) -> dict[Reason, int]:
        """See `Balancer.reasons`."""
        with self._lock:
            return self._inner.reasons()

    def slot_counters(self, slot: int) -> SlotCounters:
        """See `Balancer.slot_counters`."""
        with self._lock:
            return self._inner.slot_counters(slot)

    def flow_count(self) -> int:
        """See `Balancer.flow_count`."""
        with self._lock:
            return self._inner.flow_count()

    def flows(self) -> Iterator[Flow]:
        """See `Balancer.flows`."""
        with self._lock:
            return iter(list(self._inner.flows()))

    @property
    def capacity(self) -> int:
        """See `Balancer.capacity`."""
        return self._inner.capacity


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
        self._counts = {"packets": 0, "dropped": 0}
        self._queue = NetfilterQueue()
        try:
            self._queue.bind(number, self._answer, length, COPY_PACKET, _REFERENCE_COPY)
        except OSError as error:
            raise L4lbError(
                f"queue {number}: cannot be bound ({error}); another process may listen on it"
            ) from error
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._serve, name=f"queue-{number}", daemon=True)

    def start(self) -> None:
        """Begins to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and gives the queue up."""
        os.write(self._stop_write, b".")
        if self._thread.is_alive():
            self._thread.join(_JOIN_TIMEOUT_S)
        self._queue.unbind()
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
        if decision.reason is not Reason.NOT_BALANCED:  # else the rules drop it, for they know a service here
            packet.set_mark(packet.get_mark() & ~MARK_MASK)
        if decision.verdict is Verdict.DROP:
            self._counts["dropped"] += 1
            packet.drop()
            return
        if decision.packet is not None:
            packet.set_payload(decision.packet)
        packet.accept()
