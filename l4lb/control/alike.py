"""What of a configuration may change while rules and the way of answers stay: who takes how many flows.

Most changes are of this kind: checks, slow starts and operators change weights. Then a design takes over
what it can of the one before, which is most of the work with thousands of backends.
"""

from __future__ import annotations

from dataclasses import replace

from l4lb.model import Backend, L4Config, OnFailure, Scheduler, Service


def are_alike(old: L4Config, new: L4Config) -> bool:
    """Whether the two differ in weights, limits of connections and schedulers at most."""
    return (
        len(old.services) == len(new.services)
        and replace(old, services=()) == replace(new, services=())
        and all(map(_are_alike, old.services, new.services))
    )


def _are_alike(old: Service, new: Service) -> bool:
    if old == new:
        return True
    # What the kernel chooses by itself it chooses by weight.
    return old.on_failure is not OnFailure.HASH and _unweighted(old) == _unweighted(new)


def _unweighted(service: Service) -> Service:
    return replace(
        service, scheduler=Scheduler.MAGLEV, backends=tuple(map(_unweighted_backend, service.backends))
    )


def _unweighted_backend(backend: Backend) -> Backend:
    return replace(backend, weight=0, max_connections=None)
