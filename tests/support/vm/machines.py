"""The machines of `vagrant/`: up, down, and commands in them over ssh.

Vagrant's own state stands in `build/vm`, so that a lab of somebody else's is never touched. ssh goes through
one kept connection a machine: `vagrant ssh` would take a second for every command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.vm import box
from tests.support.vm.steps import ROOT, WORK, VmLabError, run, step

PROJECT = ROOT / "vagrant"
WHEELS = ROOT / "dist" / "wheels"
_SSH_CONFIG = WORK / "ssh_config"
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_VAGRANT_HOME = WORK / "home"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command in a machine ended with."""

    code: int
    out: str
    err: str


class Machine:
    """One machine, by its name in the Vagrantfile."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, command: str, *, check: bool = True, timeout_s: float = 120) -> str:
        """What a shell command prints, run as root. VmLabError, with what it said, if it fails."""
        answer = self.ask(command, timeout_s=timeout_s)
        if check and answer.code:
            said = (answer.err or answer.out).strip()[-2000:]
            raise VmLabError(f"{self.name}: {command!r} ended with {answer.code}: {said}")
        return answer.out

    def ask(self, command: str, *, timeout_s: float = 120) -> Answer:
        """As `run`, whatever it ends with."""
        done = subprocess.run(
            self._words(command),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def start(self, command: str, *, takes_input: bool = False) -> subprocess.Popen[str]:
        """Runs a command beside others; the caller waits for it."""
        return subprocess.Popen(
            self._words(command),
            stdin=subprocess.PIPE if takes_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def write(self, path: str, text: str) -> None:
        """Writes a file."""
        subprocess.run(
            [*self._ssh(), f"sudo tee {_quoted(path)} >/dev/null"],
            input=text,
            text=True,
            check=True,
            timeout=60,
        )

    def words(self, *command: str) -> list[str]:
        """How to enter the machine, or run a command in it, at a terminal."""
        return [*self._ssh(), "-t", f"sudo PATH={_PATH} {' '.join(map(_quoted, command)) or 'bash -l'}"]

    def forget_connection(self) -> None:
        """Ends the kept connection, before the machine is started anew."""
        subprocess.run([*self._ssh(), "-O", "exit"], capture_output=True, check=False)

    def _words(self, command: str) -> list[str]:
        return [*self._ssh(), f"sudo PATH={_PATH} bash -c {_quoted(command)}"]

    def _ssh(self) -> list[str]:
        return ["ssh", "-F", str(_SSH_CONFIG), self.name]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def environment() -> dict[str, str]:
    """What Vagrant is told by variables."""
    return {
        "VAGRANT_HOME": str(_VAGRANT_HOME),
        "VAGRANT_DOTFILE_PATH": str(WORK / "dot"),
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_BOX_UPDATE_CHECK_DISABLE": "1",
        "LAB_BOX": box.NAME,
    }


def vagrant(*words: str, check: bool = True) -> int:
    """One command of Vagrant's, in the project; its exit code."""
    return run(["vagrant", *words], env=environment(), cwd=PROJECT, check=check)


def build_wheels() -> None:
    """The wheels that the machines install from, l4lb's own made from this checkout."""
    WHEELS.mkdir(parents=True, exist_ok=True)
    for old in WHEELS.glob("l4lb-*.whl"):
        old.unlink()
    with step("building the wheels that the machines install"):
        run([sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "-w", WHEELS, ROOT])


def add_box(catalog: Path) -> None:
    """Makes the box that a catalog lists known to Vagrant."""
    _VAGRANT_HOME.mkdir(parents=True, exist_ok=True)
    known = subprocess.run(
        ["vagrant", "box", "list"],
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    ).stdout
    if f"{box.NAME} " not in known or box.version() not in known:
        with step("adding the box"):
            vagrant("box", "add", "--force", str(catalog))


def up() -> None:
    """Brings the machines up and provisions them anew; those that run already are brought up to date."""
    with step("vagrant up"):
        vagrant("up", "--provider=libvirt")
    write_ssh_config()


def write_ssh_config() -> None:
    """Asks Vagrant how the machines are reached."""
    shown = subprocess.run(
        ["vagrant", "ssh-config"],
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    )
    if shown.returncode:
        raise VmLabError(
            f"vagrant ssh-config failed: {shown.stderr.strip()}; bring the lab up: ./scripts/vm-lab up"
        )
    # A socket's path has a bound of about 100 bytes: a short name in the folder of the run.
    kept = "Host *\n  ControlMaster auto\n  ControlPersist 600\n  ControlPath /run/l4lb-vm-%C\n"
    _SSH_CONFIG.write_text(shown.stdout + kept)


def is_up() -> bool:
    """Whether the machines run, as far as Vagrant knows."""
    shown = subprocess.run(
        ["vagrant", "status", "--machine-readable"],
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    ).stdout
    states = [line.split(",")[3] for line in shown.splitlines() if ",state," in line]
    return bool(states) and all(state == "running" for state in states)


def status() -> None:
    """Prints what Vagrant knows."""
    subprocess.run(["vagrant", "status"], env={**os.environ, **environment()}, check=False, cwd=PROJECT)


def destroy() -> None:
    """Takes the machines and their networks away, also those that an interrupted Vagrant lost sight of."""
    if (WORK / "dot").exists() and shutil.which("vagrant"):
        with step("removing the machines"):
            vagrant("destroy", "-f", check=False)
    for machine in _virsh("list", "--all", "--name").split():
        if machine.startswith("l4lb-"):
            _virsh("destroy", machine)
            _virsh("undefine", machine)
            _virsh("vol-delete", "--pool", "default", f"{machine}.img")
    for network in ("l4lb-front", "l4lb-back", "vagrant-libvirt"):
        _virsh("net-destroy", network)
        _virsh("net-undefine", network)
    _SSH_CONFIG.unlink(missing_ok=True)


def _virsh(*words: str) -> str:
    """What a command of virsh prints; nothing where there is nothing to do."""
    done = subprocess.run(
        ["virsh", "-c", "qemu:///system", *words], capture_output=True, text=True, check=False
    )
    return done.stdout
