"""What the steward knows of every backend: the file, operators' wishes, checks, and what workers found out.

Pure; times are seconds of the clock that is handed in. Workers are told by messages: all of them to a new
worker (`all_messages`), those of one backend after a change (`messages`).

What an operator changed stays over reloads, as what checks found does: a backend that was added or removed
by a command is so until the program stops, a weight until the file gives another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from l4lb.control.member import Admin
from l4lb.errors import L4lbError
from l4lb.model import Address
from l7.model import Backend, BackendAddress, L7Config

Json = dict[str, Any]
Key = tuple[str, str]
"""Names of the pool and the backend."""
Endpoint = tuple[str, int]


@dataclass(slots=True)
class Member:
    """One backend with all that is known of it."""

    pool: str
    backend: Backend
    admin: Admin = Admin.ENABLED
    up: bool = True
    why: str = "not checked yet"
    since_s: float | None = None
    weight: int | None = None
    """An operator's or a check's weight in place of the configured one."""
    spare: int | None = None
    """Of one that was added by a command: the place of its counters among those that the file has not."""
    endpoints: list[Endpoint] = field(default_factory=list)
    """What its name resolves to, without those that checks found down."""
    ejections: dict[int, tuple[str, float]] = field(default_factory=dict)
    """Workers (by process) whose own requests took it out: why, and until when."""
    ejected_before: tuple[str, float] | None = None
    """The same of an earlier generation, whose workers' word holds for those that come."""

    @property
    def key(self) -> Key:
        """Its identity."""
        return self.pool, self.backend.name

    @property
    def full_weight(self) -> int:
        """Its weight as it is wished now."""
        return self.backend.weight if self.weight is None else self.weight

    def ejected(self, now_s: float) -> list[str]:
        """Why workers use it no more, of those that do not."""
        return [why for why, until_s in self.ejections.values() if now_s < until_s]

    @property
    def last_ejection(self) -> tuple[str, float] | None:
        """Of those that are known the one that lasts longest; it may be over."""
        known = [*self.ejections.values(), *([self.ejected_before] if self.ejected_before else [])]
        return max(known, key=lambda one: one[1], default=None)

    @property
    def state(self) -> str:
        """For workers: `up`, `down`, `draining` or `disabled`."""
        if self.admin is not Admin.ENABLED:
            return str(self.admin)
        return "up" if self.up else "down"

    def messages(self) -> Iterator[Json]:
        """What a worker has to know of it."""
        names = {"pool": self.pool, "backend": self.backend.name}
        if isinstance(self.backend.address.host, str):
            yield {"do": "endpoints", **names, "addresses": [list(one) for one in self.endpoints]}
        yield {"do": "state", **names, "state": self.state, "weight": self.full_weight, "why": self.why}

    def arrival(self) -> Json:
        """How a worker is told of one that its configuration does not have."""
        address = self.backend.address
        return {
            "do": "add",
            "pool": self.pool,
            "backend": self.backend.name,
            "host": str(address.host),
            "port": address.port,
            "is_name": isinstance(address.host, str),
            "weight": self.full_weight,
            "spare": self.spare,
        }


