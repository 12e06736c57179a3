"""Sockets of checks: non-blocking, with the target's mark and source."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator

from l4lb.net.checks.target import Target

# linux/in.h and linux/in6.h; Python has no names for them.
_IP_RECVERR = 11
_IPV6_RECVERR = 25
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
LARGEST_DATAGRAM = 65535


@contextlib.contextmanager
def opened(target: Target, kind: int, protocol: int = 0) -> Iterator[socket.socket]:
    """A socket towards `target`, closed at the end. OSError as socket(2), bind(2) and setsockopt(2) do; EPERM
    without CAP_NET_ADMIN where there is a mark."""
    sock = socket.socket(target.family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        if target.mark is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, target.mark)
        if target.source is not None or target.mark is not None:
            # Bound first: the kernel would give a port to several that connect to different addresses.
            sock.bind((str(target.source or ""), 0))
        yield sock
    finally:
        sock.close()


def reset_on_close(sock: socket.socket) -> None:
    """Ends the connection with a reset instead of TIME_WAIT, of which thousands of checks would leave
    many."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


async def connect(sock: socket.socket, target: Target) -> None:
    """Connects; OSError as connect(2) does."""
    await asyncio.get_running_loop().sock_connect(sock, (str(target.address), target.port))


@contextlib.contextmanager
def opened_datagram(target: Target, kind: int, protocol: int = 0) -> Iterator[socket.socket]:
    """A connected socket for datagrams, which tells of every ICMP error: without IP_RECVERR the kernel keeps
    those to itself that may pass, such as an unreachable host (udp(7))."""
    with opened(target, kind, protocol) as sock:
        if target.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        sock.connect((str(target.address), target.port))
        yield sock


async def receive(sock: socket.socket) -> bytes:
    """The next datagram. OSError, too, for an ICMP error about what was sent."""
    return await asyncio.get_running_loop().sock_recv(sock, LARGEST_DATAGRAM)
