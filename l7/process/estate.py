"""What outlasts generations: sockets, remembered sessions, what the steward knew, and a few numbers.

All of it can be handed over to another program in the same process (`descriptors` and `dump`, `adopt`).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from l4lb.errors import L4lbError
from l4lb.net.adminsite import listen_locally
from l7.model import L7Config
from l7.process.blueprint import Blueprint
from l7.process.channel import Json
from l7.process.children import Closable
from l7.process.memory import SharedMemory
from l7.process.sockets import Endpoint, Sockets, bind

_SOCKET, _SESSIONS = "socket ", "sessions "
"""What the names of descriptors begin with."""

Metrics = tuple[Endpoint, socket.socket]


@dataclass(slots=True)
class Provision:
    """The sockets that one generation needs, and which of them were made for it."""

    made: list[socket.socket]
    metrics: Metrics | None


@dataclass(slots=True)
class Estate:
    """The master's belongings."""

    config_path: Path
    socket_path: Path
    started_s: float = field(default_factory=time.monotonic)
    sockets: Sockets = field(default_factory=Sockets)
    admin: socket.socket | None = None
    metrics: Metrics | None = None
    sessions: dict[str, SharedMemory] = field(default_factory=dict)
    state: Json | None = None
    """What the steward knew last; the next one begins with it."""
    last_number: int = 0
    """Of a generation."""
    restarts: int = 0

    def open_admin(self) -> None:
        """Makes the admin socket. L4lbError where another daemon answers there."""
        refuse_second(self.socket_path)
        self.admin = listen_locally(self.socket_path)

    def provide(self, config: L7Config, workers: int) -> Provision:
        """Binds what `config` needs. L4lbError, and then nothing was made."""
        made = self.sockets.provide(config, workers)
        if config.metrics is None:
            return Provision(made, None)
        if self.metrics is not None and self.metrics[0] == config.metrics:
            return Provision(made, self.metrics)
        try:
            sock = bind(*config.metrics)
        except L4lbError:
            self.sockets.discard(made)
            raise
        sock.listen()  # who comes early waits until the steward leads
        return Provision(made, (config.metrics, sock))

    def take_back(self, provision: Provision, blueprint: Blueprint) -> None:
        """Closes what was made for a generation that does not come."""
        self.sockets.discard(provision.made)
        if provision.metrics is not None and provision.metrics is not self.metrics:
            provision.metrics[1].close()
        _close_others(blueprint.sessions, self.sessions)

    def settle(self, provision: Provision, blueprint: Blueprint) -> None:
        """A generation serves: what it does not need is closed."""
        if self.metrics is not None and self.metrics is not provision.metrics:
            self.metrics[1].close()
        self.metrics = provision.metrics
        _close_others(self.sessions, blueprint.sessions)
        self.sessions = blueprint.sessions
        self.sockets.retire(blueprint.config)

    def everything(self) -> Iterator[Closable]:
        """All sockets."""
        yield from self.sockets
        if self.admin is not None:
            yield self.admin
        if self.metrics is not None:
            yield self.metrics[1]

    def close(self) -> None:
        """Removes the admin socket."""
        if self.admin is not None:
            self.admin.close()
            self.socket_path.unlink(missing_ok=True)

    # -- handing over

    def dump(self) -> Json:
        """In plain values."""
        return {
            "steward": self.state,
            "started_s": self.started_s,
            "last_number": self.last_number,
            "restarts": self.restarts,
            "metrics": [str(self.metrics[0][0]), self.metrics[0][1]] if self.metrics else None,
        }

    def descriptors(self) -> dict[str, int]:
        """The descriptors by name."""
        assert self.admin is not None
        found = {f"{_SOCKET}{name}": number for name, number in self.sockets.descriptors().items()}
        found |= {f"{_SESSIONS}{name}": memory.descriptor for name, memory in self.sessions.items()}
        found["admin"] = self.admin.fileno()
        if self.metrics is not None:
            found["metrics"] = self.metrics[1].fileno()
        return found

    def adopt(self, dumped: Mapping[str, Any], descriptors: Mapping[str, int]) -> None:
        """Takes over what the program before had."""
        self.state = dumped["steward"]
        self.started_s = dumped["started_s"]
        self.last_number = dumped["last_number"]
        self.restarts = dumped["restarts"]
        self.sockets.adopt(_beginning_with(_SOCKET, descriptors))
        sessions = _beginning_with(_SESSIONS, descriptors)
        self.sessions = {name: SharedMemory.adopt(number) for name, number in sessions.items()}
        self.admin = socket.socket(fileno=descriptors["admin"])
        if dumped["metrics"]:
            address, port = dumped["metrics"]
            self.metrics = (ip_address(address), port), socket.socket(fileno=descriptors["metrics"])


def refuse_second(path: Path) -> None:
    """L4lbError where a daemon answers on that admin socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return
    raise L4lbError(f"{path}: a daemon is running already; `l7lb status` shows it, or give another --socket")


def _close_others(memories: Mapping[str, SharedMemory], kept: Mapping[str, SharedMemory]) -> None:
    for name, memory in memories.items():
        if kept.get(name) is not memory:
            memory.close()


def _beginning_with(prefix: str, descriptors: Mapping[str, int]) -> dict[str, int]:
    """Those whose names begin so, without it."""
    return {
        name.removeprefix(prefix): number for name, number in descriptors.items() if name.startswith(prefix)
    }
