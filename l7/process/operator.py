"""What operators change while the proxy runs: into the roster, and messages for the workers."""

from __future__ import annotations

from l4lb.control.member import Admin
from l4lb.control.wish import weight_of
from l4lb.errors import ConfigError
from l7.config.words import parse_backend_address
from l7.model import BackendAddress
from l7.process.channel import Json
from l7.process.roster import Key, Roster

_ADMIN = {"drain": Admin.DRAINING, "enable": Admin.ENABLED, "disable": Admin.DISABLED}
ACTIONS = (*_ADMIN, "weight", "add", "remove")


class Operator:
    """Carries out what the admin socket is asked for."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def change(self, action: str, wish: Json, now_s: float) -> tuple[Key, list[Json]]:
        """Changes a backend: which, and what workers have to hear before its state. L4lbError, and nothing
        has changed."""
        pool, backend = wish.get("pool"), wish.get("backend")
        if not isinstance(pool, str) or not isinstance(backend, str):
            raise ConfigError("backends: the names of a pool and of a backend are needed")
        if action in _ADMIN:
            return self._roster.set_admin(pool, backend, _ADMIN[action], now_s).key, []
        if action == "weight":
            return self._roster.set_weight(pool, backend, weight_of(wish)).key, []
        if action == "add":
            weight = weight_of(wish)
            member = self._roster.add(pool, _address(backend), 1 if weight is None else weight, now_s)
            return member.key, [member.arrival()]
        if action == "remove":
            member = self._roster.remove(pool, backend)
            return member.key, [{"do": "remove", "pool": pool, "backend": backend}]
        raise ConfigError(f"backends: unknown action {action}; there are {', '.join(ACTIONS)}")


def _address(text: str) -> BackendAddress:
    try:
        return parse_backend_address(text)
    except ValueError as error:
        raise ConfigError(f"backend {text}: {error}") from error
