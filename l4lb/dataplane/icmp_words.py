"""The words in which the fate of an ICMP error is given (docs/design/icmp.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from l4lb.dataplane.table import MARK_PENDING


class Hook(IntEnum):
    """Where the rules queued the error."""

    PREROUTING = 1
    POSTROUTING = 2

    @property
    def mark(self) -> int:
        """The mark that the rules give an error before they queue it, for a queue does not tell its hook."""
        return MARK_PENDING | self


class IcmpReason(IntEnum):
    """What became of the error, and why; every one is counted."""

    TO_BACKEND = 0
    TO_BACKEND_HASHED = 1
    TO_CLIENT = 2
    OUT_OF_TUNNEL = 3
    NOT_BALANCED = 4
    NO_FLOW = 5
    NO_COUNTERPART = 6
    NOT_AN_ERROR = 7
    ABOUT_ICMP = 8
    OTHER_PROTOCOL = 9
    TOO_BIG = 10
    TTL_EXPIRED = 11
    TRUNCATED = 12
    MALFORMED = 13
    FRAGMENT = 14

    @property
    def text(self) -> str:
        """One line for people."""
        return _TEXTS[self]


_TEXTS = {
    IcmpReason.TO_BACKEND: "about an answer of a known flow; goes to the flow's backend",
    IcmpReason.TO_BACKEND_HASHED: "about an answer, no flow is known; goes where the consistent hash points",
    IcmpReason.TO_CLIENT: "about a packet to a backend; the client is told of the VIP instead",
    IcmpReason.OUT_OF_TUNNEL: "about a tunnel's packet; the client is told of the packet inside",
    IcmpReason.NOT_BALANCED: "not about a balanced flow",
    IcmpReason.NO_FLOW: "no flow and no hash says whose it is",
    IcmpReason.NO_COUNTERPART: "about a tunnel's packet, and nothing that a client could be told",
    IcmpReason.NOT_AN_ERROR: "no error about a packet: a query, a redirect, an unknown type",
    IcmpReason.ABOUT_ICMP: "about another ICMP message",
    IcmpReason.OTHER_PROTOCOL: "about neither TCP, UDP nor a tunnel",
    IcmpReason.TOO_BIG: "does not fit into the tunnel to the backend",
    IcmpReason.TTL_EXPIRED: "its time to live ends here",
    IcmpReason.TRUNCATED: "the quote ends before the ports do, or before the packet in the tunnel",
    IcmpReason.MALFORMED: "the headers contradict themselves, or the checksum is wrong",
    IcmpReason.FRAGMENT: "a fragment, or about one that has no ports",
}


@dataclass(frozen=True, slots=True)
class Translation:
    """What shall happen to one ICMP error.

    `packet` None leaves it as it is, and `mark` 0 unmarked: it is accepted, and the host decides. A
    packet that is `sent` does not go back to the kernel with the verdict: the original is dropped and
    `packet` goes out through a raw socket.
    """

    reason: IcmpReason
    packet: bytes | None = None
    mark: int = 0
    sent: bool = False
