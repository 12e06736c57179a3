"""Opens and configures the netlink socket of one NFQUEUE (linux/netfilter/nfnetlink_queue.h)."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from l4lb.errors import CapabilityError, L4lbError
from l4lb.net.netlink import NLM_F_ACK, build_attribute, build_message, open_netfilter, request
from l4lb.net.privilege import has_net_admin

COPY_HEADERS = 256
"""Bytes copied of each packet where a mark will do: more than all headers, and all of a small packet."""
COPY_ALL = 65531
"""The largest payload that a netlink attribute can carry."""

_SUBSYS_QUEUE = 3
_MSG_CONFIG = _SUBSYS_QUEUE << 8 | 2
_CFG_CMD, _CFG_PARAMS, _CFG_QUEUE_MAXLEN, _CFG_MASK, _CFG_FLAGS = 1, 2, 3, 4, 5
_BIND, _UNBIND = 1, 2
_COPY_PACKET = 2
_FLAG_FAIL_OPEN = 1
_FLAG_GSO = 4
_SOL_NETLINK = 270
_NETLINK_NO_ENOBUFS = 5
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BYTES_A_PACKET = 1300  # what a small queued packet costs of the receive buffer
_LARGEST_BUFFER = 256 << 20


def open_queue(
    number: int, *, length: int, copy_range: int, fail_open: bool, gso: bool = True
) -> socket.socket:
    """A socket that receives the packets of queue `number`.

    `length` is how many packets the kernel holds before the queue overflows; with `fail_open` it then
    accepts them undecided instead of dropping them. Without `gso` the kernel cuts super-packets into
    segments, and finishes checksums, before it queues them. CapabilityError without CAP_NET_ADMIN,
    L4lbError when another process has the queue.
    """
    sock = open_netfilter()
    try:
        # Without this, one overrun makes every receive fail until the socket is drained.
        sock.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
        _force_buffer(sock, _SO_RCVBUFFORCE, socket.SO_RCVBUF, min(length * _BYTES_A_PACKET, _LARGEST_BUFFER))
        _force_buffer(sock, _SO_SNDBUFFORCE, socket.SO_SNDBUF, 1 << 20)
        flags = (_FLAG_GSO if gso else 0) | (_FLAG_FAIL_OPEN if fail_open else 0)
        _configure(sock, number, build_attribute(_CFG_CMD, struct.pack(">BxH", _BIND, 0)))
        _configure(
            sock,
            number,
            build_attribute(_CFG_PARAMS, struct.pack(">IB", copy_range, _COPY_PACKET))
            + build_attribute(_CFG_QUEUE_MAXLEN, struct.pack(">I", length))
            + build_attribute(_CFG_FLAGS, struct.pack(">I", flags))
            + build_attribute(_CFG_MASK, struct.pack(">I", _FLAG_GSO | _FLAG_FAIL_OPEN)),
        )
    except OSError as error:
        sock.close()
        raise _explain(error, number) from error
    return sock


def wake(sock: socket.socket, number: int) -> None:
    """Makes the kernel send an acknowledgement, which ends a receive that blocks in another thread."""
    sock.sendto(build_message(_MSG_CONFIG, NLM_F_ACK, 0, 0, number, b""), (0, 0))


@dataclass(frozen=True, slots=True)
class KernelQueue:
    """What the kernel says about a queue (/proc/net/netfilter/nfnetlink_queue)."""

    number: int
    waiting: int
    dropped_full: int
    """Packets dropped because the queue was full."""
    dropped_socket: int
    """Packets dropped because the socket's receive buffer was full."""


def read_kernel_queues(
    path: Path = Path("/proc/thread-self/net/netfilter/nfnetlink_queue"),
) -> list[KernelQueue]:
    """The queues of this network namespace that have a listener; empty where the kernel has none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    queues = []
    for line in lines:
        fields = [int(field) for field in line.split()]
        queues.append(KernelQueue(fields[0], fields[2], fields[5], fields[6]))
    return queues


def _configure(sock: socket.socket, number: int, attributes: bytes) -> None:
    request(sock, build_message(_MSG_CONFIG, NLM_F_ACK, 1, 0, number, attributes), 1)


def _force_buffer(sock: socket.socket, forced: int, plain: int, size: int) -> None:
    """Sets a buffer beyond the system's limit, or up to it where that privilege is missing."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, plain, size)


def _explain(error: OSError, number: int) -> L4lbError:
    # The kernel says EPERM both without the privilege and where another socket has the queue.
    if error.errno in (errno.EPERM, errno.EBUSY):
        if not has_net_admin():
            return CapabilityError(f"queue {number}: needs CAP_NET_ADMIN; run as root")
        return L4lbError(f"queue {number}: another process listens on it; choose another l4.queue.first")
    return L4lbError(f"queue {number}: the kernel refused it: {error.strerror}")
