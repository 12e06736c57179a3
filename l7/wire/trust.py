"""Whose word is taken: peers that are proxies of ours."""

from __future__ import annotations

from collections.abc import Iterable

from l4lb.model import Network


class Trust:
    """A set of networks, asked by packed address."""

    __slots__ = ("_masks",)

    def __init__(self, networks: Iterable[Network]) -> None:
        self._masks: dict[int, list[tuple[int, int]]] = {4: [], 16: []}
        for network in networks:
            size = network.max_prefixlen // 8
            self._masks[size].append((int(network.netmask), int(network.network_address)))

    def __bool__(self) -> bool:
        """Whether anybody is trusted."""
        return any(self._masks.values())

    def covers(self, packed: bytes) -> bool:
        """Whether an address of 4 or 16 bytes is in one of the networks."""
        masks = self._masks[len(packed)]
        if not masks:
            return False
        address = int.from_bytes(packed)
        return any(address & mask == network for mask, network in masks)
