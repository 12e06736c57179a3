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


class Reason(IntEnum):
    """Why. The order is part of the contract with the native core."""

    FLOW = 0
    SCHEDULED = 1
    RESCHEDULED = 2
    STATELESS = 3
    REPLY = 4
    REPLY_STATIC = 5
    NOT_BALANCED = 6
    OTHER_PROTOCOL = 7
    REPLY_UNMATCHED = 8
    TRUNCATED = 9
    MALFORMED = 10
    FRAGMENT = 11
    SOURCE_ROUTED = 12
    NO_BACKEND = 13
    NO_FLOW = 14

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
    Reason.RESCHEDULED: Verdict.FORWARD,
    Reason.STATELESS: Verdict.FORWARD,
    Reason.REPLY: Verdict.FORWARD,
    Reason.REPLY_STATIC: Verdict.FORWARD,
    Reason.NOT_BALANCED: Verdict.ACCEPT,
    Reason.OTHER_PROTOCOL: Verdict.ACCEPT,
    Reason.REPLY_UNMATCHED: Verdict.ACCEPT,
    Reason.TRUNCATED: Verdict.DROP,
    Reason.MALFORMED: Verdict.DROP,
    Reason.FRAGMENT: Verdict.DROP,
    Reason.SOURCE_ROUTED: Verdict.DROP,
    Reason.NO_BACKEND: Verdict.DROP,
    Reason.NO_FLOW: Verdict.DROP,
}

_TEXTS = {
    Reason.FLOW: "the flow is known and stays with its backend",
    Reason.SCHEDULED: "a new flow, its backend chosen by the scheduler",
    Reason.RESCHEDULED: "the flow's backend is no longer configured; chosen anew",
    Reason.STATELESS: "the flow table is full here; chosen by consistent hash, nothing remembered",
    Reason.REPLY: "an answer of a known flow, given the VIP as its source",
    Reason.REPLY_STATIC: "an answer without a flow, given the only VIP its backend answers for",
    Reason.NOT_BALANCED: "neither to a service nor from a backend",
    Reason.OTHER_PROTOCOL: "neither TCP nor UDP",
    Reason.REPLY_UNMATCHED: "from a backend of several VIPs, and no flow says of which",
    Reason.TRUNCATED: "the copy ends before the headers do",
    Reason.MALFORMED: "the headers contradict themselves or the packet's length",
    Reason.FRAGMENT: "a fragment",
    Reason.SOURCE_ROUTED: "an IPv6 routing header with segments left",
    Reason.NO_BACKEND: "no backend of the service takes new flows",
    Reason.NO_FLOW: "a TCP packet that cannot begin a flow, and no flow is known",
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
    where the packet is to be left as it is.
    """

    verdict: Verdict
    reason: Reason
    slot: int
    mark: int
    packet: bytes | None


@dataclass(frozen=True, slots=True)
class Flow:
    """A snapshot of one remembered flow. Addresses are 4 or 16 bytes; times are milliseconds."""

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


@dataclass(frozen=True, slots=True)
class SlotCounters:
    """What one backend slot has seen. `active` flows are established TCP; `flows` are all."""

    flows: int
    active: int
    scheduled: int
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
