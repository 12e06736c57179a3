"""l4lb itself as a side: the real daemon, with a configuration made for the benchmark."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l4lb.errors import L4lbError, NoDaemonError
from l4lb.net.client import Client
from tests.support.lab import Lab, Process, wait_for

VIP = "203.0.113.10"
QUEUE_LENGTH = 16384
READY_TIMEOUT_S = 15.0
_STOP_TIMEOUT_S = 10.0
L4LB = [sys.executable, "-c", "from l4lb.cli.main import main; main()"]


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the configuration; backends are `address:port`, or `address` where ports are kept."""

    name: str
    listen: str
    backends: Sequence[str]
    forward: str = "nat"
    on_failure: str = "drop"


@contextlib.contextmanager
def daemon(
    lab: Lab,
    datapath: str,
    services: Sequence[Service],
    *,
    workers: int | str = "auto",
    queue: int = QUEUE_LENGTH,
    prefix: Sequence[str] = (),
) -> Iterator[Process]:
    """`l4lb run` on the gateway, ready until the end; `prefix` stands before the command."""
    process, socket = start_daemon(lab, datapath, services, workers=workers, queue=queue, prefix=prefix)
    try:
        wait_ready(process, socket)
        yield process
    finally:
        process.stop(timeout=_STOP_TIMEOUT_S)


def start_daemon(
    lab: Lab,
    datapath: str,
    services: Sequence[Service],
    *,
    workers: int | str = "auto",
    queue: int = QUEUE_LENGTH,
    prefix: Sequence[str] = (),
) -> tuple[Process, Path]:
    """Starts `l4lb run` and does not wait; returns the process and its admin socket."""
    return start_with(lab, _config(datapath, services, workers, queue), prefix=prefix)


def start_with(lab: Lab, config: Mapping[str, Any], *, prefix: Sequence[str] = ()) -> tuple[Process, Path]:
    """The same with a configuration of any kind."""
    socket = socket_path(lab)
    argv = [*prefix, *L4LB, "--socket", str(socket), "run", "-c", str(write_config(lab, config))]
    return lab.gateway.popen(argv, log="l4lb.log"), socket


def socket_path(lab: Lab) -> Path:
    """The admin socket of the daemon in this lab."""
    return lab.directory / "l4lb.sock"


def write_config(lab: Lab, config: Mapping[str, Any]) -> Path:
    """Writes the file that the daemon in this lab reads."""
    path = lab.directory / "l4lb.yaml"
    # JSON is YAML, and quotes for us.
    path.write_text(json.dumps(config, indent=1))
    return path


def wait_ready(process: Process, socket: Path, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Returns when the daemon says that it is ready; at once an error when it has ended."""

    def ready() -> bool:
        process.check_running()
        try:
            return bool(Client(socket).get("/status")["ready"])
        except NoDaemonError:
            return False

    wait_for(ready, timeout_s, "`l4lb run` to be ready")


def status(lab: Lab) -> dict[str, Any]:
    """What the daemon counts; empty where none answers."""
    try:
        found: dict[str, Any] = Client(socket_path(lab)).get("/status")
    except L4lbError:
        return {}
    return found


def _config(datapath: str, services: Sequence[Service], workers: int | str, queue: int) -> dict[str, Any]:
    return {
        "l4": {
            "datapath": datapath,
            "workers": workers,
            "queue": {"length": queue},
            "hash_key": bytes(range(16)).hex(),
            "services": [
                {
                    "name": service.name,
                    "listen": service.listen,
                    "forward": service.forward,
                    "on_failure": service.on_failure,
                    "scheduler": "maglev",
                    "backends": list(service.backends),
                }
                for service in services
            ],
        }
    }
