"""Sends an ICMP echo request (RFC 792, RFC 4443).

The kernel's ping sockets need no right where `net.ipv4.ping_group_range` allows the group, and see only their
own answers. Elsewhere a raw socket is used, which sees every ICMP packet of the backend; the payload tells
ours.
"""

from __future__ import annotations

import secrets
import socket
import struct

from l4lb.dataplane.internet_checksum import compute
from l4lb.model import HealthCheck
from l4lb.net.checks.judge import Success, Waiting, judge
from l4lb.net.checks.sockets import opened_datagram, receive
from l4lb.net.checks.target import Outcome, Target

_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
_HEADER = struct.Struct("!BBHHH")
_TOKEN_SIZE = 16


async def check(target: Target, settings: HealthCheck) -> Outcome:
    """Whether the backend answers an echo request."""
    return await ping(target, settings.timeout_s)


async def ping(target: Target, timeout_s: float, kinds: tuple[int, ...] = ()) -> Outcome:
    """As `check`, over the first of the socket types `kinds` that this process may open."""

    async def ask(_: Waiting) -> Success:
        try:
            return await _exchange(target, first)
        except PermissionError:
            if not others:
                raise
            return await _exchange(target, others[0])

    first, *others = kinds or (socket.SOCK_DGRAM, socket.SOCK_RAW)
    return await judge(timeout_s, ask)


async def _exchange(target: Target, kind: int) -> Success:
    protocol = socket.IPPROTO_ICMP if target.family == socket.AF_INET else socket.IPPROTO_ICMPV6
    token = secrets.token_bytes(_TOKEN_SIZE)
    with opened_datagram(target, kind, protocol) as sock:
        sock.send(build_request(target.family, secrets.randbelow(1 << 16), token))
        headed = kind == socket.SOCK_RAW and target.family == socket.AF_INET
        while not is_reply(target.family, await receive(sock), token, headed):
            pass
    return Success("echo reply")


def build_request(family: socket.AddressFamily, number: int, token: bytes) -> bytes:
    """The request. Ping sockets set id and checksum themselves, and the kernel all of ICMPv6's checksums."""
    packet = _HEADER.pack(_REQUEST[family], 0, 0, number, 1) + token
    return packet[:2] + compute(packet).to_bytes(2, "big") + packet[4:]


def is_reply(family: socket.AddressFamily, packet: bytes, token: bytes, headed: bool) -> bool:
    """Whether it is the reply to the request with `token`; `headed` where its IPv4 header is before it."""
    if headed:
        packet = packet[4 * (packet[0] & 0xF) :]
    return packet[:1] == bytes([_REPLY[family]]) and packet[_HEADER.size :] == token
