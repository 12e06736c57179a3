"""What a reload would change, for people: listeners, routes, pools and backends that come, go or change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from l7.model import L7Config, Listener, Pool, Route

_LISTS = ("listeners", "routes", "pools")


def describe_difference(old: L7Config, new: L7Config) -> list[str]:
    """One line for each difference between two configurations."""
    return list(_differences(old, new))


def _differences(old: L7Config, new: L7Config) -> Iterator[str]:
    for one in fields(L7Config):
        if one.name not in _LISTS and getattr(old, one.name) != getattr(new, one.name):
            yield f"l7.{one.name} changes"
    yield from _named("listener", old.listeners, new.listeners)
    yield from _named("route", old.routes, new.routes)
    names = [[route.name for route in config.routes] for config in (old, new)]
    if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
        yield "the order of the routes changes"
    yield from _named("pool", old.pools, new.pools)


def _named(
    kind: str,
    old: Sequence[Listener] | Sequence[Route] | Sequence[Pool],
    new: Sequence[Listener] | Sequence[Route] | Sequence[Pool],
) -> Iterator[str]:
    before = {one.name: one for one in old}
    for one in new:
        was = before.pop(one.name, None)
        if was is None:
            yield f"{kind} {one.name} is new"
        elif was != one:
            for field in fields(one):
                if getattr(was, field.name) == getattr(one, field.name):
                    continue
                if isinstance(one, Pool) and isinstance(was, Pool) and field.name == "backends":
                    yield from _backends(was, one)
                else:
                    yield f"{kind} {one.name}: {field.name} changes"
    for name in before:
        yield f"{kind} {name} goes"


def _backends(old: Pool, new: Pool) -> Iterator[str]:
    before = {backend.name: backend for backend in old.backends}
    for backend in new.backends:
        had = before.pop(backend.name, None)
        if had is None:
            yield f"pool {new.name}: backend {backend.name} is new, weight {backend.weight}"
        elif had.weight != backend.weight:
            yield f"pool {new.name}: backend {backend.name} gets weight {backend.weight}, had {had.weight}"
        elif had != backend:
            yield f"pool {new.name}: backend {backend.name} changes"
    for name in before:
        yield f"pool {new.name}: backend {name} goes"
