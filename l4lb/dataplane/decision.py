"""The words in which a decision about one packet is given.

Every packet gets a verdict and a reason, and the reason is the counter: nothing is dropped or let
through without being counted. The numbers are shared with the native core (`ext/l4lb/dataplane`);
a test holds the two lists together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Verdict(IntEnum):
    """What happens to the packet."""

    ACCEPT = 0
    """It goes on untouched."""
    FORWARD = 1
    """It goes on to `Decision.slot`'s backend, or back to the client, rewritten."""
    DROP = 2
    ANSWER = 3
    """It is dropped, and `Decision.packet`, an ICMP error or a TCP reset, goes to its sender."""


class Reason(IntEnum):
    """Why. The order is part of the contract with the native core."""

    FLOW = 0
    SCHEDULED = 1
    AFFINITY = 2
    RESCHEDULED = 3
    STATELESS = 4
    HASHED = 5
    REPLY = 6
    REPLY_STATIC = 7
    NOT_BALANCED = 8
    OTHER_PROTOCOL = 9
    REPLY_UNMATCHED = 10
    TOO_BIG = 11
    TTL_EXPIRED = 12
    RESET = 13
    REJECTED = 14
    TRUNCATED = 15
    MALFORMED = 16
    FRAGMENT = 17
    SOURCE_ROUTED = 18
    NO_BACKEND = 19
    NO_FLOW = 20
    NO_PORT = 21
    LIMITED = 22
    BACKENDS_FULL = 23

    @property
    def verdict(self) -> Verdict:
        """The one verdict that this reason stands for."""
        return _VERDICTS[self]

    @property
    def text(self) -> str:
        """One line for people."""
        return _TEXTS[self]


_VERDICTS = {
    Reason.FLOW: Verdict.FORWARD,
    Reason.SCHEDULED: Verdict.FORWARD,
    Reason.AFFINITY: Verdict.FORWARD,
    Reason.RESCHEDULED: Verdict.FORWARD,
    Reason.STATELESS: Verdict.FORWARD,
    Reason.HASHED: Verdict.FORWARD,
    Reason.REPLY: Verdict.FORWARD,
    Reason.REPLY_STATIC: Verdict.FORWARD,
    Reason.NOT_BALANCED: Verdict.ACCEPT,
    Reason.OTHER_PROTOCOL: Verdict.ACCEPT,
    Reason.REPLY_UNMATCHED: Verdict.ACCEPT,
    Reason.TOO_BIG: Verdict.ANSWER,
    Reason.TTL_EXPIRED: Verdict.ANSWER,
    Reason.RESET: Verdict.ANSWER,
    Reason.REJECTED: Verdict.ANSWER,
    Reason.TRUNCATED: Verdict.DROP,
    Reason.MALFORMED: Verdict.DROP,
    Reason.FRAGMENT: Verdict.DROP,
    Reason.SOURCE_ROUTED: Verdict.DROP,
    Reason.NO_BACKEND: Verdict.DROP,
    Reason.NO_FLOW: Verdict.DROP,
    Reason.NO_PORT: Verdict.DROP,
    Reason.LIMITED: Verdict.DROP,
    Reason.BACKENDS_FULL: Verdict.DROP,
}

_TEXTS = {
    Reason.FLOW: "the flow is known and stays with its backend",
    Reason.SCHEDULED: "a new flow, its backend chosen by the scheduler",
    Reason.AFFINITY: "a new flow, to the backend that its client's last one went to",
    Reason.RESCHEDULED: "the flow's backend is gone or gives its flows up; chosen anew",
    Reason.STATELESS: "the flow table is full here; chosen by consistent hash, nothing remembered",
    Reason.HASHED: "new flows come too fast; chosen by consistent hash, remembered when an ACK proves it",
    Reason.REPLY: "an answer of a known flow, given the VIP as its source",
    Reason.REPLY_STATIC: "an answer without a flow, given the only VIP its backend answers for",
    Reason.NOT_BALANCED: "neither to a service nor from a backend",
    Reason.OTHER_PROTOCOL: "neither TCP nor UDP",
    Reason.REPLY_UNMATCHED: "from a backend of several VIPs, and no flow says of which",
    Reason.TOO_BIG: "does not fit into the tunnel; the sender is told what would",
    Reason.TTL_EXPIRED: "its time to live ends here; the sender is told",
    Reason.RESET: "the flow's backend is down; the client is sent a reset",
    Reason.REJECTED: "no backend of the service takes new flows; the client is told",
    Reason.TRUNCATED: "the copy ends before the headers do",
    Reason.MALFORMED: "the headers contradict themselves or the packet's length",
    Reason.FRAGMENT: "a fragment",
    Reason.SOURCE_ROUTED: "an IPv6 routing header with segments left",
    Reason.NO_BACKEND: "no backend of the service takes new flows",
    Reason.NO_FLOW: "a TCP packet that cannot begin a flow, and no flow is known",
    Reason.NO_PORT: "no source port, or no place in the flow table, is left for a masqueraded flow",
    Reason.LIMITED: "its source has begun too many flows a second, or has too many",
    Reason.BACKENDS_FULL: "every backend that takes new flows has as many connections as it may",
}


class State(IntEnum):
    """State of a flow. TCP names and timers are those of IPVS; a UDP flow has one state."""

    NONE = 0
    SYN_RECV = 1
    ESTABLISHED = 2
    FIN_WAIT = 3
    TIME_WAIT = 4
    CLOSE = 5
    CLOSE_WAIT = 6
    UDP = 7


@dataclass(frozen=True, slots=True)
class Decision:
    """What shall happen to one packet.

    `slot` is the backend's slot (-1 where there is none), `mark` the number that tells the kernel
    what to rewrite in the `mark` datapath (0: nothing), and `packet` the rewritten packet, or None
    where the packet is to be left as it is. `sent` says that the packet does not go back to the kernel
    with a verdict: the original is dropped and `packet` sent through a raw socket, for its source is an
    address of this host, or its size or family another one (masquerade, tunnels, ICMP errors, resets).
    """

    verdict: Verdict
    reason: Reason
    slot: int
    mark: int
    packet: bytes | None
    sent: bool = False


RawAddress = bytes
"""4 or 16 bytes; a name of its own because a field of `Flow` hides that of the type."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A snapshot of one remembered flow. Addresses are 4 or 16 bytes; times are milliseconds.

    `source` and `source_port` are what a masqueraded flow shows its backend; empty and 0 for any other.
    """

    client: bytes
    client_port: int
    vip: bytes
    vip_port: int
    protocol: int
    slot: int
    state: State
    expires_ms: int
    packets: int
    bytes: int
    source: RawAddress = b""
    source_port: int = 0


@dataclass(frozen=True, slots=True)
class SlotCounters:
    """What one backend slot has seen. `active` flows are established TCP; `flows` are all; `open` are those
    that may still carry something, which is what `max_connections` counts: not closing, as far as is seen.

    `begun` TCP flows were established; `failed` counts the signs that one was not: a SYN that the client
    had to repeat, and a reset of the backend in place of an answer to it.
    """

    flows: int
    active: int
    open: int
    scheduled: int
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    begun: int
    failed: int
