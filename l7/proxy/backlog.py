"""What waits in a listening socket, and how the socket is given up without resetting it.

The kernel resets what waits in a listening socket that is closed. So before a socket is given up it is told
to drop every SYN: handshakes that have begun still end, nothing new begins, and in a moment all that ever
comes has come and can be accepted. A client whose SYN was dropped sends it again after a second, and is then
refused or served by a successor. Who shares the socket (processes that inherited it) shares its filter, and
can see by it that nobody is going to serve it.
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

_TCP_INFO_SIZE = 32
_UNACKED_AT = 24
"""tcpi_unacked: of a listening socket its queue (tcp_get_info in net/ipv4/tcp.c)."""


def refuse_new(sock: socket.socket) -> None:
    """No new connection begins on `sock` any more, in no process that has it."""
    words = struct.pack("HBBI" * len(_DROP_SYNS), *chain.from_iterable(_DROP_SYNS))
    program = ctypes.create_string_buffer(words, len(words))
    described = struct.pack("HP", len(_DROP_SYNS), ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)


def refuses_new(sock: socket.socket) -> bool:
    """Whether `refuse_new` was called for it, here or elsewhere."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, _SO_GET_FILTER, _MOST_INSTRUCTIONS))


def waiting(sock: socket.socket) -> int:
    """How many connections wait to be accepted."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    return int(struct.unpack_from("=I", info, _UNACKED_AT)[0])
