"""What waits in a listening socket, and how the socket is given up without resetting it.

The kernel resets what waits in a listening socket that is closed. So before a socket is given up it is told
to drop every SYN: handshakes that have begun still end, nothing new begins, and in a moment all that ever
comes has come and can be accepted. A client whose SYN was dropped sends it again after a second, and is then
refused or served by a successor. The kernel takes such a filter from those with CAP_NET_ADMIN alone; others
make the queue as short as it can be, which leaves room for one newcomer at a time. Who shares the socket
(processes that inherited it) shares filter and queue, and can see by them that nobody is going to serve it.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from itertools import chain

_SO_ATTACH_FILTER = _SO_GET_FILTER = 26
_MOST_INSTRUCTIONS = 1024

# Classic BPF over the TCP header: code, jump if true, jump if false, operand.
_DROP_SYNS = (
    (0x30, 0, 0, 13),  # ldb [13]: the flags
    (0x54, 0, 0, 0x12),  # and SYN | ACK
    (0x15, 0, 1, 0x02),  # jeq SYN
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)

_TCP_LISTEN = 10
_TCP_INFO = struct.Struct("=B23xII")
"""Of a listening socket tcpi_state, tcpi_unacked, which is its queue, and tcpi_sacked, which is the bound of
that (tcp_get_info in net/ipv4/tcp.c)."""


def refuse_new(sock: socket.socket) -> None:
    """No new connection begins on `sock` any more, in no process that has it."""
    words = struct.pack("HBBI" * len(_DROP_SYNS), *chain.from_iterable(_DROP_SYNS))
    program = ctypes.create_string_buffer(words, len(words))
    described = struct.pack("HP", len(_DROP_SYNS), ctypes.addressof(program))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
    except PermissionError:
        shorten(sock)


def shorten(sock: socket.socket) -> None:
    """While one connection waits on `sock` the kernel drops further ones, in all processes that have it."""
    sock.listen(0)


def refuses_new(sock: socket.socket) -> bool:
    """Whether `refuse_new` was called for it, here or elsewhere."""
    if sock.getsockopt(socket.SOL_SOCKET, _SO_GET_FILTER, _MOST_INSTRUCTIONS):
        return True
    state, _, bound = _info(sock)
    return state == _TCP_LISTEN and bound == 0


def waiting(sock: socket.socket) -> int:
    """How many connections wait to be accepted."""
    return _info(sock)[1]


def _info(sock: socket.socket) -> tuple[int, int, int]:
    """State, queue and its bound."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    state, queue, bound = _TCP_INFO.unpack(info)
    return state, queue, bound
