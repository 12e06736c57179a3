"""Starting the server programs on the hosts of a lab, and reading what they counted."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support import counters
from tests.support.lab import Host, Process

HTTP_PORT = 8080
ECHO_PORT = 7


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


def _start(host: Host, module: str, port: int, proto: str) -> Server:
    name = f"{host.name}-{port}-{proto}"
    socket = host.directory / f"{name}.sock"
    argv = [sys.executable, "-m", f"tests.support.{module}", "--name", host.name]
    argv += ["--port", str(port), "--counts", str(socket)]
    return Server(host, port, proto, host.popen(argv, log=f"{name}.log"), socket)
