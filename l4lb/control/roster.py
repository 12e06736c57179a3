"""Who may take new flows, and how many: what operators, checks and time say of every backend.

The configuration says what a backend's weight is, an operator may drain or disable it or give it another
weight, a check may find it down, and one that comes up starts slowly. From all this follows an *effective*
weight, and from the effective weights of a service what its packets are decided by. A weight of 0 takes no
new flows; known ones stay.

Order of the rules, for one service:

1. Drained and disabled backends take nothing.
2. Of the others, those that checks find down take nothing, unless fewer than `panic_threshold` of them
would be left: then the checks are not believed, and all are used.
3. Backups take nothing while an ordinary backend is left; then those of the lowest number that work.
4. A backend that has come up less than `slow_start_s` ago takes part of its weight: a tenth at first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from l4lb.errors import L4lbError
from l4lb.model import Backend, L4Config, OnDown, Service

SLOW_STEPS = 10
"""In so many steps the weight of a starting backend grows."""
MAX_WEIGHT = 65535

Key = tuple[str, str]
"""Names of the service and the backend."""


class Admin(StrEnum):
    """What an operator wants of a backend."""

    ENABLED = "enabled"
    DRAINING = "draining"
    DISABLED = "disabled"


class State(StrEnum):
    """What a backend is, for people."""

    UP = "up"
    STARTING = "starting"
    BACKUP = "backup"
    DOWN = "down"
    DRAINING = "draining"
    DISABLED = "disabled"


@dataclass(slots=True)
class Member:
    """One backend with all that is known of it. Times are seconds of the clock that is handed in."""

    service: str
    backend: Backend
    admin: Admin = Admin.ENABLED
    up: bool = True
    out: bool = False
    """Taken out by passive checks."""
    weight: int | None = None
    """An operator's or a check's weight in place of the configured one."""
    added: bool = False
    """At run time; the configuration does not know it."""
    up_since: float | None = None
    """When it came up, while it starts slowly."""
    since: float = 0.0
    why: str = "not checked yet"
    effective: int = 0
    state: State = State.UP
    overdue: bool = False
    """It drains for longer than its service waits."""

    @property
    def key(self) -> Key:
        """Its identity."""
        return self.service, self.backend.name

    @property
    def full_weight(self) -> int:
        """Its weight when it works and has started."""
        return self.backend.weight if self.weight is None else self.weight

    @property
    def works(self) -> bool:
        """Whether the checks find nothing against it."""
        return self.up and not self.out


@dataclass(slots=True)
class Roster:
    """All backends of a configuration. Every change is followed by `settle`, which says whether weights
    changed."""

    config: L4Config
    _services: dict[str, dict[str, Member]] = field(default_factory=dict)
    """Members by service and name, in the order of the configuration; what was added at run time is
    behind."""

    def __post_init__(self) -> None:
        self.adopt(self.config)

    def adopt(self, config: L4Config) -> None:
        """Takes a new configuration: states of backends that stay are kept.

        Weights are kept where the configured one did not change. What was added or removed at run time is
        forgotten, for now the file says what there is.
        """
        before = self._services
        self._services = {}
        for service in config.services:
            known = before.get(service.name, {})
            members = self._services[service.name] = {}
            for backend in service.backends:
                member = known.get(backend.name) or Member(service.name, backend)
                if member.backend.weight != backend.weight:
                    member.weight = None
                member.backend, member.added = backend, False
                members[backend.name] = member
        self.config = config

    def copy(self) -> Roster:
        """A roster of its own with the same content."""
        twin = Roster(replace(self.config, services=()))
        twin.config = self.config
        twin._services = {
            service: {name: replace(member) for name, member in members.items()}
            for service, members in self._services.items()
        }
        return twin

    def dump(self) -> list[dict[str, Any]]:
        """What is known of every backend besides the configuration, for `restore`."""
        return [
            {
                "service": member.service,
                "backend": member.backend.name,
                "admin": str(member.admin),
                "up": member.up,
                "out": member.out,
                "weight": member.weight,
                "since": member.since,
                "why": member.why,
            }
            for member in self.members()
        ]

    def restore(self, dumped: Iterable[Mapping[str, Any]]) -> None:
        """Takes over what another roster knew of the backends that are here, too."""
        for entry in dumped:
            member = self._services.get(entry["service"], {}).get(entry["backend"])
            if member is not None:
                member.admin = Admin(entry["admin"])
                member.up, member.out, member.weight = entry["up"], entry["out"], entry["weight"]
                member.since, member.why = entry["since"], entry["why"]

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

    def add(self, service: str, backend: Backend) -> None:
        """A backend that the configuration does not know. L4lbError where it is there."""
        if backend.name in self.of(service):
            raise L4lbError(f"service {service} has a backend {backend.name} already")
        self._services[service][backend.name] = Member(service, backend, added=True, why="added at run time")

    def remove(self, service: str, backend: str) -> None:
        """Takes a backend out of its service. L4lbError where it is the last."""
        self.member(service, backend)
        if len(self.of(service)) == 1:
            raise L4lbError(f"{backend} is the last backend of service {service}; disable it instead")
        del self._services[service][backend]

    def set_admin(self, service: str, backend: str, admin: Admin, now_s: float) -> None:
        """An operator's wish."""
        member = self.member(service, backend)
        if member.admin is not admin:
            member.admin, member.since, member.why = admin, now_s, "by an operator"

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
        """Computes states and effective weights; true where an effective weight changed."""
        changed = False
        for service in self.config.services:
            members = list(self.of(service.name).values())
            for member, state, weight in _judge(service, members, now_s):
                overdue = state is State.DRAINING and now_s - member.since >= service.drain_timeout_s
                changed |= (member.effective, member.overdue) != (weight, overdue)
                member.state, member.effective, member.overdue = state, weight, overdue
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
        """The configuration with effective weights, and with what was added and removed at run time."""
        services = tuple(
            replace(
                service,
                backends=tuple(
                    replace(member.backend, weight=member.effective)
                    for member in self._services[service.name].values()
                ),
            )
            for service in self.config.services
        )
        return replace(self.config, services=services)

    def ended(self) -> Iterator[tuple[Key, OnDown]]:
        """Backends whose flows cannot go on, with what shall become of these."""
        on_down = {service.name: service.on_down for service in self.config.services}
        for member in self.members():
            if member.state is State.DOWN and on_down[member.service] is not OnDown.KEEP:
                yield member.key, on_down[member.service]
            elif member.overdue:
                yield member.key, OnDown.MOVE


