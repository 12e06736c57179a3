"""`l7lb top`: what goes where at this moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from l4lb.console.live import Board, show_top, top_options
from l4lb.console.rates import Measures
from l7.cli.common import PROGRAM, ask

_MEASURES = Measures(
    whole="pool",
    counters={
        "requests": "requests_per_s",
        "failed": "failed_per_s",
        "bytes_in": "bytes_in_per_s",
        "bytes_out": "bytes_out_per_s",
        "connects": "connects_per_s",
    },
    gauges=("active", "idle"),
    kept=("weight", "state"),
    line="requests_per_s",
)


def _headline(status: dict[str, Any]) -> list[str]:
    counters = status["counters"]
    words = [
        f"generation {status['generation']}",
        f"{counters['connections_open']} connections",
        f"{counters['requests_active']} requests",
    ]
    return [*words, f"{status['restarts']} restarts"] if status["restarts"] else words


BOARD = Board(
    program=PROGRAM,
    measures=_MEASURES,
    columns=(
        ("BACKEND", "backend"),
        ("STATE", "state"),
        ("WEIGHT", "weight"),
        ("REQUESTS/s", "requests_per_s"),
        ("FAILED/s", "failed_per_s"),
        ("CONNECTS/s", "connects_per_s"),
        ("BYTES IN/s", "bytes_in_per_s"),
        ("BYTES OUT/s", "bytes_out_per_s"),
        ("ACTIVE", "active"),
        ("IDLE", "idle"),
    ),
    line_heading="REQUESTS, LAST MINUTE",
    headline=_headline,
    totals=lambda status: {"requests_active": status["counters"]["requests_active"]},
)


@click.command("top")
@top_options
@click.pass_obj
def command(socket: Path, /, interval: float, once: bool, as_json: bool) -> None:
    """Show the rates of every pool and backend as they are now.

    Keys: q quit, s and S sort, p pause, j and k scroll. Where the output is no terminal one interval is
    printed, as with --once.

    \b
    Example:
      l7lb top
      l7lb top --once --interval 5
      l7lb top --json | jq -c '.rows[] | [.backend, .requests_per_s]'
    """
    show_top(ask(socket), BOARD, interval, once=once, as_json=as_json)
