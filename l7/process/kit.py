"""What the master gives its children at their fork."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from l7.process.blueprint import Blueprint
from l7.process.channel import Channel, Json
from l7.process.children import Closable
from l7.process.counts import Ledger
from l7.process.sockets import Sockets


@dataclass(slots=True)
class Belongings:
    """What the master hands on to its children. `everything` is all that it has open, so that a child can
    close what is not its own."""

    config_path: Path
    socket_path: Path
    started_s: float
    sockets: Sockets
    admin: socket.socket
    metrics: socket.socket | None
    everything: Callable[[], Iterable[Closable]]


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """The steward's end of a worker's channel, and whose it is."""

    generation: int
    number: int
    pid: int
    channel: Channel


@dataclass(slots=True)
class StewardKit:
    """All that a steward is given at its fork. `older` are the generations that still end what they have."""

    blueprint: Blueprint
    older: list[Ledger]
    channel: Channel
    workers: list[WorkerEnd]
    belongings: Belongings
    state: Json | None
