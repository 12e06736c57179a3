"""The native balancer; `l4lb.dataplane.reference.balancer` is its readable twin with the same API."""

from collections.abc import Iterator

from l4lb.dataplane.decision import Decision, Flow, Reason, SlotCounters
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
    def publish(self, table: Table) -> None:
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
    def expire(self, now_ms: int) -> int:
        """Remove every expired flow; returns how many."""
    def reasons(self) -> dict[Reason, int]:
        """Packets by reason."""
    def slot_counters(self, slot: int) -> SlotCounters: ...
    def flow_count(self) -> int: ...
    def flows(self) -> Iterator[Flow]:
        """A snapshot of the remembered flows, in no order."""
