"""Asks a name server for an address over UDP (RFC 1035).

Any well-formed answer to the query with the return code 0 (no error) or 3 (no such name) is a success: a
server that knows that there is no such name works. Datagrams with another id are not looked at.
"""

from __future__ import annotations

import secrets
import socket
import struct

from l4lb.model import HealthCheck
from l4lb.net.checks.judge import CheckFailedError, Success, Waiting, judge
from l4lb.net.checks.sockets import opened_datagram, receive
from l4lb.net.checks.target import Outcome, Target

_HEADER = struct.Struct("!6H")
_TYPE_A_CLASS_IN = b"\0\1\0\1"
_ANSWER, _TRUNCATED, _RECURSION_DESIRED, _CODE = 0x8000, 0x0200, 0x0100, 0x000F
_CODES = {0: "no error", 1: "format error", 2: "server failure", 3: "no such name", 4: "not implemented"}
_CODES[5] = "refused"
_WORKING = (0, 3)
_FIXED_PART = 10  # of a record: type, class, time to live, length
_SHORTEST_RECORD = 1 + _FIXED_PART


async def check(target: Target, settings: HealthCheck) -> Outcome:
    """Whether the server answers a query for the addresses (type A) of `query`."""

    async def ask(waiting: Waiting) -> Success:
        query = build_query(secrets.randbelow(1 << 16), settings.query)
        with opened_datagram(target, socket.SOCK_DGRAM) as sock:
            sock.send(query)
            while (code := parse_answer(await receive(sock), query)) is None:
                waiting.what = "answer with the id of the query"
            name = _CODES.get(code, f"code {code}")
            if code not in _WORKING:
                raise CheckFailedError(f"the server says: {name}")
            return Success(f"answered: {name}")

    return await judge(settings.timeout_s, ask)


def build_query(number: int, name: str) -> bytes:
    """A query for the type A of `name`, with or without the dot at its end. ValueError for what is no
    name."""
    encoded = b""
    for label in name.rstrip(".").split(".") if name.rstrip(".") else ():
        part = label.encode("ascii")
        if not 0 < len(part) < 64:
            raise ValueError(f"{name!r} is no domain name")
        encoded += bytes([len(part)]) + part
    return _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0) + encoded + b"\0" + _TYPE_A_CLASS_IN


def parse_answer(data: bytes, query: bytes) -> int | None:
    """The return code of the answer to `query`; None where it has another id. Raises CheckFailedError for
    what is not well-formed."""
    if len(data) < _HEADER.size:
        raise CheckFailedError("the answer is not DNS: too short")
    if data[:2] != query[:2]:
        return None
    _, flags, questions, *records = _HEADER.unpack_from(data)
    if not flags & _ANSWER:
        raise CheckFailedError("the answer is not DNS: it is a query")
    code: int = flags & _CODE
    offset = len(query)
    if questions == 0 and code not in _WORKING:
        return code  # servers may leave the question out when they refuse
    if questions != 1 or data[_HEADER.size : offset].lower() != query[_HEADER.size :].lower():
        raise CheckFailedError("the answer is to another question")
    if not flags & _TRUNCATED:
        _require_records(data, offset, sum(records))
    return code


def _require_records(data: bytes, offset: int, count: int) -> None:
    """Raises CheckFailedError unless `count` records stand from `offset` on."""
    for _ in range(count):
        if len(data) - offset < _SHORTEST_RECORD:
            raise CheckFailedError("the answer is not DNS: a record is cut")
        offset = _end_of_name(data, offset) + _FIXED_PART
        if offset > len(data):
            raise CheckFailedError("the answer is not DNS: a record is cut")
        offset += int.from_bytes(data[offset - 2 : offset], "big")
    if offset > len(data):
        raise CheckFailedError("the answer is not DNS: a record is cut")


def _end_of_name(data: bytes, offset: int) -> int:
    """Where the name at `offset` ends; what a pointer (RFC 1035, section 4.1.4) points at is not followed."""
    while offset < len(data):
        length = data[offset]
        if length == 0:
            return offset + 1
        if length >= 0xC0:
            return offset + 2
        if length >= 0x40:
            raise CheckFailedError("the answer is not DNS: a name is broken")
        offset += 1 + length
    return offset
