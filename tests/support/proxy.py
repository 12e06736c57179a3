"""`l7lb` and servers behind it, as programs of their own on loopback addresses that nobody else uses.

No root is needed. Every test has an address of 127.0.0.0/8 by chance, so that ports may be the usual ones and
tests may run beside one another.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from l4lb.errors import L4lbError
from l4lb.net.client import Client
from tests.support import counters
from tests.support.lab import ROOT, LabError, wait_for

PROGRAM = ROOT / ".venv/bin/l7lb"
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 30.0

_chance = random.Random(os.getpid() ^ int.from_bytes(os.urandom(4), "big"))


def loopback_address() -> str:
    """An address of this host that nobody else is likely to use."""
    return f"127.{_chance.randrange(1, 255)}.{_chance.randrange(256)}.{_chance.randrange(1, 255)}"


@dataclass
class Program:
    """A program that runs until it is stopped; what it writes is in `log`."""

    process: subprocess.Popen[Any]
    log: Path

    def output(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(errors="replace")

    def check_running(self) -> None:
        """LabError, with the end of its output, if it has ended."""
        if self.process.poll() is not None:
            raise LabError(f"it ended with {self.process.returncode}: {self.output()[-2000:]}")

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it, by force if it must be; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


def start_program(argv: Sequence[str | Path], log: Path, **kw: Any) -> Program:
    """Starts a program."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(word) for word in argv],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **kw,
        )
    return Program(process, log)


@dataclass
class Origin(Program):
    """A server behind the proxy: tests/support/http_server.py."""

    name: str
    endpoint: str
    counts_path: Path

    def counts(self) -> dict[str, int]:
        """What it counted: `connections`, `requests`, `bytes`."""
        self.check_running()
        return counters.read(self.counts_path)


@dataclass
class Proxy(Program):
    """A running `l7lb run`."""

    config: Path
    socket: Path

    @property
    def client(self) -> Client:
        """Its admin socket."""
        return Client(self.socket, "l7lb")

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command of `l7lb` against it."""
        return run_command("--socket", str(self.socket), *words, check=check)

    def status(self) -> dict[str, Any]:
        """What `l7lb status --json` prints."""
        answer: dict[str, Any] = self.client.get("/status")
        return answer

    def backends(self) -> dict[str, dict[str, Any]]:
        """The rows of `l7lb backends ls --json`, by backend."""
        return {row["backend"]: row for row in self.client.rows("/backends")}

    def write(self, config: dict[str, Any] | str) -> None:
        """Writes another configuration; `reload` reads it."""
        write_config(self.config, config)

    def reload(self) -> dict[str, Any]:
        """Reads the configuration anew."""
        answer: dict[str, Any] = self.client.post("/reload")
        return answer

    def wait_generation(self, number: int) -> None:
        """Waits until that generation is in charge."""

        def is_there() -> bool:
            self.check_running()
            try:
                status = self.status()
            except L4lbError:
                return False
            return bool(status["ready"]) and status["generation"] >= number

        wait_for(is_there, READY_TIMEOUT_S, f"generation {number}; it wrote: {self.output()[-2000:]}")


@dataclass
class Site:
    """Servers, the proxies in front of them, and a directory for what they write."""

    directory: Path
    address: str = field(default_factory=loopback_address)
    programs: list[Program] = field(default_factory=list)

    def start_origin(self, name: str, port: int) -> Origin:
        """A server with that name; it listens when this returns."""
        socket = self.directory / f"{name}.counts"
        argv = [sys.executable, "-m", "tests.support.http_server", "--name", name, "--bind", self.address]
        argv += ["--port", str(port), "--counts", str(socket)]
        program = start_program(argv, self.directory / f"{name}.log")
        origin = Origin(program.process, program.log, name, f"{self.address}:{port}", socket)
        self.programs.append(origin)
        wait_for(lambda: _counts(origin), READY_TIMEOUT_S, f"{name} to be ready")
        return origin

    def start_websocket_echo(self, name: str, port: int) -> Origin:
        """A WebSocket server with that name; it listens when this returns."""
        argv = [sys.executable, "-m", "tests.support.websocket_echo", "--name", name, "--bind", self.address]
        program = start_program([*argv, "--port", str(port)], self.directory / f"{name}.log")
        origin = Origin(program.process, program.log, name, f"{self.address}:{port}", self.directory / "none")
        self.programs.append(origin)

        def listens() -> bool:
            origin.check_running()
            with socket.socket() as sock:
                return sock.connect_ex((self.address, port)) == 0

        wait_for(listens, READY_TIMEOUT_S, f"{name} to listen")
        return origin

    def start_proxy(self, config: dict[str, Any] | str, name: str = "l7lb", **kw: Any) -> Proxy:
        """A proxy with that configuration; it serves when this returns."""
        path, socket = self.directory / f"{name}.yaml", self.directory / f"{name}.sock"
        write_config(path, config)
        argv: list[str | Path] = [PROGRAM, "--socket", socket, "run", "-c", path]
        program = start_program(argv, self.directory / f"{name}.log", **kw)
        proxy = Proxy(program.process, program.log, path, socket)
        self.programs.append(proxy)
        proxy.wait_generation(1)
        return proxy

    def close(self) -> None:
        """Ends everything, the newest first."""
        for program in reversed(self.programs):
            program.stop()


def run_command(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs `l7lb` with these words; LabError where it fails and `check` is set."""
    done = subprocess.run(
        [PROGRAM, *words], text=True, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
    if check and done.returncode:
        raise LabError(f"l7lb {' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return done


def write_config(path: Path, config: dict[str, Any] | str) -> None:
    """Writes a configuration in one step: YAML text, or the content of the `l7` section."""
    # Once through JSON, so that values which stand in several places do not become aliases.
    text = config if isinstance(config, str) else yaml.safe_dump(json.loads(json.dumps({"l7": config})))
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def _counts(origin: Origin) -> bool:
    origin.check_running()
    try:
        counters.read(origin.counts_path)
    except (OSError, json.JSONDecodeError):
        return False
    return True
