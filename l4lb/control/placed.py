"""Values together with the places in the file that they stand at: for the rules between parts, and for
advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from l4lb.control.field import Field
from l4lb.model import L4Config, Network, Service


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


@dataclass(frozen=True, slots=True)
class PlacedConfig:
    """`field` is that of `l4`; its `at` leads to the place of everything below."""

    value: L4Config
    field: Field
