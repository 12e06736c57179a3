"""How a program that is executed anew in the master's process finds what the one before has left running: its
children, their channels and their counters.

Values travel as JSON and descriptors by name, in the `Luggage` of `l4lb.net.handover`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Any

from l7.process.channel import Channel
from l7.process.children import Child
from l7.process.counts import Ledger
from l7.process.generation import Generation
from l7.process.kit import Belongings

Json = dict[str, Any]

_CHANNEL, _COUNTERS = "channel ", "counters "
"""What the names of descriptors begin with."""


def dump_generation(generation: Generation) -> Json:
    """A generation in plain values."""
    return {
        "ledger": generation.ledger.dump(),
        "steward": generation.steward.pid if generation.steward else None,
        # Told to be carried, which its steward may have done already: it says so on its channel.
        "is_carried": generation.is_carried,
        "workers": [[child.number, child.pid] for child in generation.workers.values()],
    }


def descriptors_of(generation: Generation) -> dict[str, int]:
    """The descriptors that belong to it."""
    channels = {f"{_CHANNEL}{child.pid}": child.channel.fileno() for child in generation.children()}
    return channels | {f"{_COUNTERS}{generation.number}": generation.ledger.counters.descriptor}


def load_generation(dumped: Json, descriptors: Mapping[str, int], belongings: Belongings) -> Generation:
    """The generation again; its processes go on, but cannot be replaced by others like them."""
    counters = descriptors[f"{_COUNTERS}{dumped['ledger']['number']}"]
    generation = Generation(Ledger.load(dumped["ledger"], counters), None, belongings)
    generation.is_carried = dumped.get("is_carried", False)
    if dumped["steward"] is not None:
        generation.steward = _child(dumped["steward"], descriptors)
    for number, pid in dumped["workers"]:
        generation.workers[number] = _child(pid, descriptors, number)
    return generation


def _child(pid: int, descriptors: Mapping[str, int], number: int = 0) -> Child:
    channel = Channel(socket.socket(fileno=descriptors[f"{_CHANNEL}{pid}"]))
    return Child(pid, channel, time.monotonic(), number)
