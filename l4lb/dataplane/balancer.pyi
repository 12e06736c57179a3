"""The native balancer; `l4lb.dataplane.reference.balancer` is its readable twin with the same API."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypedDict

from l4lb.dataplane.decision import Decision, Flow, Reason, SlotCounters
from l4lb.dataplane.nativetable import NativeTable
from l4lb.dataplane.selection import Selected, Selection
from l4lb.dataplane.table import Table

FORMAT: bytes
"""The first line of a `Balancer.dump`."""
AFFINITY_FORMAT: bytes
"""The first line of a `SharedCounters.dump_affinities`."""

class Counters(TypedDict):
    """What a balancer has counted, in values that JSON can carry."""

    reasons: dict[str, int]
    """Packets by the name of the reason."""
    slots: dict[str, list[int]]
    """By slot: flows scheduled, packets and bytes in, packets and bytes out."""

class SharedCounters:
    """Flow and connection counts of every slot and source, and the affinities of clients, shared by the
    balancers of all workers, which have one key."""

    def __init__(self) -> None: ...
    def flows(self, slot: int) -> int:
        """Remembered flows of `slot`."""
    def active(self, slot: int) -> int:
        """Established TCP flows of `slot`."""
    def open(self, slot: int) -> int:
        """Flows of `slot` that are not closing."""
    def untracked(self) -> int:
        """Flows whose source was not limited, since its group of the table of sources was full."""
    def crowded_out(self) -> int:
        """Affinities that were forgotten before their time, since their group of the table was full."""

    def counters(self) -> dict[str, int]:
        """What was counted, for `load_counters`."""
    def load_counters(self, counted: Mapping[str, int]) -> None:
        """Add what another one has counted."""
    def dump_affinities(self, now_ms: int) -> Iterator[bytes]:
        """The affinities that have not ended, as `load_affinities` takes them."""
    def load_affinities(self, chunks: Iterable[bytes]) -> int:
        """Remember the affinities of a `dump_affinities` with the same key; returns how many did not fit.

        One does not fit where its group is full or its client is known. Make a balancer before: it brings the
        key. ValueError as with `Balancer.load`.
        """

class Balancer:
    """Flow table, scheduler state and counters of one worker.

    `ports` are the first and the number of the masquerade ports that are this worker's on every address of
    the pool; ValueError where they are not within 1 to 65535.
    """

    def __init__(
        self,
        *,
        capacity: int,
        key: bytes,
        shared: SharedCounters | None = None,
        ports: tuple[int, int] = (0, 0),
    ) -> None: ...
    @property
    def capacity(self) -> int: ...
    def publish(self, table: Table | NativeTable) -> None:
        """Decide by `table` from the next packet on. Flows and counters stay."""
    def decide(
        self,
        packet: bytes,
        now_ms: int,
        *,
        length: int | None = None,
        checksum_ready: bool = True,
        gso: bool = False,
        rewrite: bool = True,
    ) -> Decision:
        """Decide one packet. `length` is the whole packet's where `packet` is only its beginning.

        Raises RuntimeError where no table was published.
        """
    def preview(self, packet: bytes, now_ms: int) -> Decision:
        """The decision that a whole packet to a service would get, with nothing changed or counted."""
    def find(self, packet: bytes, now_ms: int) -> Flow | None:
        """The flow that a whole packet to a service belongs to, or None."""
    def find_source(self, address: bytes, port: int, protocol: int, now_ms: int) -> Flow | None:
        """The flow whose masquerade source is this, or None; `address` has 4 or 16 bytes."""
    def decide_all(self, packets: list[bytes], now_ms: int, *, rewrite: bool = False, rounds: int = 1) -> int:
        """Decide every packet `rounds` times over without returning to Python; returns the count."""
    def expire(self, now_ms: int) -> int:
        """Remove every expired flow; returns how many."""
    def expire_groups(self, first: int, count: int, now_ms: int) -> int:
        """Remove the expired flows of some groups; holds the lock for these only."""
    def remove_flows(self, slot: int, first_group: int, groups: int) -> int:
        """Forget the flows of `slot`, expired ones too, in some groups of the table; returns how many.

        Holds the lock for these groups only. A flow that goes on is a new one with its next packet.
        """
    @property
    def groups(self) -> int:
        """Groups of the flow table."""
    def reasons(self) -> dict[Reason, int]:
        """Packets by reason."""
    def slot_counters(self, slot: int) -> SlotCounters: ...
    def take_beginnings(self) -> list[tuple[int, int, int]]:
        """Slots to which TCP flows began, or failed to, since the last call: the slot and how many of
        each. A pass over counters, for one who asks; `load_counters` does not count.
        """
    def flow_count(self) -> int: ...
    def flows(self) -> Iterator[Flow]:
        """A snapshot of the remembered flows, in no order."""
    def select(self, selection: Selection) -> Selected:
        """The flows that a selection asks for, in its order, and how many match.

        The table is walked in steps that hold the lock for microseconds; memory is for `limit` flows.
        """
    def dump(self) -> Iterator[bytes]:
        """The flows, expired or not, as `load` takes them: chunks of some hundred kilobytes.

        They are in this machine's memory layout and with its clock, for a program that replaces the running
        one.
        """
    def load(self, chunks: Iterable[bytes]) -> int:
        """Remember the flows of a `dump` by a balancer with the same key; returns how many did not fit.

        A flow does not fit where there is no room for it, where it is known already, and where its masquerade
        port has a flow or is not this worker's. Publish a table before: it says which sources are limited,
        and what the pool's addresses are. ValueError where the format is not `FORMAT`, or the chunks end
        within a record.
        """
    def counters(self) -> Counters:
        """What was counted, for `load_counters`."""
    def load_counters(self, counted: Counters) -> None:
        """Add what another balancer has counted. Reasons that are unknown here are left out."""
