"""A daemon with thousands of backends, all of them addresses of the lab's one backend host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.bench import ours
from tests.support.lab import Lab, Process

NETWORK = "10.9.0.0/16"
"""Whose every address is the backend host's."""
FIRST_PORT = 10_000
"""The first service's, at `ours.VIP`; each has one of its own."""
READY_TIMEOUT_S = 60.0
Json = dict[str, Any]


def configuration(
    services: int, backends: int, port: int, *, more: Mapping[str, Any] | None = None, protocol: str = "tcp"
) -> Json:
    """So many services, each with so many backends of its own at `port`. `more` are keys of every service."""
    return {
        "l4": {
            "hash_key": bytes(range(16)).hex(),
            "services": [
                {
                    "name": f"s{service}",
                    "listen": f"{ours.VIP}:{FIRST_PORT + service}/{protocol}",
                    "backends": [
                        {"address": f"{address(service * backends + n)}:{port}", "weight": 1 + n % 3}
                        for n in range(backends)
                    ],
                    **(more or {}),
                }
                for service in range(services)
            ],
        }
    }


def address(number: int) -> str:
    """One of the addresses of `NETWORK`."""
    return f"10.9.{1 + number // 250}.{1 + number % 250}"


def prepare(lab: Lab) -> None:
    """Gives the first backend host all of `NETWORK`."""
    host = lab.backends[0]
    host.run(["ip", "route", "add", "local", NETWORK, "dev", "lo"])
    lab.gateway.run(["ip", "route", "add", NETWORK, "via", host.v4])


@contextlib.contextmanager
def daemon(lab: Lab, config: Json) -> Iterator[tuple[Process, Path]]:
    """`l4lb run` with this configuration, ready; the process and its admin socket."""
    process, socket = ours.start_with(lab, config)
    try:
        ours.wait_ready(process, socket, READY_TIMEOUT_S)
        yield process, socket
    finally:
        process.stop(timeout=READY_TIMEOUT_S)
