"""A `Table` compiled for the native core (ext/l4lb/dataplane/nativetable.pyx)."""

from l4lb.dataplane.table import Table

class NativeTable:
    """A `Table` in flat arrays, compiled once and published to every worker's balancer.

    A service of `previous` that has stayed as it was keeps its turn.
    """

    source: Table
    def __init__(self, source: Table, previous: NativeTable | None = None) -> None: ...
