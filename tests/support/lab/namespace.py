"""Network namespaces: made and removed with `ip`, entered with setns(2)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support.lab.errors import LabError
from tests.support.lab.wait import wait_for

DIRECTORY = Path("/run/netns")
CLONE_NEWNET = 0x40000000
COMMAND_TIMEOUT_S = 30.0
TERM_TIMEOUT_S = 3.0
KILL_TIMEOUT_S = 5.0

_libc = ctypes.CDLL(None, use_errno=True)


def ip(lines: Iterable[str], namespace: str | None = None) -> None:
    """Run a batch of `ip` lines, on the host or inside a namespace; the first failing line ends it."""
    batch = list(lines)
    argv = ["ip", *(("-n", namespace) if namespace else ()), "-batch", "-"]
    done = subprocess.run(
        argv,
        input="\n".join(batch) + "\n",
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        where = f"namespace {namespace}" if namespace else "the host"
        raise LabError(f"`ip -batch` failed in {where}: {_explain(done.stderr, batch)}")


def _explain(stderr: str, batch: list[str]) -> str:
    """Put the line that failed after ip's message, which only gives its number."""
    message = " ".join(stderr.split())
    number = message.rpartition("Command failed -:")[2]
    if number.isdigit() and 0 < int(number) <= len(batch):
        return f"{message} ({batch[int(number) - 1]})"
    return message


def exists(namespace: str) -> bool:
    """Whether a namespace of this name exists."""
    return (DIRECTORY / namespace).exists()


@contextlib.contextmanager
def enter(namespace: str) -> Iterator[None]:
    """Move this thread into the namespace, and back at the end.

    Sockets keep the namespace they were made in; threads and processes started inside inherit it.
    """
    with (
        open("/proc/thread-self/ns/net", "rb") as before,  # noqa: PTH123 (a descriptor is wanted, no path)
        _open(namespace) as inside,
    ):
        _setns(inside.fileno(), namespace)
        try:
            yield
        finally:
            _setns(before.fileno(), "the one before")


def _open(namespace: str):  # type: ignore[no-untyped-def]
    try:
        return (DIRECTORY / namespace).open("rb")
    except OSError as error:
        raise LabError(f"namespace {namespace} cannot be opened: {error.strerror}; is the lab up?") from error


def _setns(descriptor: int, name: str) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise LabError(f"cannot enter namespace {name}: {os.strerror(ctypes.get_errno())}")


def write_sysctls(namespace: str, settings: dict[str, str]) -> None:
    """Write files below /proc/sys/net as the namespace sees them; absent ones (no such feature) are left."""
    with enter(namespace):
        for key, value in settings.items():
            path = Path("/proc/sys/net") / key
            with contextlib.suppress(FileNotFoundError):
                path.write_text(value)


def pids_inside(namespaces: Iterable[str]) -> set[int]:
    """Processes whose network namespace is one of these; never the one that asks."""
    inodes = set()
    for namespace in namespaces:
        with contextlib.suppress(FileNotFoundError):
            inodes.add((DIRECTORY / namespace).stat().st_ino)
    if not inodes:
        return set()
    return {
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _inode(int(entry.name)) in inodes
    }


def _inode(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:  # it ended meanwhile, or is a zombie
        return None


def end_processes(namespaces: Iterable[str]) -> None:
    """End what runs inside these namespaces, and nothing else: TERM, and KILL for what stays."""
    names = list(namespaces)
    for number, timeout in ((signal.SIGTERM, TERM_TIMEOUT_S), (signal.SIGKILL, KILL_TIMEOUT_S)):
        pids = pids_inside(names)
        for pid in pids:
            _signal_inside(pid, names, number)
        if not pids:
            return
        with contextlib.suppress(LabError):
            wait_for(lambda: not pids_inside(names), timeout, "processes to end")
    left = pids_inside(names)
    if left:
        raise LabError(f"processes {sorted(left)} in {', '.join(names)} survived SIGKILL")


def _signal_inside(pid: int, namespaces: list[str], number: signal.Signals) -> None:
    """Signal through a pidfd, checked again behind it: a reused pid is never hit."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if pid in pids_inside(namespaces):
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)
