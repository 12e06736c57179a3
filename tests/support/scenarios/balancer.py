"""`l4lb` as an operator runs it: the installed program, in the gateway, asked through its commands."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from l4lb.errors import NoDaemonError
from l4lb.net.client import Client
from tests.support.lab import ROOT, Host, LabError, Process, wait_for
from tests.support.scenarios.base import IncapableError

PROGRAM = ROOT / ".venv/bin/l4lb"
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 20.0
INCAPABLE = 3


def write_config(source: Path, target: Path, datapath: str | None) -> None:
    """Copy a configuration, with another datapath if one is wished."""
    if datapath is None:
        shutil.copyfile(source, target)
        return
    config = yaml.safe_load(source.read_text())
    config["l4"]["datapath"] = datapath
    target.write_text(yaml.safe_dump(config, sort_keys=False))


@dataclass(frozen=True)
class Balancer:
    """A running `l4lb run`."""

    host: Host
    process: Process
    socket: Path

    def command(self, *words: str) -> str:
        """Run a command of `l4lb` against this daemon and return what it prints."""
        argv: list[str | Path] = [PROGRAM, "--socket", self.socket, *words]
        return self.host.run(argv, timeout=COMMAND_TIMEOUT_S).stdout

    def status(self) -> dict[str, Any]:
        """What `l4lb status --json` prints, asked of the socket: a program's start takes longer than the
        answer."""
        answer: dict[str, Any] = Client(self.socket).get("/status")
        return answer

    def backends(self) -> list[dict[str, Any]]:
        """What `l4lb backends ls --json` prints, a row for each backend of each service."""
        return list(Client(self.socket).rows("/backends"))

    def flows(self, service: str) -> list[dict[str, Any]]:
        """What `l4lb flows ls --json` prints, a row for each flow of a service."""
        return list(Client(self.socket).rows("/flows", service=service))

    def stop(self) -> None:
        """Stop it as an init system does; LabError unless it ends well and in time."""
        code = self.process.stop(timeout=STOP_TIMEOUT_S)
        if code != 0:
            raise LabError(f"`l4lb run` ended with {code} on SIGTERM: {tail(self.process)}")


def tail(process: Process, lines: int = 5) -> str:
    """The last lines that a program wrote, on one line."""
    return " | ".join(process.output().splitlines()[-lines:]) or "it said nothing"


def start(host: Host, config: Path) -> Balancer:
    """Start `l4lb run` on a host and wait until it says that it is ready."""
    if not PROGRAM.exists():
        raise LabError(f"{PROGRAM} is not there: run ./scripts/setup")
    socket = host.directory / "l4lb.sock"
    process = host.popen([PROGRAM, "--socket", socket, "run", "-c", config], log="l4lb.log")
    balancer = Balancer(host, process, socket)

    def ready() -> bool:
        process.check_running()
        try:
            return bool(balancer.status()["ready"])
        except NoDaemonError:
            return False

    try:
        wait_for(ready, READY_TIMEOUT_S, "`l4lb run` to be ready")
    except LabError as error:
        if process.poll() == INCAPABLE:
            raise IncapableError(str(error)) from error
        if process.returncode is None:
            raise LabError(f"{error}; it wrote: {tail(process)}") from error
        raise
    return balancer
