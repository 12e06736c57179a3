"""Options that commands of both programs have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

DEFAULT_CONFIG = Path("/etc/l4lb/l4lb.yaml")

config_option = click.option(
    "-c",
    "--config",
    "config",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    metavar="FILE",
    help="The configuration.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: one object, or one object a line."
)


def drain_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--wait` and `--timeout`."""
    wait = click.option("--wait", is_flag=True, help="Return when it has nothing left.")
    timeout = click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        default=300.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait; then exit code 1.",
    )
    return wait(timeout(function))


def program_options(socket: Path, variable: str, what: str) -> Callable[..., Any]:
    """`--socket`, by default this one or what the environment's `variable` says, and `--debug`."""
    place = click.option(
        "--socket",
        type=click.Path(path_type=Path),
        default=socket,
        envvar=variable,
        show_default=True,
        show_envvar=True,
        metavar="PATH",
        help=what,
    )
    debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        return place(debug(function))

    return decorate


def about_a_backend(whole: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command that is given a backend and the `whole` that it belongs to, as `service` or `pool`, and
    `--json`; it is handed the socket first."""

    def decorate(function: Callable[..., None]) -> click.Command:
        of, backend = click.argument(whole), click.argument("backend")
        return click.command()(of(backend(json_option(click.pass_obj(function)))))

    return decorate


def _parse_weight(context: click.Context, parameter: click.Parameter, text: str) -> int | None:
    if text != "default" and not text.isdecimal():
        raise click.BadParameter(f"{text!r} is neither a whole number nor default")
    return None if text == "default" else int(text)


given_weight = click.argument("weight", metavar="WEIGHT|default", callback=_parse_weight)
"""A whole number; None for `default`, the configured one."""
weight_option = click.option("--weight", type=click.IntRange(0, 65535), default=1, show_default=True)
