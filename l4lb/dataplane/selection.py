"""Which of the remembered flows are asked for, in which order, and how many of them.

The order is total: behind the value that is sorted by stand the flow's ends and protocol, which no two flows
have in common. So a page goes on behind any flow, whether that still exists or not, and flows that come and
go move no other from one page to the next. `Balancer.select` carries a selection out, in both cores alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from l4lb.dataplane.decision import Flow, State
from l4lb.dataplane.table import Timeouts


class Order(IntEnum):
    """What flows are sorted by, the least first. The first two are the ends of a flow alone."""

    CLIENT = 0
    LISTEN = 1
    RANK = 2
    STATE = 3
    EXPIRES = 4
    SEEN = 5
    PACKETS = 6
    BYTES = 7


class Place(NamedTuple):
    """Where a flow stands in an order; addresses of 4 or 16 bytes. `value` is a rank in RANK, milliseconds in
    EXPIRES and SEEN, and 0 in CLIENT and LISTEN."""

    value: int
    client: bytes
    client_port: int
    vip: bytes
    vip_port: int
    protocol: int


SortKey = tuple[int, int, bytes, int, bytes, int, int]


@dataclass(frozen=True, slots=True)
class Selection:
    """The first `limit` flows behind `after` of those that live at `now_ms` and that the filters let through.

    `network` is an address and a prefix length that clients are to be in. `slots` has a byte for each slot,
    not 0 where its flows are wanted, and `ranks` a native-endian 32-bit number for each, its rank in
    `Order.RANK`. `timeouts` say when a flow was seen last.
    """

    now_ms: int
    limit: int
    order: Order = Order.CLIENT
    descending: bool = False
    network: tuple[bytes, int] | None = None
    slots: bytes | None = None
    ranks: bytes | None = None
    state: State | None = None
    after: Place | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)

    def place_of(self, flow: Flow) -> Place:
        """Where a flow stands."""
        return Place(
            self._value_of(flow), flow.client, flow.client_port, flow.vip, flow.vip_port, flow.protocol
        )

    def key_of(self, place: Place) -> SortKey:
        """What sorts places, the least first whatever `descending` says."""
        value, client, client_port, vip, vip_port, protocol = place
        if self.order is Order.LISTEN:
            return value, len(client), vip, vip_port << 8 | protocol, client, client_port, 0
        return value, len(client), client, client_port, vip, vip_port, protocol

    def _value_of(self, flow: Flow) -> int:
        match self.order:
            case Order.RANK:
                return 0 if self.ranks is None else int(memoryview(self.ranks).cast("I")[flow.slot])
            case Order.STATE:
                return int(flow.state)
            case Order.EXPIRES:
                return flow.expires_ms
            case Order.SEEN:
                return flow.expires_ms - self.timeouts.of(flow.state)
            case Order.PACKETS:
                return flow.packets
            case Order.BYTES:
                return flow.bytes
            case _:
                return 0


class Selected(NamedTuple):
    """The flows of a selection in its order, and how many the filters let through, before and behind these
    too."""

    flows: list[Flow]
    matched: int


def merge(selection: Selection, parts: list[Selected]) -> list[tuple[int, Flow]]:
    """The flows of a selection that several workers have carried out, each with the number of its part."""
    flows = [(number, flow) for number, part in enumerate(parts) for flow in part.flows]
    flows.sort(key=lambda one: selection.key_of(selection.place_of(one[1])), reverse=selection.descending)
    return flows[: selection.limit]