def _judge(service: Service, members: list[Member], now_s: float) -> Iterator[tuple[Member, State, int]]:
    """State and effective weight of each backend of a service."""
    wanted = [member for member in members if member.admin is Admin.ENABLED]
    ordinary = [member for member in wanted if not member.backend.backup]
    working = [member for member in ordinary if member.works]
    panic = len(working) < service.panic_threshold * len(ordinary)
    used = set(map(id, ordinary if panic else working))
    if not used:
        backups = [member for member in wanted if member.backend.backup and member.works]
        first = min((member.backend.backup for member in backups), default=0)
        used = {id(member) for member in backups if member.backend.backup == first}
    # Parts of a weight need room below 1; the others are scaled alike, so that the proportions stay.
    starts = {id(m): part for m in members if id(m) in used and (part := _started(service, m, now_s)) < 1}
    scale = SLOW_STEPS if starts else 1
    for member in members:
        part = starts.get(id(member), 1.0)
        weight = (
            min(max(round(member.full_weight * scale * part), 1), MAX_WEIGHT) if member.full_weight else 0
        )
        if member.admin is Admin.DRAINING:
            yield member, State.DRAINING, 0
        elif member.admin is Admin.DISABLED:
            yield member, State.DISABLED, 0
        elif id(member) in used:
            yield member, State.STARTING if part < 1 else State.UP, weight
        else:
            yield member, State.BACKUP if member.works else State.DOWN, 0


def _started(service: Service, member: Member, now_s: float) -> float:
    """How much of its weight a backend has: in tenths, from the moment it came up."""
    if member.up_since is None or not service.slow_start_s:
        return 1.0
    step = int((now_s - member.up_since) / service.slow_start_s * SLOW_STEPS)
    if step >= SLOW_STEPS:
        member.up_since = None
        return 1.0
    return (step + 1) / SLOW_STEPS
