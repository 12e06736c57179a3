"""Builds netlink messages and reads acknowledgements: the little that nfnetlink needs.

Layouts are those of linux/netlink.h and linux/netfilter/nfnetlink.h. Headers are in the host's byte
order; the numbers inside nfnetlink attributes are big-endian and are packed by the callers.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

NETLINK_NETFILTER = 12
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLMSG_ERROR = 2
NLA_F_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("=BBH")


def build_attribute(kind: int, value: bytes) -> bytes:
    """An attribute with its padding."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def build_nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return build_attribute(kind | NLA_F_NESTED, b"".join(attributes))


def build_message(kind: int, flags: int, sequence: int, family: int, resource: int, body: bytes) -> bytes:
    """An nfnetlink message: netlink header, `nfgenmsg`, attributes."""
    length = _HEADER.size + _FAMILY.size + len(body)
    header = _HEADER.pack(length, kind, flags | NLM_F_REQUEST, sequence, 0)
    return header + _FAMILY.pack(family, 0, socket.htons(resource)) + body


def open_netfilter() -> socket.socket:
    """A bound nfnetlink socket. OSError (EPERM comes later, with the first request)."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    sock.bind((0, 0))
    return sock


def request(sock: socket.socket, message: bytes, sequence: int) -> None:
    """Sends a message that asks for an acknowledgement and waits for it; OSError with its error."""
    sock.sendto(message, (0, 0))
    while True:
        answer = sock.recv(65536)
        _, kind, _, answered, _ = _HEADER.unpack_from(answer)
        if kind != NLMSG_ERROR or answered != sequence:
            continue  # a packet of a queue that is being configured: it is dropped with the socket
        (code,) = struct.unpack_from("=i", answer, _HEADER.size)
        if code:
            raise OSError(-code, os.strerror(-code) if -code in errno.errorcode else f"error {-code}")
        return
