"""One daemon for one admin socket, and one for one network namespace.

The first is a locked file that holds the process id; the second an abstract Unix socket, for such names
belong to the network namespace, as the rules and the queues do. The kernel lets go of both however the
process ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from l4lb.errors import CapabilityError, L4lbError

_NAMESPACE_LOCK = "\0l4lb"


class RunLock:
    """Held by a running daemon, and by `l4lb down` while it cleans up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._namespace: socket.socket | None = None

    def acquire(self) -> None:
        """Takes both locks, or neither. L4lbError where a daemon holds one."""
        fd = self._lock_file()
        try:
            self._namespace = _lock_namespace()
        except BaseException:
            os.close(fd)
            raise
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def descriptors(self) -> dict[str, int]:
        """The open descriptors that hold the locks, for a successor in the same process."""
        assert self._namespace is not None
        return {"lock": self._fd, "namespace": self._namespace.fileno()}

    def adopt(self, descriptors: Mapping[str, int]) -> None:
        """Takes over what `descriptors` gave."""
        self._fd = descriptors["lock"]
        self._namespace = socket.socket(fileno=descriptors["namespace"])

    def release(self) -> None:
        """Gives the locks up and removes the file; nothing where they were not held."""
        if self._namespace is not None:
            self._namespace.close()
            self._namespace = None
        if self._fd >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def owner(self) -> int | None:
        """The process that holds the file, or None where none does."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(os.pread(fd, 32, 0).strip() or b"0") or None
        finally:
            os.close(fd)
        return None

    def _lock_file(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except PermissionError as error:
            raise CapabilityError(f"{self.path}: the lock may not be made; run as root") from error
        except OSError as error:
            raise L4lbError(f"{self.path}: the lock cannot be made: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise L4lbError(
                f"{self.path}: a daemon is running already (process {self.owner()}); "
                "`l4lb status` shows it, `l4lb down` ends it"
            ) from error
        return fd


def _lock_namespace() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(_NAMESPACE_LOCK)
        sock.listen()
    except OSError as error:
        sock.close()
        raise L4lbError(
            f"process {_namespace_owner()} balances in this network namespace already, with another "
            "--socket; end it first, or run in a namespace of its own"
        ) from error
    return sock


def _namespace_owner() -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(_NAMESPACE_LOCK)
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return "(unknown)"
    return str(struct.unpack("3i", credentials)[0])


def lock_path(socket_path: Path) -> Path:
    """Where the daemon of this socket keeps its lock and its process id."""
    return socket_path.with_suffix(".lock")
