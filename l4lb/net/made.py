"""Remembers on disk what `l4lb real-server` made, so that it can be taken back."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from l4lb.errors import L4lbError
from l4lb.net.files import write_durably


@dataclass(slots=True)
class Made:
    """What is different from before."""

    vips: list[tuple[str, str]] = field(default_factory=list)
    """(device, VIP)"""
    settings: dict[str, str] = field(default_factory=dict)
    """path below /proc/sys/net → value before"""
    clamps: list[tuple[int, int, str]] = field(default_factory=list)
    """(family, MSS, VIP)"""
    table: bool = False
    """the nftables table is ours"""
    gue_ports: list[tuple[int, int]] = field(default_factory=list)
    """(family, port)"""
    tunnels: list[str] = field(default_factory=list)


class RealServerJournal:
    """The file with what was made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made = self._read()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other runs waiting, and reads what they wrote. The lock is the journal's directory."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise L4lbError(f"{self.path.parent}: cannot hold a journal: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self.made = self._read()
            yield
        finally:
            os.close(descriptor)

    def write(self) -> None:
        """Puts it on disk, or removes the file where nothing is different."""
        try:
            if self.made == Made():
                self.path.unlink(missing_ok=True)
                return
            write_durably(self.path, asdict(self.made))
        except OSError as error:
            raise L4lbError(f"{self.path}: cannot be written: {error.strerror}") from error

    def _read(self) -> Made:
        try:
            found = json.loads(self.path.read_text())
            return Made(
                vips=[(str(device), str(vip)) for device, vip in found["vips"]],
                settings=dict(found["settings"]),
                clamps=[(int(v), int(mss), str(vip)) for v, mss, vip in found["clamps"]],
                table=bool(found["table"]),
                gue_ports=[(int(version), int(port)) for version, port in found["gue_ports"]],
                tunnels=list(found["tunnels"]),
            )
        except FileNotFoundError:
            return Made()
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise L4lbError(
                f"{self.path}: the journal of what was applied cannot be read ({error}); "
                "take it back by hand, then remove the file"
            ) from error
