"""Sends whole IP packets, with whatever source address they have, past the kernel's own headers."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

_SO_SNDBUFFORCE = 32
_BUFFER = 4 << 20
_IPV6_HDRINCL = 36  # linux/in6.h; Python has no name for it


def open_raw(family: socket.AddressFamily) -> socket.socket | None:
    """A raw socket that does not block; None where the host has no such family. OSError (EPERM) without
    CAP_NET_RAW."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    try:
        sock = socket.socket(family, kind, socket.IPPROTO_RAW)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return None
        raise
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return sock


class RawSender:
    """A raw socket for each family that the host has. OSError (EPERM) without CAP_NET_RAW."""

    def __init__(self) -> None:
        opened = ((4, open_raw(socket.AF_INET)), (6, open_raw(socket.AF_INET6)))
        self._sockets = {family: sock for family, sock in opened if sock is not None}

    def send(self, packet: bytes) -> None:
        """Sends an IP packet to its destination. OSError where the host does not."""
        family = packet[0] >> 4
        if family not in self._sockets:
            raise OSError(errno.EAFNOSUPPORT, f"no IPv{family} on this host")
        destination = packet[16:20] if family == 4 else packet[24:40]
        self._sockets[family].sendto(packet, (str(ip_address(destination)), 0))

    def close(self) -> None:
        """Closes the sockets."""
        for sock in self._sockets.values():
            sock.close()
