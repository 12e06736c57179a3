"""Sees packets to the VIPs as they come in, without a part in their way (packet(7)).

A socket of its own for IPv4 and for IPv6, bound to all protocols: one that is bound to its own comes behind
the ingress hook, from which learned flows are forwarded. It would see a packet again on each device that
passes it on to another, so the filter leaves out frames that are tagged for one, and the reader what a port
of a bridge or bond says. The kernel filters by address before it copies. Who reads slowly loses packets, not
time: what does not fit into the buffer is counted by the kernel (PACKET_STATISTICS) and forwarded all the
same.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from l4lb.errors import CapabilityError, L4lbError
from l4lb.model import Address, Network

_ETH_P = {4: 0x0800, 6: 0x86DD}
_SO_ATTACH_FILTER, _SO_TIMESTAMPNS = 26, 35
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_IGNORE_OUTGOING = 263, 6, 23
_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33
_BYTES_A_PACKET = 1024
"""What a small packet costs of the buffer."""
_SMALLEST_BUFFER, _LARGEST_BUFFER = 1 << 18, 1 << 25
_LOAD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30
_AND, _EQUAL, _ANY, _JUMP, _RETURN = 0x54, 0x15, 0x45, 0x05, 0x06
"""Classic BPF (linux/bpf_common.h): mask, compare, test bits, jump, and end with the bytes to keep."""
_ALL = 0xFFFFFFFF
_PROTOCOL, _VLAN_TAG_PRESENT = 0xFFFFF000, 0xFFFFF000 + 48
"""What is known of a packet besides its bytes (SKF_AD_OFF)."""
_MORE_OR_OFFSET = 0x3FFF
_FRAGMENT_HEADER = 44
_MAX_INSTRUCTIONS = 4096
_DESTINATION = {4: 16, 6: 24}
_SOURCE = {4: 12, 6: 8}
Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet that came in. `data` is its beginning from the IP header on, `length` all of it in bytes;
    `time_s` is the kernel's, since the epoch."""

    data: bytes
    length: int
    time_s: float
    interface: str


