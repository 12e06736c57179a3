"""The addresses that masqueraded flows show to their backends.

They are numbered over all services and families, and flows remember the number: an address keeps it for as
long as the daemon runs, new ones are added at the end. Configured addresses serve every backend of their
family; without any, a backend gets the address that this host has towards it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from l4lb.errors import L4lbError
from l4lb.model import Address, Backend, Forward, L4Config

MAX_ADDRESSES = 64


@dataclass(frozen=True, slots=True)
class Path:
    """How this host reaches an address.

    `gateway` is None where the address is on a network of `interface`; `mtu` is the largest packet in bytes.
    """

    interface: str
    source: Address
    gateway: Address | None
    mtu: int


class AddressPool:
    """The numbered addresses; `assign` before each expansion. `known` have their numbers from an earlier
    pool."""

    def __init__(self, addresses: tuple[Address, ...] = (), *, known: tuple[Address, ...] = ()) -> None:
        # Those of a family stand together, so that a range of numbers names them.
        self._configured = sorted(addresses, key=lambda address: address.version)
        self._numbers = {address: number for number, address in enumerate(known or self._configured)}

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All addresses, by number."""
        return tuple(self._numbers)

    def assign(self, config: L4Config, paths: Mapping[Address, Path]) -> None:
        """Numbers what the backends of `config` need. L4lbError where there is no room."""
        if self._configured:
            return
        for service in config.services:
            if service.forward is Forward.MASQUERADE:
                for backend in service.backends:
                    self._numbers.setdefault(paths[backend.address].source, len(self._numbers))
        if len(self._numbers) > MAX_ADDRESSES:
            raise L4lbError(
                f"masquerade: this host has {len(self._numbers)} addresses towards the backends, "
                f"and there is room for {MAX_ADDRESSES}; set l4.masquerade.addresses"
            )

    def range_for(self, backend: Backend, paths: Mapping[Address, Path]) -> tuple[int, int]:
        """The first number that the backend's flows may have, and how many."""
        if not self._configured:
            return self._numbers[paths[backend.address].source], 1
        numbers = [n for a, n in self._numbers.items() if a.version == backend.address.version]
        return (numbers[0], len(numbers)) if numbers else (0, 0)


def divide_ports(first: int, last: int, workers: int) -> list[tuple[int, int]]:
    """The ports of each worker as (first, last); what does not divide evenly is left unused."""
    size = (last - first + 1) // workers
    return [(first + n * size, first + (n + 1) * size - 1) for n in range(workers)]
