"""The machines of `vagrant/`: up, down, and commands in them over ssh.

Vagrant's own state stands in `build/vm`, so that a lab of somebody else's is never touched. ssh goes through
one kept connection a machine, as root: `vagrant ssh` would take a second for every command, and sudo a
quarter."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from tests.support.vm import box
from tests.support.vm.steps import ROOT, WORK, VmLabError, run, step

PROJECT = ROOT / "vagrant"
WHEELS = WORK / "wheels"
OWN_WHEEL = ROOT / "dist" / "wheels"
_PREFIX = "l4lb-"  # of the machines' names, as the Vagrantfile has it
_SSH_CONFIG = WORK / "ssh_config"
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_VAGRANT_HOME = WORK / "home"
_BOX_FOLDER = box.NAME.replace("/", "-VAGRANTSLASH-")
_DISK_PREFIX = f"{_BOX_FOLDER}_vagrant_box_image_"


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

    def write(self, path: str, content: str | bytes) -> None:
        """Writes a file."""
        data = content.encode() if isinstance(content, str) else content
        into = [*self._ssh(), f"cat >{_quoted(path)}"]
        subprocess.run(into, input=data, check=True, timeout=60)

    def words(self, *command: str) -> list[str]:
        """How to enter the machine, or run a command in it, at a terminal. One word alone is a line for the
        shell, as with ssh."""
        line = command[0] if len(command) == 1 else " ".join(map(_quoted, command))
        return [*self._ssh(), "-t", f"export PATH={_PATH}; {line or 'bash -l'}"]

    def forget_connection(self) -> None:
        """Ends the kept connection, before the machine is started anew."""
        subprocess.run([*self._ssh(), "-O", "exit"], capture_output=True, check=False)

    def _words(self, command: str) -> list[str]:
        return [*self._ssh(), f"export PATH={_PATH}\n{command}"]

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


def sources() -> str:
    """A digest of everything that l4lb is made from: while it is the same, nothing is built again."""
    parts = [ROOT / part for part in ("l4lb", "l7", "ext", "setup.py", "pyproject.toml", *box.INSTALLER)]
    files = [file for part in parts for file in (part.rglob("*") if part.is_dir() else (part,))]
    digest = hashlib.sha256()
    for file in sorted(files):
        if file.is_file() and file.suffix not in (".so", ".pyc"):
            digest.update(
                f"{file.relative_to(ROOT)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode()
            )
    return digest.hexdigest()


def build_wheels(sources: str) -> None:
    """The wheels that the machines install from, l4lb's own made from this checkout, unless they are there.

    The machines get l4lb's own: what it needs is in the box."""
    made_from = WHEELS / "made-from"
    if made_from.exists() and made_from.read_text() == sources:
        return
    WHEELS.mkdir(parents=True, exist_ok=True)
    made_from.unlink(missing_ok=True)
    OWN_WHEEL.mkdir(parents=True, exist_ok=True)
    for old in (*WHEELS.glob("l4lb-*.whl"), *OWN_WHEEL.glob("*.whl")):
        old.unlink()
    with step("building the wheels that the machines install"):
        _lend_core()
        pip = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-build-isolation"]
        run([*pip, "--no-deps", "-w", WHEELS, ROOT])
        run([*pip[:-1], "--find-links", WHEELS, "-w", WHEELS, *WHEELS.glob("l4lb-*.whl")])
    for wheel in WHEELS.glob("l4lb-*.whl"):
        shutil.copy(wheel, OWN_WHEEL)
    made_from.write_text(sources)


def _lend_core() -> None:
    """Lets the wheel have the core as scripts/setup has built it: the compiler takes two minutes for it."""
    built = ROOT / "build" / f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    shutil.rmtree(built, ignore_errors=True)
    for package in ("l4lb", "l7"):
        for library in (ROOT / package).rglob("*.so"):
            place = built / library.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(library, place)


def add_box(catalog: Path, version: str) -> None:
    """Makes the box that a catalog lists known to Vagrant, and what it knew of former ones unknown."""
    kept = _VAGRANT_HOME / "boxes" / _BOX_FOLDER
    if (kept / version).exists():
        return
    _VAGRANT_HOME.mkdir(parents=True, exist_ok=True)
    with step("adding the box"):
        vagrant("box", "add", "--force", str(catalog))
        for old in kept.iterdir():
            if old.is_dir() and old.name != version:
                shutil.rmtree(old)
        for disk in _virsh("vol-list", "default").split():
            if disk.startswith(_DISK_PREFIX) and version not in disk:
                _virsh("vol-delete", "--pool", "default", disk)


def forget_boxes() -> None:
    """Makes every box unknown, and removes their disks."""
    shutil.rmtree(_VAGRANT_HOME / "boxes", ignore_errors=True)
    for disk in _virsh("vol-list", "default").split():
        if disk.startswith(_DISK_PREFIX):
            _virsh("vol-delete", "--pool", "default", disk)


def up(*, were_up: bool) -> None:
    """Brings the machines up; those that run already are brought up to date with the checkout."""
    if were_up:
        with step("vagrant rsync, vagrant provision"):
            vagrant("rsync")
            vagrant("provision")
    else:
        with step("vagrant up"):
            vagrant("up", "--provider=libvirt")
    _write_ssh_config()


def _write_ssh_config() -> None:
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
    # The first that is said holds. A socket's path has a bound of about 100 bytes: a short name in the folder
    # of the run. A machine that starts anew is to be asked again soon.
    ours = ("User root", "ControlMaster auto", "ControlPersist 600", "ConnectTimeout 3")
    lines = ["Host *", *ours, "ControlPath /run/l4lb-vm-%C", shown.stdout]
    _SSH_CONFIG.write_text("\n".join(lines))


def came_up() -> bool:
    """Whether the machines were brought up, and not taken away since. `is_up`, which asks Vagrant, takes two
    seconds."""
    return _SSH_CONFIG.exists()


def names() -> list[str]:
    """The machines that came up."""
    words = (line.split() for line in _SSH_CONFIG.read_text().splitlines())
    return [found[1] for found in words if len(found) == 2 and found[0] == "Host" and found[1] != "*"]


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


def status() -> int:
    """Prints what Vagrant knows; its exit code."""
    if not shutil.which("vagrant"):
        raise VmLabError("there is no vagrant yet; it comes with the first ./scripts/vm-lab up")
    shown = subprocess.run(
        ["vagrant", "status"], env={**os.environ, **environment()}, check=False, cwd=PROJECT
    )
    return shown.returncode


def refuse_others() -> None:
    """VmLabError where machines of this name are there that Vagrant does not know in this checkout: another
    checkout's, or lost ones."""
    ours = {file.read_text() for file in (WORK / "dot").glob("machines/*/libvirt/id")}
    there = [line.split() for line in _virsh("list", "--all", "--uuid", "--name").splitlines()]
    others = [name for uuid, name in filter(None, there) if name.startswith(_PREFIX) and uuid not in ours]
    if others:
        raise VmLabError(
            f"{', '.join(others)}: there already, and not made from this checkout; if no other checkout "
            "needs them, remove them: ./scripts/vm-lab down"
        )


def destroy() -> None:
    """Takes the machines and their networks away, also those that an interrupted Vagrant lost sight of."""
    if (WORK / "dot").exists() and shutil.which("vagrant"):
        with step("removing the machines"):
            vagrant("destroy", "-f", check=False)
    for machine in _virsh("list", "--all", "--name").split():
        if machine.startswith(_PREFIX):
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