class Sniffer:
    """Packets to some addresses from some client network. CapabilityError without CAP_NET_RAW.

    Packets are cut to `snap` bytes; the buffer is for about a second at `rate` packets a second. Fragments
    are not seen: their decision is that of the packet that the kernel makes of them.
    """

    def __init__(self, vips: Collection[Address], client: Network | None, *, snap: int, rate: int) -> None:
        self._buffer = bytearray(snap)
        self._ports: dict[str, bool] = {}
        self._sockets: list[socket.socket] = []
        self._lost = 0
        versions = {vip.version for vip in vips} & ({client.version} if client else {4, 6})
        try:
            for version in sorted(versions):
                program = build_filter(version, [v for v in vips if v.version == version], client)
                self._sockets.append(_open(program, rate * _BYTES_A_PACKET))
        except PermissionError as error:
            self.close()
            raise CapabilityError("packets may not be seen; run as root (CAP_NET_RAW)") from error
        except OSError as error:
            self.close()
            raise L4lbError(f"packets cannot be seen: {error.strerror or error}") from error

    def read(self, most: int, timeout_s: float) -> Iterator[Seen]:
        """At most so many packets that have come; waits for the first, but not longer than the time-out."""
        ready, _, _ = select.select(self._sockets, [], [], timeout_s)
        left = most
        for sock in ready:
            while left > 0 and (packet := self._receive(sock)) is not None:
                if not self._is_port(packet.interface):
                    left -= 1
                    yield packet

    def lost(self) -> int:
        """Packets that did not fit into the buffer, since the start."""
        for sock in self._sockets:
            # Reading them sets them to 0.
            self._lost += struct.unpack("II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
        return self._lost

    def close(self) -> None:
        """Sees no more."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def _is_port(self, interface: str) -> bool:
        """Whether its packets are another device's, which will be seen to have them."""
        if interface not in self._ports:
            self._ports[interface] = Path(f"/sys/class/net/{interface}/master").is_symlink()
        return self._ports[interface]

    def _receive(self, sock: socket.socket) -> Seen | None:
        try:
            length, ancillary, _, address = sock.recvmsg_into([self._buffer], 64, socket.MSG_TRUNC)
        except BlockingIOError:
            return None
        except OSError as error:
            raise L4lbError(f"packets cannot be seen: {error.strerror or error}") from error
        seconds, nanoseconds = next(
            (struct.unpack("ll", data[:16]) for _, kind, data in ancillary if kind == _SO_TIMESTAMPNS), (0, 0)
        )
        data = bytes(self._buffer[: min(length, len(self._buffer))])
        return Seen(data, length, seconds + nanoseconds / 1e9, str(address[0]))


def build_filter(version: int, vips: Collection[Address], client: Network | None) -> list[Instruction]:
    """The filter for whole packets (no fragments) to one of `vips` from `client`, of IP version `version`.

    With more addresses than a program has room for it asks for none of them, and lets more through.
    """
    program = [
        *((_LOAD, 0, 0, _PROTOCOL), (_EQUAL, 1, 0, _ETH_P[version]), (_RETURN, 0, 0, 0)),
        *((_LOAD, 0, 0, _VLAN_TAG_PRESENT), (_EQUAL, 1, 0, 0), (_RETURN, 0, 0, 0)),
        *_refuse_fragments(version),
    ]
    if client is not None:
        words = _compare(client, _SOURCE[version], at_end=1)
        program += [*words, (_JUMP, 0, 0, 1), (_RETURN, 0, 0, 0)]
    wanted: list[Instruction] = []
    for vip in vips:
        words = _compare(ip_network(vip), _DESTINATION[version], at_end=1)
        wanted += [*words, (_RETURN, 0, 0, _ALL)]
    if len(program) + len(wanted) >= _MAX_INSTRUCTIONS:
        return [*program, (_RETURN, 0, 0, _ALL)]
    return [*program, *wanted, (_RETURN, 0, 0, 0)]


def _refuse_fragments(version: int) -> Iterator[Instruction]:
    if version == 4:
        yield from ((_LOAD_HALF, 0, 0, 6), (_ANY, 0, 1, _MORE_OR_OFFSET))
    else:
        yield from ((_LOAD_BYTE, 0, 0, 6), (_EQUAL, 0, 1, _FRAGMENT_HEADER))
    yield _RETURN, 0, 0, 0


def _compare(network: Network, offset: int, *, at_end: int) -> list[Instruction]:
    """Goes on behind its end for an address of `network` at `offset`, else as many instructions later as
    `at_end` says."""
    address, mask = network.network_address.packed, network.netmask.packed
    words = [
        (offset + at, int.from_bytes(address[at : at + 4]), int.from_bytes(mask[at : at + 4]))
        for at in range(0, len(address), 4)
        if any(mask[at : at + 4])
    ]
    program: list[Instruction] = []
    for left, (at, value, bits) in enumerate(reversed(words)):
        program = [(_LOAD, 0, 0, at), (_AND, 0, 0, bits), (_EQUAL, 0, 3 * left + at_end, value), *program]
    return program


def _open(program: list[Instruction], buffer: int) -> socket.socket:
    # Bound to no protocol until the filter stands: nothing else is to come in between.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    try:
        code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
        text = ctypes.create_string_buffer(code, len(code))
        sock.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(text))
        )
        size = min(max(buffer, _SMALLEST_BUFFER), _LARGEST_BUFFER)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        except PermissionError:  # CAP_NET_RAW without CAP_NET_ADMIN: as much as net.core.rmem_max allows
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        _bind(sock, _ETH_P_ALL)
    except OSError:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, protocol: int) -> None:
    """To all interfaces, which Python's own `bind` cannot say: a `sockaddr_ll` with interface 0."""
    address = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(protocol), 0, 0, 0, 0, b"")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(sock.fileno(), address, len(address)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
