"""Workers: threads that serve one queue each. The reference's stands in `reference_worker`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from l4lb.dataplane import balancer as native
from l4lb.errors import L4lbError
from l4lb.net.nfqueue import QueueLoop
from l4lb.net.queue import COPY_ALL, COPY_HEADERS, open_queue, wake

OnFailure = Callable[[str], None]
_JOIN_TIMEOUT_S = 5


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
