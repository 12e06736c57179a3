"""`l4lb top`: what goes where at this moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from l4lb.console.live import Board, show_top, top_options
from l4lb.console.rates import Measures
from l4lb.net.client import Client

_MEASURES = Measures(
    whole="service",
    counters={
        "packets_in": "packets_in_per_s",
        "bytes_in": "bytes_in_per_s",
        "packets_out": "packets_out_per_s",
        "bytes_out": "bytes_out_per_s",
        "scheduled": "new_flows_per_s",
    },
    gauges=("flows", "active"),
    kept=("weight", "effective_weight", "state"),
    line="packets_in_per_s",
)


def _headline(status: dict[str, Any]) -> list[str]:
    lost = sum(queue["dropped_full"] + queue["dropped_socket"] for queue in status["queues"])
    words = [status["datapath"], f"{status['flows']} of {status['flow_capacity']} flows"]
    return [*words, f"{lost} lost by full queues"] if lost else words


BOARD = Board(
    program="l4lb",
    measures=_MEASURES,
    columns=(
        ("BACKEND", "backend"),
        ("STATE", "state"),
        ("WEIGHT", "weight"),
        ("NEW/s", "new_flows_per_s"),
        ("PACKETS IN/s", "packets_in_per_s"),
        ("BYTES IN/s", "bytes_in_per_s"),
        ("PACKETS OUT/s", "packets_out_per_s"),
        ("BYTES OUT/s", "bytes_out_per_s"),
        ("FLOWS", "flows"),
        ("ACTIVE", "active"),
    ),
    line_heading="PACKETS IN, LAST MINUTE",
    headline=_headline,
    totals=lambda status: {"flows": status["flows"]},
)


@click.command("top")
@top_options
@click.pass_obj
def command(socket: Path, /, interval: float, once: bool, as_json: bool) -> None:
    """Show the rates of every service and backend as they are now.

    Keys: q quit, s and S sort, p pause, j and k scroll. Where the output is no terminal one interval is
    printed, as with --once.

    \b
    Example:
      l4lb top
      l4lb top --once --interval 5
      l4lb top --json | jq -c '.rows[] | [.backend, .packets_in_per_s]'
    """
    show_top(Client(socket), BOARD, interval, once=once, as_json=as_json)
