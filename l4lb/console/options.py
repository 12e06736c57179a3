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