@dataclass(slots=True)
class Roster:
    """All backends of a configuration."""

    config: L7Config
    _pools: dict[str, dict[str, Member]] = field(default_factory=dict)
    _removed: set[Key] = field(default_factory=set)

    def __post_init__(self) -> None:
        for pool in self.config.pools:
            members = (Member(pool.name, backend) for backend in pool.backends)
            self._pools[pool.name] = {member.backend.name: member for member in members}

    def members(self) -> Iterator[Member]:
        """Every backend."""
        return (member for members in self._pools.values() for member in members.values())

    def of(self, pool: str) -> Mapping[str, Member]:
        """The backends of a pool by name. L4lbError where there is no such pool."""
        if pool not in self._pools:
            raise L4lbError(f"there is no pool {pool}; there are {', '.join(self._pools) or 'none'}")
        return self._pools[pool]

    def find(self, key: Key) -> Member | None:
        """The backend, or None where it is gone."""
        return self._pools.get(key[0], {}).get(key[1])

    def member(self, pool: str, backend: str) -> Member:
        """L4lbError where there is none, with the names that there are."""
        members = self.of(pool)
        if backend not in members:
            raise L4lbError(f"pool {pool} has no backend {backend}; it has {', '.join(members)}")
        return members[backend]

    # -- changes

    def add(self, pool: str, address: BackendAddress, weight: int, now_s: float) -> Member:
        """A backend that the pool does not have. L4lbError where it has it."""
        members = self.of(pool)
        backend = Backend(address, weight)
        if backend.name in members:
            raise L4lbError(f"pool {pool} has a backend {backend.name} already")
        in_file = self._configured(pool, backend.name)
        if in_file is None:
            taken = {member.spare for member in members.values()}
            spare = next(number for number in range(len(members) + 1) if number not in taken)
        else:
            spare = None
        member = Member(pool, in_file or backend, why="added by an operator", since_s=now_s, spare=spare)
        member.weight = weight if in_file else None
        self._pools[pool][backend.name] = member
        self._removed.discard(member.key)
        return member

    def remove(self, pool: str, backend: str) -> Member:
        """Takes a backend out of its pool. L4lbError where it is the last."""
        member = self.member(pool, backend)
        if len(self._pools[pool]) == 1:
            raise L4lbError(f"{backend} is the last backend of pool {pool}; disable it instead")
        del self._pools[pool][backend]
        if self._configured(pool, backend) is not None:
            self._removed.add(member.key)
        return member

    def set_admin(self, pool: str, backend: str, admin: Admin, now_s: float) -> Member:
        """An operator's wish."""
        member = self.member(pool, backend)
        if member.admin is not admin:
            member.admin, member.why, member.since_s = admin, "by an operator", now_s
        return member

    def set_weight(self, pool: str, backend: str, weight: int | None) -> Member:
        """A weight in place of the configured one; None gives it back."""
        member = self.member(pool, backend)
        member.weight = weight
        return member

    def report(self, key: Key, *, up: bool, why: str, now_s: float) -> bool:
        """What checks say; whether it changes something."""
        member = self.find(key)
        if member is None:
            return False
        changed = member.up is not up
        if changed or member.since_s is None:
            member.up, member.why, member.since_s = up, why, now_s
        if changed and up:
            # Workers acquit it, too.
            member.ejections.clear()
            member.ejected_before = None
        return changed

    def _configured(self, pool: str, backend: str) -> Backend | None:
        found = next(one for one in self.config.pools if one.name == pool)
        return next((one for one in found.backends if one.name == backend), None)

    # -- telling workers

    def all_messages(self) -> Iterator[Json]:
        """Everything that a worker of this configuration has to know when it begins."""
        for pool, backend in self._removed:
            yield {"do": "remove", "pool": pool, "backend": backend}
        for member in self.members():
            if member.spare is not None:
                yield member.arrival()
            yield from member.messages()
            if member.last_ejection is not None:
                why, until_s = member.last_ejection
                names = {"pool": member.pool, "backend": member.backend.name}
                yield {"do": "eject", **names, "why": why, "until_s": until_s}

    # -- handing on

    def dump(self) -> Json:
        """What is known besides the configuration, for `restore`."""
        return {
            "members": [
                {
                    "pool": member.pool,
                    "host": str(member.backend.address.host),
                    "port": member.backend.address.port,
                    "is_name": isinstance(member.backend.address.host, str),
                    "configured": member.backend.weight,
                    "weight": member.weight,
                    "spare": member.spare,
                    "admin": str(member.admin),
                    "up": member.up,
                    "why": member.why,
                    "since_s": member.since_s,
                    "endpoints": member.endpoints,
                    "ejected": member.last_ejection,
                }
                for member in self.members()
            ],
            "removed": sorted(self._removed),
        }

    def restore(self, dumped: Json) -> None:
        """Takes over what another roster knew, where the pool is still there."""
        for entry in dumped["members"]:
            members = self._pools.get(entry["pool"])
            if members is None:
                continue
            address = BackendAddress(_host(entry), entry["port"])
            member = members.get(address.name)
            if member is None:
                if entry["spare"] is None:
                    continue  # the file has it no more
                member = Member(entry["pool"], Backend(address, entry["configured"]), spare=entry["spare"])
                members[address.name] = member
            member.admin = Admin(entry["admin"])
            member.up, member.why, member.since_s = entry["up"], entry["why"], entry["since_s"]
            member.endpoints = [(host, port) for host, port in entry["endpoints"]]
            member.ejected_before = tuple(entry["ejected"]) if entry.get("ejected") else None
            if member.backend.weight == entry["configured"]:
                member.weight = entry["weight"]
        for pool, backend in dumped["removed"]:
            if self.find((pool, backend)) is not None and len(self._pools[pool]) > 1:
                del self._pools[pool][backend]
                self._removed.add((pool, backend))


def _host(entry: Json) -> Address | str:
    return entry["host"] if entry["is_name"] else ip_address(entry["host"])
