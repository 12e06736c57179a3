"""Accepting connections: by the event loop itself, and by hand where the first bytes decide.

A listener that is full stops accepting; further connections wait in the kernel, where they cost nothing. At
the end a socket that others have, too, is left to them with all that waits in it; one that is given up
(`backlog`) is closed when nobody waits in it any more.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import cast

from l7.proxy.backlog import refuses_new, waiting
from l7.proxy.client import ClientConnection
from l7.proxy.worker import ListenerPart

_BACKLOG = 4096
_ACCEPTED_AT_ONCE = 64
_AFTER_ERROR_S = 0.5
_HANDSHAKE_S = 0.25
"""What a handshake that has begun may take until it is in the queue: a round trip."""

Admit = Callable[[socket.socket], Awaitable[None]]


class Listening:
    """One bound socket of a listener, which it closes at its end.

    `admit` takes accepted sockets whose first bytes have to be looked at; None: all that comes is HTTP.
    """

    def __init__(
        self,
        part: ListenerPart,
        sock: socket.socket,
        context: ssl.SSLContext | None,
        handshake_s: float,
        admit: Admit | None,
    ) -> None:
        self._part = part
        self._sock = sock
        self._context = context
        self._handshake_s = handshake_s
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._is_wanted = False
        self._is_open = False
        self._admitting: set[asyncio.Task[None]] = set()
        self._change: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begins to accept."""
        self._is_wanted = True
        await self._open()

    def finish(self) -> None:
        """Accepts no more, at once where others have the socket, too, else when all that waits in it was
        accepted; `has_work` says how long."""
        if self._is_wanted and refuses_new(self._sock):
            self._loop.call_later(_HANDSHAKE_S, self._close_if_empty)
        else:
            self.close()

    def _close_if_empty(self) -> None:
        if not self._is_wanted:
            return
        if waiting(self._sock):
            self._loop.call_later(_HANDSHAKE_S, self._close_if_empty)
        else:
            self.close()
            self._part.worker.on_change()

    def close(self) -> None:
        """Accepts no more, and closes the socket here."""
        self._is_wanted = False
        self._close()
        self._sock.close()

    @property
    def has_work(self) -> bool:
        """Whether it accepts, or waits for the first bytes of what it has accepted."""
        return self._is_wanted or bool(self._admitting)

    @property
    def admitting(self) -> int:
        """Accepted sockets whose first bytes are waited for."""
        return len(self._admitting)

    def check_room(self) -> None:
        """Stops or goes on, as there is room."""
        if not self._is_wanted:
            return
        if not self._part.has_room():
            self._close()
            self._part.worker.is_watched = True
        elif not self._is_open and self._change is None:
            self._change = self._loop.create_task(self._open())
            self._change.add_done_callback(self._changed)

    def _changed(self, _: asyncio.Task[None]) -> None:
        self._change = None
        self.check_room()

    async def _open(self) -> None:
        if self._is_open or not self._is_wanted:
            return
        self._is_open = True
        if self._admit is not None:
            self._sock.setblocking(False)
            self._loop.add_reader(self._sock, self._accept)
            return
        # A duplicate, since closing the server closes its socket, and what waits in the kernel with it.
        self._server = await self._loop.create_server(
            cast(Callable[[], asyncio.BaseProtocol], self._make),
            sock=self._sock.dup(),
            ssl=self._context,
            ssl_handshake_timeout=self._handshake_s if self._context else None,
            backlog=_BACKLOG,
        )

    def _close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        if self._server is not None:
            self._server.close()
            self._server = None
        else:
            self._loop.remove_reader(self._sock)

    def _make(self) -> ClientConnection:
        connection = ClientConnection(self._part)
        if not self._part.has_room():
            # Not from here: the event loop is in the middle of accepting.
            self._loop.call_soon(self.check_room)
        return connection

    def _accept(self) -> None:
        assert self._admit is not None
        for _ in range(_ACCEPTED_AT_ONCE):
            if not self._part.has_room():
                self.check_room()
                return
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # No descriptors or no memory are left: asked again when some may be.
                self._close()
                self._loop.call_later(_AFTER_ERROR_S, self.check_room)
                return
            sock.setblocking(False)
            self._part.hold()
            task = self._loop.create_task(self._take(self._admit, sock))
            self._admitting.add(task)
            task.add_done_callback(self._admitted)

    def _admitted(self, task: asyncio.Task[None]) -> None:
        self._admitting.discard(task)
        self._part.release()

    async def _take(self, admit: Admit, sock: socket.socket) -> None:
        try:
            await admit(sock)
        except (OSError, ssl.SSLError, TimeoutError):
            sock.close()
