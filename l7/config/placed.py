"""Values together with the places in the file that they stand at: for the rules between parts, and for
advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from l4lb.control.field import Field
from l7.model import L7Config, Listener, Pool, Route


@dataclass(frozen=True, slots=True)
class PlacedListener:
    """`keys` holds the field of every key that the listener has; `endpoints` one for each of its endpoints,
    `pools` those of its pass-through."""

    value: Listener
    field: Field
    keys: Mapping[str, Field]
    endpoints: Sequence[Field]
    pools: Sequence[tuple[str, Field]]


@dataclass(frozen=True, slots=True)
class PlacedRoute:
    """`pools` and `listeners` are the names that it mentions."""

    value: Route
    field: Field
    pools: Sequence[tuple[str, Field]]
    listeners: Sequence[tuple[str, Field]]


@dataclass(frozen=True, slots=True)
class PlacedPool:
    """`backends` has a field for each of its backends."""

    value: Pool
    field: Field
    keys: Mapping[str, Field]
    backends: Sequence[Field]


@dataclass(frozen=True, slots=True)
class PlacedConfig:
    """`field` is that of `l7`; its `at` leads to the place of everything below."""

    value: L7Config
    field: Field
