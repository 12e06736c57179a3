"""A scenario's result as a person reads it, in 80 columns."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from tests.support.scenarios.base import Result
from tests.support.scenarios.compare import SUMS

BALANCER_COLUMNS = (
    "scheduled",
    "flows",
    "packets_in",
    "bytes_in",
    "packets_out",
    "bytes_out",
    "packets_offloaded",
)
# What is left out, in this order, where the table is too wide.
DISPENSABLE = ("bytes_out", "bytes_in", "flows", "packets_out")


def print_result(console: Console, result: Result) -> None:
    """Print what happened, who served what, what the balancer counted, and the verdict."""
    if result.timeline:
        console.print(timeline_table(result))
    if result.backends:
        console.print(backends_table(result))
    if result.balancer:
        console.print(balancer_table(console, result))
    shown = {name: value for name, value in result.evidence.items() if name not in (*SUMS, "datapath")}
    if shown:
        console.print(evidence_table(shown))
    if result.ok:
        console.print(f"[green]ok[/]: {result.good}")
    for problem in result.problems:
        console.print(f"[red]failed[/]: {escape(problem)}")


def timeline_table(result: Result) -> Table:
    """What happened when."""
    table = Table(title="What happened", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("second", justify="right")
    table.add_column("what")
    for seconds, what in result.timeline:
        table.add_row(f"{seconds:.1f}", escape(what))
    return table


def backends_table(result: Result) -> Table:
    """Who answered the client."""
    numbers = ("weight", "connections", "requests", "datagrams", "bytes", "share")
    table = new_table("Who answered the client", ("backend",), numbers)
    answered = sum(backend.requests for backend in result.backends.values())
    for name, backend in sorted(result.backends.items()):
        table.add_row(
            name,
            str(backend.weight),
            str(backend.connections),
            str(backend.requests),
            str(backend.datagrams),
            str(backend.bytes),
            f"{backend.requests / answered:.1%}" if answered else "-",
        )
    return table


def balancer_table(console: Console, result: Result) -> Table:
    """What `l4lb backends ls` says; without columns in which it counts nothing, or that find no room."""
    rows = result.balancer
    columns = [column for column in BALANCER_COLUMNS if any(row.get(column) for row in rows)]
    # Measured with more room than there is, since a measure never exceeds the room.
    roomy = console.options.update(width=2 * console.width)
    for dispensable in (*DISPENSABLE, None):
        table = _balancer_columns(result, columns)
        if Measurement.get(console, roomy, table).minimum <= console.width:
            break
        columns = [column for column in columns if column != dispensable]
    return table


def _balancer_columns(result: Result, columns: list[str]) -> Table:
    title = f"What l4lb counted, datapath {result.evidence.get('datapath', 'unknown')}"
    headings = [column.replace("_", " ") for column in columns]
    table = new_table(title, ("service", "backend"), headings)
    for row in result.balancer:
        table.add_row(row["service"], row["backend"], *(str(row.get(column, "-")) for column in columns))
    return table


def evidence_table(evidence: Mapping[str, float | str]) -> Table:
    """What the scenario is there to prove."""
    table = new_table("Evidence", ("what",), ("number",))
    for name, value in evidence.items():
        table.add_row(name.replace("_", " "), str(value))
    return table


def new_table(title: str, words: tuple[str, ...], numbers: tuple[str, ...] | list[str]) -> Table:
    """An empty table: columns of words on the left, of numbers on the right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in words:
        table.add_column(column, no_wrap=True)
    for column in numbers:
        table.add_column(column, justify="right", min_width=max(map(len, column.split())))
    return table
