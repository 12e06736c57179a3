"""`l4lb` as an operator runs it: the installed program, in the gateway, asked through its commands."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

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
        """`l4lb status`."""
        answer: dict[str, Any] = json.loads(self.command("status", "--json"))
        return answer

    def backends(self) -> list[dict[str, Any]]:
        """`l4lb backends ls`, a row for each backend of each service."""
        return [json.loads(line) for line in self.command("backends", "ls", "--json").splitlines()]

    def flows(self, service: str) -> list[dict[str, Any]]:
        """`l4lb flows ls`, a row for each flow of a service."""
        printed = self.command("flows", "ls", "--service", service, "--limit", "100000", "--json")
        return [json.loads(line) for line in printed.splitlines()]

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
        # Asking costs a Python start: not before there is someone to ask.
        if not socket.exists():
            return False
        asked = host.run(
            [PROGRAM, "--socket", socket, "status", "--json"], check=False, timeout=COMMAND_TIMEOUT_S
        )
        return asked.returncode == 0 and bool(json.loads(asked.stdout).get("ready"))

    try:
        wait_for(ready, READY_TIMEOUT_S, "`l4lb run` to be ready")
    except LabError as error:
        if process.poll() == INCAPABLE:
            raise IncapableError(str(error)) from error
        if process.returncode is None:
            raise LabError(f"{error}; it wrote: {tail(process)}") from error
        raise
    return balancer
