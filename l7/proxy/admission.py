"""Connections whose first bytes decide what they are: a PROXY header, or a ClientHello that names somebody.

Both are looked at with MSG_PEEK and stay in the kernel, but for the header, which is taken out exactly: what
comes behind it is for TLS or HTTP, or goes to a backend undecrypted, hello and all. Waiting for more is
waiting until more than was seen is there (SO_RCVLOWAT), so a client that sends a byte at a time costs a turn
a byte and no more, and has `header_s` for all of it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import cast

from l7.counters import ListenerColumn
from l7.model import Listener, PassThrough
from l7.proxy.client import ClientConnection
from l7.proxy.passing import Passing
from l7.proxy.worker import ListenerPart
from l7.tls.clienthello import server_name
from l7.wire.peer import read_address
from l7.wire.proxyprotocol import MAX_V1, MAX_V2, ProxyHeader, ProxyProtocolError, parse_header
from l7.wire.trust import Trust

_MAX_HELLO = 1 << 16


class Admission:
    """What a listener does with the sockets that it accepts by hand."""

    def __init__(
        self,
        part: ListenerPart,
        context: ssl.SSLContext | None,
        header_s: float,
        passing: Passing,
    ) -> None:
        self._part = part
        self._listener = listener = part.settings
        self._context = context
        self._header_s = header_s
        self._passing = passing
        self._trust = Trust(listener.accept_proxy)
        self._names = {name: one for one in listener.pass_through for name in one.names}
        self._others = next((one for one in listener.pass_through if not one.names), None)

    @staticmethod
    def is_needed(listener: Listener) -> bool:
        """Whether the first bytes of its connections have to be looked at."""
        return bool(listener.accept_proxy or listener.pass_through)

    async def admit(self, sock: socket.socket) -> None:
        """Takes an accepted socket; closes it where it is refused."""
        loop = asyncio.get_running_loop()
        header: ProxyHeader | None = None
        way: PassThrough | None = None
        name = ""
        try:
            async with asyncio.timeout(self._header_s):
                if self._listener.accept_proxy:
                    header = await self._take_header(sock)
                if self._listener.pass_through:
                    way, name = await self._find_way(sock)
        except ProxyProtocolError:
            self._part.count(ListenerColumn.LISTENER_PROXY_REFUSED_TOTAL)
            raise OSError("no sound PROXY header") from None
        if way is not None:
            await self._passing.carry(sock, self._part, header, way.pool, name)
            return
        if self._context is None and self._listener.pass_through:
            raise OSError("nobody is asked for whom this listener has")
        await loop.connect_accepted_socket(
            cast(Callable[[], asyncio.Protocol], lambda: ClientConnection(self._part, header)),
            sock,
            ssl=self._context,
            ssl_handshake_timeout=self._header_s if self._context else None,
        )

    async def _take_header(self, sock: socket.socket) -> ProxyHeader:
        peer = read_address(sock.getpeername()[0])
        if not self._trust.covers(peer.packed):
            raise ProxyProtocolError("not from here")
        seen = b""
        while True:
            seen = await _see(sock, len(seen), MAX_V2 + 1)
            header = parse_header(seen)
            if header is not None:
                # It is there: this neither waits nor takes a byte too many.
                sock.recv(header.length)
                return header
            if len(seen) > max(MAX_V1, MAX_V2):
                raise ProxyProtocolError("too long")

    async def _find_way(self, sock: socket.socket) -> tuple[PassThrough | None, str]:
        """Where it goes, and the name that it asks for; empty where it names nobody."""
        seen = b""
        name: str | None = None
        while name is None:
            seen = await _see(sock, len(seen), _MAX_HELLO)
            try:
                name = server_name(seen)
            except ValueError:
                # Not TLS: for those that take all others, or nobody.
                return self._others, ""
            if name is None and len(seen) >= _MAX_HELLO:
                return None, ""
        return self._way_of(name), name

    def _way_of(self, name: str) -> PassThrough | None:
        exact = self._names.get(name)
        if exact is not None:
            return exact
        at = name.find(".")
        while at > 0:
            wildcard = self._names.get("*" + name[at:])
            if wildcard is not None:
                return wildcard
            at = name.find(".", at + 1)
        return self._others


async def _see(sock: socket.socket, known: int, most: int) -> bytes:
    """What is there to be read, at least a byte more than `known`, without taking it. Raises OSError at the
    end of the connection."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            seen = sock.recv(most, socket.MSG_PEEK)
        except BlockingIOError:
            seen = None
        if seen is not None and len(seen) > known:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            return seen
        if seen == b"" or (seen is not None and _has_ended(sock)):
            raise OSError("ended before it had said what it is")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, known + 1)
        ready = loop.create_future()
        loop.add_reader(sock, _set, ready)
        try:
            await ready
        finally:
            loop.remove_reader(sock)


def _has_ended(sock: socket.socket) -> bool:
    """Whether the other side has closed, while something is still to be read."""
    # tcp_info begins with the state; 8 is TCP_CLOSE_WAIT, 7 TCP_CLOSE.
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in (7, 8)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
