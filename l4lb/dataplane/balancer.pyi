"""The native balancer; `l4lb.dataplane.reference.balancer` is its readable twin with the same API."""

from collections.abc import Iterator

from l4lb.dataplane.decision import Decision, Flow, Reason, SlotCounters
from l4lb.dataplane.nativetable import NativeTable
from l4lb.dataplane.table import Table

class SharedCounters:
    """Flow and connection counts of every slot, shared by the balancers of all workers."""

    def __init__(self) -> None: ...
    def flows(self, slot: int) -> int: ...
    def active(self, slot: int) -> int: ...

class Balancer:
    """Flow table, scheduler state and counters of one worker."""

    def __init__(self, *, capacity: int, key: bytes, shared: SharedCounters | None = None) -> None: ...
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
    def decide_all(self, packets: list[bytes], now_ms: int, *, rewrite: bool = False, rounds: int = 1) -> int:
        """Decide every packet `rounds` times over without returning to Python; returns the count."""
    def expire(self, now_ms: int) -> int:
        """Remove every expired flow; returns how many."""
    def expire_groups(self, first: int, count: int, now_ms: int) -> int:
        """Remove the expired flows of some groups; holds the lock for these only."""
    @property
    def groups(self) -> int:
        """Groups of the flow table."""
    def reasons(self) -> dict[Reason, int]:
        """Packets by reason."""
    def slot_counters(self, slot: int) -> SlotCounters: ...
    def flow_count(self) -> int: ...
    def flows(self) -> Iterator[Flow]:
        """A snapshot of the remembered flows, in no order."""
