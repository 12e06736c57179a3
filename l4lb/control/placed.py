"""A service together with the places in the file that its parts stand at, for the rules between parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from l4lb.control.field import Field
from l4lb.model import Network, Service


@dataclass(frozen=True, slots=True)
class PlacedService:
    """`keys` holds the field of every key that the service has; `listens`, `backends` and `networks` have one
    for each of the values, `networks` those of `allow` and `deny`.
    """

    value: Service
    field: Field
    keys: Mapping[str, Field]
    listens: Sequence[Field]
    backends: Sequence[Field]
    networks: Sequence[tuple[Network, Field]]
