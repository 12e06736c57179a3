"""Flow and connection counts of every slot: what the schedulers balance by."""

from __future__ import annotations

from collections import Counter


class SharedCounters:
    """Flow and connection counts of every slot, shared by the balancers of all workers."""

    def __init__(self) -> None:
        self._flows: Counter[int] = Counter()
        self._active: Counter[int] = Counter()

    def flows(self, slot: int) -> int:
        """Remembered flows of `slot`."""
        return self._flows[slot]

    def active(self, slot: int) -> int:
        """Established TCP flows of `slot`."""
        return self._active[slot]

    def load(self, slot: int) -> int:
        """What least-connections compares: an established flow weighs as much as 256 others."""
        return 256 * self._active[slot] + (self._flows[slot] - self._active[slot])

    def count(self, slot: int, *, flows: int = 0, active: int = 0) -> None:
        """Add the differences `flows` and `active` to the counts of `slot`."""
        self._flows[slot] += flows
        self._active[slot] += active
