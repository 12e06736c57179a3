"""Both cores fed with the same: whatever differs is a bug of one of them."""

from __future__ import annotations

from typing import Any

from l4lb.dataplane.decision import Decision, Flow, Verdict
from l4lb.dataplane.selection import Selection
from l4lb.dataplane.table import Table
from tests.support.cores import KEY, NATIVE, REFERENCE, Core
from tests.support.rows import compared

SLOTS = range(64)
FIRST_PORT = 20_000
"""The first masquerade port of the first worker."""


class Workers:
    """The workers of one core, which share counters and turns."""

    PORTS = 3
    """Masquerade ports of every worker and address: soon taken."""

    def __init__(self, core: Core, capacity: int, workers: int) -> None:
        self._core = core
        self._compiled: Any = None
        self.shared = core.balancer.SharedCounters()
        self.balancers = [
            core.balancer.Balancer(
                capacity=capacity,
                key=KEY,
                shared=self.shared,
                ports=(FIRST_PORT + n * self.PORTS, self.PORTS),
            )
            for n in range(workers)
        ]

    def publish(self, table: Table) -> None:
        self._compiled = self._core.compile(table, self._compiled)
        for balancer in self.balancers:
            balancer.publish(self._compiled)

    def snapshot(self) -> dict[str, Any]:
        """Everything that can be seen from outside."""
        return {
            "shared": [
                (self.shared.flows(slot), self.shared.active(slot), self.shared.open(slot)) for slot in SLOTS
            ],
            "untracked": self.shared.untracked(),
            "crowded out": self.shared.crowded_out(),
            "workers": [
                {
                    "reasons": balancer.reasons(),
                    "flow count": balancer.flow_count(),
                    "flows": sorted(map(repr, balancer.flows())),
                    "slots": [balancer.slot_counters(slot) for slot in SLOTS],
                }
                for balancer in self.balancers
            ],
        }


class Twins:
    """The reference and the native core, step by step."""

    def __init__(self, table: Table, *, capacity: int, workers: int = 1) -> None:
        self.reference = Workers(REFERENCE, capacity, workers)
        self.native = Workers(NATIVE, capacity, workers)
        self.now_ms = 0
        self.publish(table)

    def publish(self, table: Table) -> None:
        self.table = table
        self.reference.publish(table)
        self.native.publish(table)

    def decide(self, packet: bytes, *, worker: int = 0, **kernel: Any) -> Decision:
        """Both decide alike, and as any decision must be."""
        ours: Decision = self.reference.balancers[worker].decide(packet, self.now_ms, **kernel)
        theirs: Decision = self.native.balancers[worker].decide(packet, self.now_ms, **kernel)
        assert theirs == ours, f"{kernel}\n{compared(packet, reference=ours, native=theirs)}"
        assert ours.verdict is ours.reason.verdict
        forward = ours.verdict is Verdict.FORWARD
        assert forward == (ours.slot >= 0)
        assert forward == (ours.mark != 0 or ours.sent) or ours.verdict is Verdict.ANSWER
        assert not ours.sent or (ours.mark == 0 and ours.packet is not None)
        assert ours.sent or ours.packet is None or len(ours.packet) == len(packet)
        return ours

    def ask(self, packet: bytes, *, worker: int = 0) -> None:
        """Both foresee alike what they would decide, and find the same flow."""
        ours, theirs = self.reference.balancers[worker], self.native.balancers[worker]
        foreseen = {
            "reference": ours.preview(packet, self.now_ms),
            "native": theirs.preview(packet, self.now_ms),
        }
        assert foreseen["native"] == foreseen["reference"], f"foreseen\n{compared(packet, **foreseen)}"
        assert theirs.find(packet, self.now_ms) == ours.find(packet, self.now_ms), packet.hex()

    def ask_source(self, source: tuple[bytes, int, int], *, worker: int = 0) -> None:
        """Both find the same flow by its masquerade source: address, port and protocol."""
        ours, theirs = self.reference.balancers[worker], self.native.balancers[worker]
        assert theirs.find_source(*source, self.now_ms) == ours.find_source(*source, self.now_ms), source

    def expire(self) -> None:
        for ours, theirs in zip(self.reference.balancers, self.native.balancers, strict=True):
            assert theirs.expire(self.now_ms) == ours.expire(self.now_ms)

    def select(self, wish: Selection) -> list[Flow]:
        """Both give the same page on every worker; that of the first."""
        pages = [
            (ours.select(wish), theirs.select(wish))
            for ours, theirs in zip(self.reference.balancers, self.native.balancers, strict=True)
        ]
        for ours, theirs in pages:
            assert theirs == ours, wish
        return list(pages[0][0].flows)

    def remove_flows(self, slot: int, first_group: int, groups: int) -> None:
        for ours, theirs in zip(self.reference.balancers, self.native.balancers, strict=True):
            assert theirs.groups == ours.groups
            removed = ours.remove_flows(slot, first_group, groups)
            assert theirs.remove_flows(slot, first_group, groups) == removed

    def compare(self) -> None:
        for ours, theirs in zip(self.reference.balancers, self.native.balancers, strict=True):
            assert theirs.take_beginnings() == ours.take_beginnings()
            assert not theirs.take_beginnings()
        assert self.native.snapshot() == self.reference.snapshot()
