"""What the commands share: where the daemon is, and how the configuration is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l4lb.console import output

if TYPE_CHECKING:
    from l4lb.net.client import Client

PROGRAM = "l7lb"
DEFAULT_SOCKET = Path("/run/l4lb/l7lb.sock")


def ask(socket: Path) -> Client:
    """The daemon."""
    from l4lb.net.client import Client

    return Client(socket, PROGRAM)


def print_rows(rows: Iterable[Any], columns: Any, as_json: bool, title: str) -> None:
    """A table, or one JSON object a line."""
    output.print_rows(rows, columns, as_json=as_json, title=title, empty=f"no {title}")
