"""A worker's masquerade ports, and the search for a free one (docs/design/decision.md, section 11).

A worker owns the same ports of every address, so none asks another, and an answer's port says whose it is.
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from l4lb.dataplane.reference.hashing import scale


class PoolPort(NamedTuple):
    """A source of masquerade: the index of its address in `Table.pool`, and a port."""

    address: int
    port: int


class OwnPorts(NamedTuple):
    """The ports `first` to `first + size - 1` of every address."""

    first: int
    size: int

    def find_free(self, pool: tuple[int, int], hash_: int, taken: Container[PoolPort]) -> PoolPort | None:
        """The first port that is not taken, beginning where the hash says; `pool` as in `BackendEntry`."""
        address, addresses = pool
        n = addresses * self.size
        begin = scale(hash_ >> 32, n)
        for step in range(n):
            index, port = divmod((begin + step) % n, self.size)
            source = PoolPort(address + index, self.first + port)
            if source not in taken:
                return source
        return None
