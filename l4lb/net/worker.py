"""Workers: threads that serve one queue each. The reference's stands in `reference_worker`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol

from l4lb.dataplane import balancer as native
from l4lb.errors import L4lbError
from l4lb.net.nfqueue import QueueLoop
from l4lb.net.queue import COPY_ALL, COPY_HEADERS, open_queue, wake
from l4lb.net.rawsocket import open_raw

OnFailure = Callable[[str], None]
_JOIN_TIMEOUT_S = 5


class Worker(Protocol):
    """What the daemon knows of a worker, whatever serves its queue."""

    number: int

    def start(self) -> None:
        """Begins to serve; the queue is bound when this returns."""

    def pause(self) -> None:
        """Ends the thread; the queue stays bound, and its packets wait."""

    def stop(self) -> None:
        """Ends the thread and gives the queue up; packets still queued are dropped by the kernel."""

    def fileno(self) -> int:
        """The descriptor of the queue's socket."""

    def loop_counts(self) -> dict[str, int]:
        """Counters of the queue loop."""

    @property
    def balancer(self) -> Any:
        """The worker's balancer; safe to use from any thread."""


class NativeWorker:
    """Serves a queue with the native loop, without the GIL.

    `rewrite` says that decisions are carried out in the packets, which then come whole. `whole` is for
    services that need all of each packet, one segment at a time: tunnels and masquerade. Two workers may
    share a `balancer`. `descriptor` is the queue's socket where a program before has bound it.
    """

    def __init__(
        self,
        number: int,
        balancer: native.Balancer,
        *,
        rewrite: bool,
        whole: bool,
        length: int,
        on_failure: OnFailure,
        descriptor: int | None = None,
    ) -> None:
        self.number = number
        self.balancer = balancer
        copy_range = COPY_ALL if rewrite or whole else COPY_HEADERS
        self._socket = (
            socket.socket(fileno=descriptor)
            if descriptor is not None
            else open_queue(number, length=length, copy_range=copy_range, fail_open=True, gso=not whole)
        )
        self._raw4, self._raw6 = open_raw(socket.AF_INET), open_raw(socket.AF_INET6)
        self._rewrite, self._copy_range = rewrite or whole, copy_range
        self._loop = self._make_loop()
        self._on_failure = on_failure
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to serve, also after `pause`."""
        if self._thread is not None:
            self._loop = self._make_loop()  # one that was stopped stays so
        self._thread = threading.Thread(target=self._serve, name=f"queue-{self.number}", daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """Ends the thread; the queue stays bound, and its packets wait."""
        self._loop.stop()
        if self._thread is not None and self._thread.is_alive():
            wake(self._socket, self.number)
            self._thread.join(_JOIN_TIMEOUT_S)
            if self._thread.is_alive():
                raise L4lbError(f"queue {self.number}: its worker does not end")

    def stop(self) -> None:
        """Ends the thread and gives the queue up."""
        self.pause()
        for sock in (self._socket, self._raw4, self._raw6):
            if sock is not None:
                sock.close()

    def fileno(self) -> int:
        """The descriptor of the queue's socket."""
        return self._socket.fileno()

    def loop_counts(self) -> dict[str, int]:
        """Counters of the queue loop."""
        return self._loop.counts()

    def _make_loop(self) -> QueueLoop:
        return QueueLoop(
            self.balancer,
            self._socket.fileno(),
            queue=self.number,
            copy_range=self._copy_range,
            rewrite=self._rewrite,
            raw4=self._raw4.fileno() if self._raw4 else -1,
            raw6=self._raw6.fileno() if self._raw6 else -1,
        )

    def _serve(self) -> None:
        try:
            self._loop.run()
        except OSError as error:
            self._on_failure(str(error))
