"""One daemon for one admin socket: a locked file that holds its process id."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from l4lb.errors import L4lbError


class RunLock:
    """Held by a running daemon; the kernel lets go of it however the process ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def acquire(self) -> None:
        """Takes the lock. L4lbError where a daemon holds it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Gives the lock up and removes the file; nothing where it was not held."""
        if self._fd >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def owner(self) -> int | None:
        """The process that holds the lock, or None where none does."""
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
