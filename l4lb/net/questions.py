"""Packets that the daemon is asked about (`POST /decisions`): `{"packets": [[hex, length], …]}`.

Only the beginning of a packet is sent, with its whole length: its payload decides nothing. The daemon fills
up with zeros, for the core checks that headers and length agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from l4lb.errors import ConfigError

MAX_PACKETS = 256
"""In one question: it is answered in one turn of the daemon's event loop."""
HEADERS = 256
"""Bytes of a packet that are sent; more than all of its headers."""
_MAX_LENGTH = 40 + 65535


def pack_packets(packets: Sequence[tuple[bytes, int]]) -> dict[str, Any]:
    """The question about packets, each from its IP header on, with its whole length in bytes."""
    return {"packets": [[data[:HEADERS].hex(), length] for data, length in packets]}


def unpack_packets(body: dict[str, Any]) -> list[bytes]:
    """The packets of a question, at their whole lengths. ConfigError where it is not of that form."""
    packets = body.get("packets")
    if not isinstance(packets, list) or len(packets) > MAX_PACKETS:
        raise ConfigError(f"decisions: packets has to be a list of at most {MAX_PACKETS}")
    try:
        return [_unpack(text, length) for text, length in packets]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"decisions: a packet is [hex, length in bytes]: {error}") from error


def _unpack(text: str, length: int) -> bytes:
    if not isinstance(length, int) or not 0 <= length <= _MAX_LENGTH:
        raise ValueError(f"length {length!r}")
    return bytes.fromhex(text).ljust(length, b"\0")
