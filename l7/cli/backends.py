"""`l7lb backends`: look at backends, and change them while they work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from l4lb.console.options import about_a_backend, drain_options, given_weight, json_option, weight_option
from l4lb.console.output import print_done
from l4lb.console.waiting import wait_for_none
from l7.cli.common import ask, print_rows

_COLUMNS = (
    ("POOL", "pool"),
    ("BACKEND", "backend"),
    ("STATE", "state"),
    ("WEIGHT", "weight"),
    ("ACTIVE", "active"),
    ("REQUESTS", "requests"),
    ("FAILED", "failed"),
    ("BYTES IN", "bytes_in"),
    ("BYTES OUT", "bytes_out"),
    ("WHY", "why"),
)


@click.group("backends")
def group() -> None:
    """Look at backends, and change them while they work."""


_about_a_backend = about_a_backend("pool")


@group.command("ls")
@json_option
@click.pass_obj
def ls(socket: Path, as_json: bool) -> None:
    """List every backend with its state and counters.

    ACTIVE are requests and upgraded connections at this moment, FAILED those that the backend did not answer.

    \b
    Example:
      l7lb backends ls
    """
    print_rows(ask(socket).rows("/backends"), _COLUMNS, as_json, "backends")


@_about_a_backend
@drain_options
def drain(socket: Path, pool: str, backend: str, wait: bool, timeout: float, as_json: bool) -> None:
    """Give a backend no new sessions and let what it has end. Sessions that stick to it go on.

    \b
    Example:
      l7lb backends drain web 10.0.0.1:8080 --wait
    """

    def left() -> int:
        rows = ask(socket).rows("/backends")
        return next((row["active"] for row in rows if (row["pool"], row["backend"]) == (pool, backend)), 0)

    answer = _change(socket, "drain", pool, backend)
    if wait:
        whose = f"{backend} of {pool}"
        answer["active"] = wait_for_none(left, whose, "requests", timeout, quiet=as_json)
    print_done(answer, as_json, f"{backend} of {pool} is given no new sessions")


@_about_a_backend
def enable(socket: Path, pool: str, backend: str, as_json: bool) -> None:
    """Use a drained or disabled backend again.

    \b
    Example:
      l7lb backends enable web 10.0.0.1:8080
    """
    print_done(_change(socket, "enable", pool, backend), as_json, f"{backend} of {pool} is enabled")


@_about_a_backend
def disable(socket: Path, pool: str, backend: str, as_json: bool) -> None:
    """Take a backend out for maintenance: no new request, not of sessions that stick to it either.

    \b
    Example:
      l7lb backends disable web 10.0.0.1:8080
    """
    print_done(_change(socket, "disable", pool, backend), as_json, f"{backend} of {pool} is disabled")


@_about_a_backend
@given_weight
def weight(socket: Path, pool: str, backend: str, weight: int | None, as_json: bool) -> None:
    """Give a backend another weight, or the configured one back.

    \b
    Example:
      l7lb backends weight web 10.0.0.1:8080 5
      l7lb backends weight web 10.0.0.1:8080 default
    """
    answer = _change(socket, "weight", pool, backend, weight=weight)
    print_done(answer, as_json, f"{backend} of {pool} has weight {'default' if weight is None else weight}")


@_about_a_backend
@weight_option
def add(socket: Path, pool: str, backend: str, weight: int, as_json: bool) -> None:
    """Add a backend until the program stops; write it into the configuration to keep it.

    \b
    Example:
      l7lb backends add web 10.0.0.4:8080 --weight 2
    """
    answer = _change(socket, "add", pool, backend, weight=weight)
    print_done(answer, as_json, f"{backend} is a backend of {pool} until the program stops")


@_about_a_backend
def remove(socket: Path, pool: str, backend: str, as_json: bool) -> None:
    """Remove a backend until the program stops; the requests that it has are still answered.

    \b
    Example:
      l7lb backends remove web 10.0.0.4:8080
    """
    answer = _change(socket, "remove", pool, backend)
    print_done(answer, as_json, f"{backend} is no backend of {pool} any more")


for _command in (drain, enable, disable, weight, add, remove):
    group.add_command(_command)


def _change(socket: Path, action: str, pool: str, backend: str, **more: Any) -> dict[str, Any]:
    wish = {"pool": pool, "backend": backend, **more}
    answer: dict[str, Any] = ask(socket).post(f"/backends/{action}", wish)
    return answer
