"""Starting the server programs on the hosts of a lab, and reading what they counted."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import counters
from tests.support.lab import ROOT, Host, Process, wait_for

HTTP_PORT = 8080
ECHO_PORT = 7
GUE_PORT = 6080
DECAPSULATOR_DEVICE = "decap0"
READY_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Server:
    """A server program that runs on a host of the lab."""

    host: Host
    port: int
    proto: str
    process: Process
    socket: Path

    def counts(self) -> dict[str, int]:
        """What it counted: HTTP `connections`, `requests`, `bytes`; UDP `datagrams`, `peers`, `bytes`."""
        self.process.check_running()
        return counters.read(self.socket)

    def wait_ready(self) -> None:
        """Wait until it listens."""
        self.host.wait_listening(self.port, self.proto, process=self.process)


def start_http(host: Host, port: int = HTTP_PORT) -> Server:
    """Start an HTTP server named after the host; `wait_ready` before using it."""
    return _start(host, "http_server", port, "tcp")


def start_echo(host: Host, port: int = ECHO_PORT) -> Server:
    """Start a UDP echo server named after the host; `wait_ready` before using it."""
    return _start(host, "udp_echo", port, "udp")


@dataclass(frozen=True)
class Decapsulator:
    """The program that takes packets out of tunnels on a host of the lab (tests/support/decapsulator.py)."""

    process: Process
    socket: Path
    record: Path

    def counts(self) -> dict[str, int]:
        """What it counted: `ipip`, `gue`, `refused`, `bytes`."""
        self.process.check_running()
        return counters.read(self.socket)

    def seen(self) -> list[dict[str, Any]]:
        """Every packet so far, as the program describes them."""
        return [json.loads(line) for line in self.record.read_text().splitlines()]

    def wait_ready(self) -> None:
        """Wait until its device and sockets stand."""

        def ready() -> bool:
            self.process.check_running()
            return "ready" in self.process.output()

        wait_for(ready, READY_TIMEOUT_S, f"{self.process.shown} to be ready")


def start_decapsulator(host: Host, gue_port: int = GUE_PORT) -> Decapsulator:
    """Start one on the device DECAPSULATOR_DEVICE; `wait_ready` before using it."""
    name = f"{host.name}-decapsulator"
    socket, record = host.directory / f"{name}.sock", host.directory / f"{name}.jsonl"
    argv = [sys.executable, "-m", "tests.support.decapsulator", "--device", DECAPSULATOR_DEVICE]
    argv += ["--gue-port", str(gue_port), "--counts", str(socket), "--record", str(record)]
    return Decapsulator(host.popen(argv, log=f"{name}.log"), socket, record)


def real_server(host: Host, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `l4lb real-server` on a host, with a journal of the host's own."""
    program = ROOT / ".venv/bin/l4lb"
    socket = host.directory / f"{host.name}.sock"
    return host.run([program, "--socket", socket, "real-server", *words], check=check)


def _start(host: Host, module: str, port: int, proto: str) -> Server:
    name = f"{host.name}-{port}-{proto}"
    socket = host.directory / f"{name}.sock"
    argv = [sys.executable, "-m", f"tests.support.{module}", "--name", host.name]
    argv += ["--port", str(port), "--counts", str(socket)]
    return Server(host, port, proto, host.popen(argv, log=f"{name}.log"), socket)
