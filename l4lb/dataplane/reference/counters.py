"""What the workers share: loads of slots, turns of services, what sources have, where clients belong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from l4lb.dataplane.reference.affinity import Affinities
from l4lb.dataplane.reference.sources import Sources
from l4lb.model import Scheduler

Shape = tuple[Scheduler, tuple[tuple[int, int], ...]]
"""What a service's turn depends on: its scheduler, and slot and weight of each backend that has weight."""


@dataclass(slots=True)
class Turn:
    """Where the scheduler of a service stands."""

    shape: Shape
    cursor: int
    current: list[int]
    """What smooth weighted round-robin compares, for each backend that has weight."""


class SharedCounters:
    """Flow and connection counts of every slot, shared by the balancers of all workers."""

    def __init__(self) -> None:
        self.sources = Sources()
        self.affinities = Affinities()
        self._flows: Counter[int] = Counter()
        self._active: Counter[int] = Counter()
        self._open: Counter[int] = Counter()
        self._turns: dict[str, Turn] = {}

    def flows(self, slot: int) -> int:
        """Remembered flows of `slot`."""
        return self._flows[slot]

    def active(self, slot: int) -> int:
        """Established TCP flows of `slot`."""
        return self._active[slot]

    def open(self, slot: int) -> int:
        """Flows of `slot` that are not closing."""
        return self._open[slot]

    def untracked(self) -> int:
        """Flows whose source was not limited, since its group of the table of sources was full."""
        return self.sources.untracked

    def crowded_out(self) -> int:
        """Affinities that were forgotten before their time, since their group of the table was full."""
        return self.affinities.crowded_out

    def load(self, slot: int) -> int:
        """What least-connections compares: an established flow weighs as much as 256 others."""
        return 256 * self._active[slot] + (self._flows[slot] - self._active[slot])

    def count(self, slot: int, *, flows: int = 0, active: int = 0, open: int = 0) -> None:
        """Add these differences to the counts of `slot`."""
        self._flows[slot] += flows
        self._active[slot] += active
        self._open[slot] += open

    def turn(self, service: str, shape: Shape) -> Turn:
        """The turn of `service`: where it stands if its shape is what it was, else a new one."""
        turn = self._turns.get(service)
        if turn is None or turn.shape != shape:
            turn = self._turns[service] = Turn(shape, 0, [0] * len(shape[1]))
        return turn

    def keep_turns(self, services: Collection[str]) -> None:
        """Forget the turns of all other services."""
        self._turns = {name: turn for name, turn in self._turns.items() if name in services}
