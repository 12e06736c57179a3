"""All backends of a configuration with what is known of them, and what follows for what runs.

The configuration says what there is; operators, checks and time say more, and `l4lb.control.judgement` makes
effective weights and limits of it. The *effective* configuration is the one with these: making it true is
the same work whatever the cause of a change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

from l4lb.control.judgement import SLOW_STEPS, WEIGHTED, judge
from l4lb.control.member import Admin, Key, Member, State
from l4lb.control.quorum import ServiceState, Standing
from l4lb.errors import L4lbError
from l4lb.model import Address, Backend, L4Config, OnDown, Service

_KEPT = ("up", "out", "weight", "up_since", "since", "why", "ends_flows")
"""What is known of a member, in plain values."""


@dataclass(slots=True)
class Roster:
    """All backends of a configuration. Every change is followed by `settle`, which says whether anything
    follows from it."""

    config: L4Config
    _services: dict[str, dict[str, Member]] = field(default_factory=dict)
    """Members by service and name, in the order of the configuration; what was added at run time is
    behind."""
    _standings: dict[str, Standing] = field(default_factory=dict)
    """By service."""

    def __post_init__(self) -> None:
        self.adopt(self.config)

    def adopt(self, config: L4Config, now_s: float = 0.0) -> None:
        """Takes a new configuration: states of backends that stay are kept.

        Weights, and what operators want of a backend, are kept where what is configured did not change. What
        was added or removed at run time is forgotten, for now the file says what there is.
        """
        before = self._services
        self._services = {}
        for service in config.services:
            known = before.get(service.name, {})
            members = self._services[service.name] = {}
            for backend in service.backends:
                member = known.get(backend.name)
                was = member is not None and member.backend.maintenance
                member = member or Member(service.name, backend)
                if member.backend.weight != backend.weight:
                    member.weight = None
                member.backend, member.added = backend, False
                member.follow_file(was, service, now_s)
                member.forget_checks_of_before(service)
                members[backend.name] = member
        self._standings = {
            service.name: self._standings.get(service.name, Standing()) for service in config.services
        }
        self.config = config

    def copy(self) -> Roster:
        """A roster of its own with the same content."""
        twin = Roster(replace(self.config, services=()))
        twin.config = self.config
        twin._services = {
            service: {name: replace(member) for name, member in members.items()}
            for service, members in self._services.items()
        }
        twin._standings = dict(self._standings)
        return twin

    def dump(self) -> dict[str, Any]:
        """What is known of backends and services besides the configuration, for `restore`, as JSON has it."""
        members = [
            {
                "service": member.service,
                "address": str(member.backend.address),
                "port": member.backend.port,
                "configured": member.backend.weight,
                "maintenance": member.backend.maintenance,
                "added": member.added,
                **{name: getattr(member, name) for name in _KEPT},
                "admin": str(member.admin),
            }
            for member in self.members()
        ]
        removed = [
            [service.name, backend.name]
            for service in self.config.services
            for backend in service.backends
            if backend.name not in self._services[service.name]
        ]
        services = [
            {"service": name, "has_quorum": one.has_quorum, "state": str(one.state), "since_s": one.since_s}
            for name, one in self._standings.items()
        ]
        return {"members": members, "removed": removed, "services": services}

    def restore(self, dumped: Mapping[str, Any]) -> None:
        """Takes over what another roster knew, also of the backends that came and went at run time.

        Its configuration may have been another one: as in `adopt`, what this one does not know is left out.
        """
        for entry in dumped["services"]:
            if entry["service"] in self._standings:
                self._standings[entry["service"]] = Standing(
                    entry["has_quorum"], ServiceState(entry["state"]), since_s=entry["since_s"]
                )
        for service, name in dumped["removed"]:
            with contextlib.suppress(L4lbError):  # it is not here, or would be the last
                self.remove(service, name)
        services = {service.name: service for service in self.config.services}
        for entry in dumped["members"]:
            if entry["service"] in services:
                self._restore_member(services[entry["service"]], entry)

    def _restore_member(self, service: Service, entry: Mapping[str, Any]) -> None:
        backend = Backend(ip_address(entry["address"]), entry["port"], entry["configured"])
        members = self._services[service.name]
        if backend.name not in members:
            if not entry["added"]:
                return
            members[backend.name] = Member(service.name, backend, added=True)
        member = members[backend.name]
        for name in _KEPT:
            setattr(member, name, entry[name])
        member.admin = Admin(entry["admin"])
        member.follow_file(entry["maintenance"], service, member.since)
        if member.backend.weight != backend.weight:
            member.weight = None
        member.forget_checks_of_before(service)

    def standing(self, service: str) -> Standing:
        """How a service of the configuration stands, as of the last `settle`."""
        return self._standings[service]

    def member(self, service: str, backend: str) -> Member:
        """L4lbError where there is none, with the names that there are."""
        members = self.of(service)
        if backend not in members:
            raise L4lbError(f"service {service} has no backend {backend}; it has {', '.join(members)}")
        return members[backend]

    def of(self, service: str) -> Mapping[str, Member]:
        """The backends of a service by name. L4lbError where there is no such service."""
        if service not in self._services:
            raise L4lbError(f"there is no service {service}; there are {', '.join(self._services)}")
        return self._services[service]

    def members(self) -> Iterator[Member]:
        """Every backend."""
        return (member for members in self._services.values() for member in members.values())

    def max_connections(self, service: str) -> int | None:
        """Connections that a backend of the service may have where it does not say so itself."""
        return next((one.max_connections for one in self.config.services if one.name == service), None)

    def add(self, service: str, backend: Backend) -> None:
        """A backend that the configuration does not know. L4lbError where it is there."""
        if backend.name in self.of(service):
            raise L4lbError(f"service {service} has a backend {backend.name} already")
        self._services[service][backend.name] = Member(service, backend, added=True, why="added at run time")

    def remove(self, service: str, backend: str) -> None:
        """Takes a backend out of its service. L4lbError where it is the last."""
        gone = self.member(service, backend)
        left = [one for one in self.of(service).values() if not one.backend.sorry and one is not gone]
        if not left:
            raise L4lbError(f"{backend} is the last backend of service {service}; disable it instead")
        del self._services[service][backend]

    def set_admin(
        self, service: str, backend: str, admin: Admin, now_s: float, *, ends_flows: bool = False
    ) -> None:
        """An operator's wish; with `ends_flows` the backend is to lose the flows, too, that it has."""
        member = self.member(service, backend)
        owner = next(one for one in self.config.services if one.name == service)
        member.set_admin(admin, "by an operator", owner, now_s)
        member.ends_flows = ends_flows

    def set_weight(self, service: str, backend: str, weight: int | None) -> None:
        """A weight in place of the configured one; None gives it back."""
        self.member(service, backend).weight = weight

    def report(self, key: Key, *, up: bool, out: bool, why: str, now_s: float) -> bool:
        """What checks say; true where it changes something. A backend that comes up begins its slow start."""
        service, backend = key
        member = self._services.get(service, {}).get(backend)
        if member is None or (member.up, member.out) == (up, out):
            return False
        worked = member.works
        member.up, member.out, member.why, member.since = up, out, why, now_s
        if member.works and not worked:
            member.up_since = now_s
        return True

    def weigh(self, key: Key, weight: int) -> bool:
        """The weight that a check says a backend wishes for; true where it changes something."""
        service, backend = key
        member = self._services.get(service, {}).get(backend)
        if member is None or member.weight == weight:
            return False
        member.weight = weight
        return True

    def settle(self, now_s: float) -> bool:
        """Computes states, effective weights and limits; true where something is to be carried out for it."""
        changed = False
        for service in self.config.services:
            before = self._standings[service.name]
            judged = judge(service, list(self.of(service.name).values()), before, now_s)
            self._standings[service.name] = judged.standing
            changed |= judged.standing.has_quorum != before.has_quorum
            for member, state, weight, limit in judged.members:
                overdue = state is State.DRAINING and now_s - member.since >= service.drain_timeout_s
                is_down = state is State.DOWN
                was = member.effective, member.limit, member.overdue, member.state is State.DOWN
                changed |= was != (weight, limit, overdue, is_down)
                member.state, member.overdue = state, overdue
                member.effective, member.limit = weight, limit
        return changed

    def next_step_s(self, now_s: float) -> float | None:
        """Seconds after which a slow start goes on or a drain is overdue, or None where nothing goes by
        time."""
        services = {service.name: service for service in self.config.services}
        steps = []
        for member in self.members():
            service = services[member.service]
            if member.state is State.STARTING:
                steps.append(service.slow_start_s / SLOW_STEPS)
            elif member.state is State.DRAINING and not member.overdue:
                steps.append(max(member.since + service.drain_timeout_s - now_s, 0.0))
        return min(steps) if steps else None

    def effective_config(self) -> L4Config:
        """The configuration with effective weights and limits, and with what was added and removed at run
        time."""
        services = tuple(self._effective(service) for service in self.config.services)
        return replace(self.config, services=services)

    def _effective(self, service: Service) -> Service:
        members = self._services[service.name].values()
        starts = any(member.state is State.STARTING for member in members)
        return replace(
            service,
            scheduler=WEIGHTED.get(service.scheduler, service.scheduler) if starts else service.scheduler,
            backends=tuple(map(_effective_backend, members)),
        )

    def withdrawn(self) -> frozenset[Address]:
        """The VIPs that are given up: of the services that would (`withdraw_vip`) none has its quorum."""
        votes: dict[Address, list[bool]] = {}
        for service in self.config.services:
            for listen in service.listens if service.withdraw_vip else ():
                votes.setdefault(listen.address, []).append(self._standings[service.name].has_quorum)
        return frozenset(address for address, whole in votes.items() if not any(whole))

    def ended(self) -> Iterator[tuple[Key, OnDown]]:
        """Backends whose flows cannot go on, with what shall become of these."""
        on_down = {service.name: service.on_down for service in self.config.services}
        for member in self.members():
            if member.state is State.DOWN and on_down[member.service] is not OnDown.KEEP:
                yield member.key, on_down[member.service]
            elif member.ends_flows:
                yield member.key, OnDown.RESET
            elif member.overdue:
                yield member.key, OnDown.MOVE
            elif member.backend.sorry and not member.effective:
                # Nobody stays with the apology when there is more to be had.
                yield member.key, OnDown.RESET


def _effective_backend(member: Member) -> Backend:
    backend = member.backend
    if (backend.weight, backend.max_connections) == (member.effective, member.limit):
        return backend  # most are as they were configured
    return replace(backend, weight=member.effective, max_connections=member.limit)
