"""What a reload would change, for people: services and backends that come, go or change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from l4lb.model import L4Config, Service


def describe_difference(old: L4Config, new: L4Config) -> list[str]:
    """One line for each difference between two configurations, in the order of the new one."""
    return list(_differences(old, new))


def _differences(old: L4Config, new: L4Config) -> Iterator[str]:
    for one in fields(L4Config):
        if one.name != "services" and getattr(old, one.name) != getattr(new, one.name):
            yield f"l4.{one.name} changes"
    before = {service.name: service for service in old.services}
    for service in new.services:
        was = before.pop(service.name, None)
        if was is None:
            yield f"service {service.name} is new, with {len(service.backends)} backends"
        elif was != service:
            yield from _service_differences(was, service)
    for name in before:
        yield f"service {name} goes"


def _service_differences(old: Service, new: Service) -> Iterator[str]:
    for one in fields(Service):
        was, becomes = getattr(old, one.name), getattr(new, one.name)
        if was != becomes and one.name == "listens":
            yield f"service {new.name}: listens on {', '.join(map(str, becomes))}"
        elif was != becomes and one.name != "backends":
            yield f"service {new.name}: {one.name} changes"
    before = {backend.name: backend for backend in old.backends}
    for backend in new.backends:
        had = before.pop(backend.name, None)
        if had is None and backend.sorry:
            yield f"service {new.name}: sorry server {backend.name} is new"
        elif had is None:
            yield f"service {new.name}: backend {backend.name} is new, weight {backend.weight}"
        elif had.weight != backend.weight:
            yield f"service {new.name}: backend {backend.name} gets weight {backend.weight}, had {had.weight}"
        elif had.maintenance != backend.maintenance:
            way = "goes into" if backend.maintenance else "comes out of"
            yield f"service {new.name}: backend {backend.name} {way} maintenance"
        elif had != backend:
            yield f"service {new.name}: backend {backend.name} changes"
    for name, gone in before.items():
        yield f"service {new.name}: {'sorry server' if gone.sorry else 'backend'} {name} goes"
