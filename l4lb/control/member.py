"""One backend of the running configuration with all that is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from l4lb.model import Backend, Service

Key = tuple[str, str]
"""Names of the service and the backend."""


class Admin(StrEnum):
    """What an operator wants of a backend."""

    ENABLED = "enabled"
    DRAINING = "draining"
    DISABLED = "disabled"
    MAINTENANCE = "maintenance"
    """As disabled; what is known of it now says nothing of it afterwards."""


class State(StrEnum):
    """What a backend is, for people."""

    UP = "up"
    STARTING = "starting"
    BACKUP = "backup"
    WAITING = "waiting"
    """It works, and takes nothing because too few others do (`below_quorum: refuse`)."""
    SORRY = "sorry"
    """The sorry server, which is not needed now."""
    DOWN = "down"
    DRAINING = "draining"
    DISABLED = "disabled"
    MAINTENANCE = "maintenance"


@dataclass(slots=True)
class Member:
    """A backend, or the sorry server. Times are seconds of the clock that is handed in."""

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
    limit: int | None = None
    """Connections that it may have now."""
    state: State = State.UP
    ends_flows: bool = False
    """While an operator keeps it out, its flows are ended."""
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
    def is_checked(self) -> bool:
        """Whether checks are made. What a sorry server says would change nothing."""
        return self.admin in (Admin.ENABLED, Admin.DRAINING) and not self.backend.sorry

    def set_admin(self, admin: Admin, why: str, service: Service, now_s: float) -> None:
        """What is wanted of it now. After maintenance it is another server until checks have found it up."""
        if self.admin is admin:
            return
        if self.admin is Admin.MAINTENANCE and service.health is not None:
            self.up, why = False, "not checked yet after its maintenance"
        self.admin, self.since, self.why = admin, now_s, why

    def follow_file(self, was: bool, service: Service, now_s: float) -> None:
        """Goes into maintenance or out of it where the file says something else than before: `was`."""
        if was != self.backend.maintenance:
            admin = Admin.MAINTENANCE if self.backend.maintenance else Admin.ENABLED
            self.set_admin(admin, "by the configuration", service, now_s)
            self.ends_flows = False

    @property
    def works(self) -> bool:
        """Whether the checks find nothing against it."""
        return self.up and not self.out

    def forget_checks_of_before(self, service: Service) -> None:
        """What checks have found holds no longer than these are made: nobody would take it back."""
        self.up |= service.health is None
        self.out &= service.passive is not None
