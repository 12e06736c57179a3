"""What an error about a tunnel's packet means to the client, in its own family's words.

The client knows nothing of the tunnel. That the tunnel's end does not speak the protocol or has no such
port is to the client a host that cannot be reached, and so is a loop inside (RFC 2003 section 4, RFC 2473
section 8). What it could do nothing about has no counterpart.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from l4lb.dataplane.icmp_parse import IcmpError

_SMALLEST_MTU = {4: 68, 6: 1280}
"""What a link must carry (RFC 791, RFC 8200); also the least that a host believes."""
_LARGEST_MTU = 0xFFFF


class _Meaning(Enum):
    UNREACHABLE = auto()
    PROHIBITED = auto()
    TOO_BIG = auto()


class Words(NamedTuple):
    """Type, code and the last four bytes of an ICMP header."""

    kind: int
    code: int
    rest: bytes


_MEANINGS = {
    4: {
        **{(3, code): _Meaning.UNREACHABLE for code in (0, 1, 2, 3, 6, 7, 11, 12)},
        **{(3, code): _Meaning.PROHIBITED for code in (9, 10, 13)},
        (3, 4): _Meaning.TOO_BIG,
        (11, 0): _Meaning.UNREACHABLE,
    },
    6: {
        **{(1, code): _Meaning.UNREACHABLE for code in (0, 2, 3, 4, 6)},
        **{(1, code): _Meaning.PROHIBITED for code in (1, 5)},
        **{(2, code): _Meaning.TOO_BIG for code in range(256)},  # a receiver ignores it (RFC 4443)
        (3, 0): _Meaning.UNREACHABLE,
        (4, 1): _Meaning.UNREACHABLE,
    },
}
_WORDS = {
    (4, _Meaning.UNREACHABLE): (3, 1),
    (4, _Meaning.PROHIBITED): (3, 13),
    (4, _Meaning.TOO_BIG): (3, 4),
    (6, _Meaning.UNREACHABLE): (1, 3),
    (6, _Meaning.PROHIBITED): (1, 1),
    (6, _Meaning.TOO_BIG): (2, 0),
}


def words_for_client(error: IcmpError, family: int, overhead: int) -> Words | None:
    """What to say, in ICMP of `family`, of a packet that the tunnel made `overhead` bytes longer.

    None where there is no counterpart: also for a too-big of a router so old that it names no size.
    """
    meaning = _MEANINGS[error.outer.family].get((error.kind, error.code))
    if meaning is None:
        return None
    kind, code = _WORDS[family, meaning]
    if meaning is not _Meaning.TOO_BIG:
        return Words(kind, code, bytes(4))
    reported = int.from_bytes(error.rest[2:] if error.outer.family == 4 else error.rest, "big")
    if not reported:
        return None
    mtu = min(max(reported - overhead, _SMALLEST_MTU[family]), _LARGEST_MTU)
    return Words(kind, code, mtu.to_bytes(4, "big"))
