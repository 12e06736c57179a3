"""Remembers on disk what was changed on the host, so that it can be put back after any end.

Every change is written down before it is made. A run that was killed leaves its journal; the next `run`
goes on from it (the values of before the *first* run are the ones to put back), and `down` undoes it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from l4lb.errors import L4lbError
from l4lb.net.files import write_durably


@dataclass(slots=True)
class Changes:
    """What is different from before: addresses and routes that were added, and what sysctls were."""

    addresses: list[tuple[str, str]] = field(default_factory=list)
    """(interface, address with prefix length)"""
    routes: list[tuple[str, str]] = field(default_factory=list)
    """(interface, address with prefix length) of host routes"""
    sysctls: dict[str, str] = field(default_factory=dict)
    """path below /proc/sys → value before"""


class Journal:
    """The file with the changes. Not for two processes at once: the daemon's lock guards it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changes = self._read()

    def write(self) -> None:
        """Puts the changes on disk, or removes the file where there are none."""
        if self.changes == Changes():
            self.path.unlink(missing_ok=True)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(self.path, asdict(self.changes))

    def _read(self) -> Changes:
        try:
            found = json.loads(self.path.read_text())
            return Changes(
                [(interface, address) for interface, address in found["addresses"]],
                # A journal of before there were routes has none.
                [(interface, address) for interface, address in found.get("routes", ())],
                dict(found["sysctls"]),
            )
        except FileNotFoundError:
            return Changes()
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise L4lbError(
                f"{self.path}: the journal of host changes cannot be read ({error}); "
                "put addresses and sysctls back by hand, then remove it"
            ) from error


def journal_path(socket_path: Path) -> Path:
    """Where the daemon of this socket writes down what it changes on the host."""
    return socket_path.with_suffix(".journal")
