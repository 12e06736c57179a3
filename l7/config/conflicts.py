"""The rules between the parts of the section, each of which is right in itself.

What is named exists; an endpoint belongs to one listener; nothing that stands in the file is without effect.
The first rule that is broken raises ConfigError.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from l4lb.control.field import Field
from l4lb.control.message import nearest, quoted
from l4lb.model import Address
from l7.config.placed import PlacedListener, PlacedPool, PlacedRoute
from l7.model import BackendAddress


def check_listeners(
    listeners: Sequence[PlacedListener], metrics: Field | None, at: tuple[Address, int] | None
) -> None:
    """Names and endpoints are given once; a catch-all leaves nothing for what stands beside it."""
    names: dict[str, PlacedListener] = {}
    taken: dict[tuple[Address, int], str] = {}
    for listener in listeners:
        value = listener.value
        if other := names.get(value.name):
            where = listener.keys.get("name", listener.field)
            raise where.error(
                f"{quoted(value.name)} is the name of {other.field.path} too; change one of the two"
            )
        names[value.name] = listener
        for endpoint, field in zip(value.endpoints, listener.endpoints, strict=True):
            if owner := taken.get(endpoint):
                raise field.error(
                    f"{BackendAddress(*endpoint).name} is an endpoint of listener {quoted(owner)} too; "
                    "remove one of the two"
                )
            taken[endpoint] = value.name
        if value.tls and value.pass_through:
            raise listener.keys["pass_through"].error(
                "a listener passes TLS through or ends it, and this one has tls; "
                "use another endpoint for one of the two"
            )
    if metrics and at and (owner := taken.get(at)):
        raise metrics.error(f"is an endpoint of listener {quoted(owner)}; use another port")


def check_names(
    listeners: Sequence[PlacedListener], routes: Sequence[PlacedRoute], pools: Sequence[PlacedPool]
) -> None:
    """What routes and listeners name is there, and of use to them."""
    pool_names = {pool.value.name: pool for pool in pools}
    listener_names = {listener.value.name: listener for listener in listeners}
    mentioned = [*(one.pools for one in listeners), *(one.pools for one in routes)]
    for name, field in chain.from_iterable(mentioned):
        if name not in pool_names:
            raise field.error(f"there is no pool {quoted(name)}; {nearest(name, pool_names)}")
    for name, field in chain.from_iterable(one.pools for one in listeners):
        if pool_names[name].value.tls:
            raise field.error(
                f"connections are passed through as they are, and pool {quoted(name)} has tls; "
                "use one without"
            )
    for route in routes:
        for name, field in route.listeners:
            if name not in listener_names:
                raise field.error(f"there is no listener {quoted(name)}; {nearest(name, listener_names)}")


def check_pool(pool: PlacedPool) -> None:
    """A server stands in a pool once, and not all are backups."""
    seen: dict[str, Field] = {}
    for backend, field in zip(pool.value.backends, pool.backends, strict=True):
        if other := seen.get(backend.name):
            raise field.error(f"{backend.name} is the same server as {other.path}; remove one of the two")
        seen[backend.name] = field
    if all(backend.is_backup for backend in pool.value.backends):
        raise pool.keys["backends"].error(
            "all of them are backups, with nothing to be a backup for; make at least one an ordinary one"
        )
    if pool.value.slow_start_s and pool.value.health is None and pool.value.passive is None:
        raise pool.keys["slow_start"].error(
            "without a check no backend goes down or comes up; add health or passive, or remove it"
        )
