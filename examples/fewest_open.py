"""A scheduler in Python, for `scheduler: {python: fewest_open:FewestOpen}` (see python.yaml).

Of the backends with the fewest open connections for their weight, the one that the flow's hash names: so
that several gateways do not all begin with the same one.
"""

from __future__ import annotations

from collections.abc import Sequence

from l4lb.dataplane.custom import Candidate, NewFlow, Scheduler


class FewestOpen(Scheduler):
    """Called for new flows only; answers with the number of one of the backends."""

    def choose(self, flow: NewFlow, backends: Sequence[Candidate]) -> int:
        """The number in `backends` that the flow goes to."""
        loads = [backend.open / backend.weight for backend in backends]
        fewest = min(loads)
        numbers = [number for number, load in enumerate(loads) if load == fewest]
        return numbers[flow.hash % len(numbers)]
