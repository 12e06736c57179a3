"""The `top` of both programs: what goes where at this moment."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from l4lb.console import output
from l4lb.console.rates import Measures, Rates, sparkline
from l4lb.errors import L4lbError
from l4lb.net.client import Client

Json = dict[str, Any]
_SPARK = 30
_LINES_AROUND = 6
_COLUMNS = 250
"""As wide as the view is where there is no terminal."""
_KEY = re.compile(r"\x1b\[.|.", re.DOTALL)
"""One key: that of an arrow is three characters."""
_UNITS = ("", "k", "M", "G", "T")


@dataclass(frozen=True, slots=True)
class Board:
    """What a program's `top` looks like: its `columns` (heading and key, the backend's name first), the
    heading of the sparklines, and the words of the first line, from the answer of `/status`."""

    program: str
    measures: Measures
    columns: Sequence[tuple[str, str]]
    line_heading: str
    headline: Callable[[Json], list[str]]
    totals: Callable[[Json], Json]
    """What `--json` says of the whole."""

    @property
    def sortable(self) -> list[str]:
        """Keys that rows may be sorted by."""
        return [key for _, key in self.columns if key != "state"]


@dataclass(slots=True)
class View:
    """What is shown: the samples, how they are sorted, and what keys have changed."""

    board: Board
    interval_s: float
    rates: Rates = field(init=False)
    status: Json = field(default_factory=dict)
    trouble: L4lbError | None = None
    """Why the last sample could not be taken."""
    sort: int = 0
    paused: bool = False
    first: int = 0
    """Lines that are scrolled out at the top."""
    restarts: int = 0

    def __post_init__(self) -> None:
        self.rates = Rates(self.board.measures)

    def sample(self, client: Client) -> bool:
        """Asks the daemon; false where there is no rate yet. While none answers `trouble` says so."""
        try:
            status = client.get("/status")
            backends = list(client.rows("/backends"))
        except L4lbError as error:
            self.trouble = error
            return False
        started_again = (
            status["pid"] != self.status.get("pid") or status["uptime_s"] < self.status["uptime_s"]
        )
        if self.status and started_again:
            self.rates.forget()
            self.restarts += 1
        self.trouble, self.status = None, status
        return self.rates.update(backends, time.monotonic())

    def press(self, key: str) -> bool:
        """What a key does; false ends the view."""
        match key:
            case "q" | "\x03" | "\x04":
                return False
            case "s":
                self.sort = (self.sort + 1) % len(self.board.sortable)
            case "S":
                self.sort = (self.sort - 1) % len(self.board.sortable)
            case "p" | " ":
                self.paused = not self.paused
            case "j" | "\x1b[B":
                self.first += 1
            case "k" | "\x1b[A":
                self.first = max(0, self.first - 1)
        return True

    def sorted_rows(self) -> list[Json]:
        """Services or pools in the order of the configuration, the backends of each by the chosen column."""
        key, whole = self.board.sortable[self.sort], self.board.measures.whole
        found = []
        for head in (row for row in self.rates.rows if row["backend"] is None):
            own = [row for row in self.rates.rows if row["backend"] and row[whole] == head[whole]]
            if key != "backend":
                own.sort(key=lambda row: row.get(key) or 0, reverse=True)
            found += [head, *own]
        return found

    def render(self, height: int | None = None) -> RenderableType:
        """The whole screen, or with no height every row."""
        rows = self.sorted_rows()
        room = len(rows) if height is None else max(1, height - _LINES_AROUND)
        self.first = min(self.first, max(0, len(rows) - room))
        shown = rows[self.first : self.first + room]
        parts: list[RenderableType] = [Text(self._headline())]
        if self.trouble is not None:
            parts.append(Text(str(self.trouble), style="bold red"))
        parts.append(self._table(shown))
        if height is not None:
            below = len(rows) - self.first - len(shown)
            more = f"   {self.first} lines above, {below} below" if self.first or below else ""
            parts.append(Text(f"q quit  s sort  p pause  j/k scroll{more}", style="dim"))
        return Group(*parts)

    def _headline(self) -> str:
        if not self.status:
            return f"{self.board.program} top: waiting for a daemon"
        words = [f"{self.board.program} {self.status['version']}", *self.board.headline(self.status)]
        words.insert(2, f"up {_duration(self.status['uptime_s'])}")
        words += [f"{self.restarts} restarts"] if self.restarts else []
        words += ["PAUSED"] if self.paused else []
        return "  ".join(words)

    def _table(self, rows: list[Json]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
        chosen = self.board.sortable[self.sort]
        wholes = [row[self.board.measures.whole] for row in rows]
        names = [
            whole if row["backend"] is None else f"  {row['backend']}"
            for whole, row in zip(wholes, rows, strict=True)
        ]
        for heading, key in self.board.columns:
            mark = " ▾" if key == chosen else ""
            table.add_column(
                heading + mark,
                justify="left" if key in ("backend", "state") else "right",
                no_wrap=True,
                # On a narrow terminal other columns are cut: without its name a row says nothing.
                min_width=max(map(len, names), default=0) if key == "backend" else None,
            )
        table.add_column(self.board.line_heading, no_wrap=True)
        for whole, name, row in zip(wholes, names, rows, strict=True):
            line = sparkline(self.rates.history(whole, row["backend"]), _SPARK)
            cells = [name, *(_cell(row.get(key)) for _, key in self.board.columns[1:])]
            style = "bold" if row["backend"] is None else None
            table.add_row(*(Text(cell) for cell in cells), Text(line, style="cyan"), style=style)
        return table


def top_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--interval`, `--once` and `--json`."""
    interval = click.option(
        "--interval",
        type=click.FloatRange(0.1, 60),
        default=1.0,
        show_default=True,
        metavar="SECONDS",
        help="Time between two samples.",
    )
    once = click.option("--once", is_flag=True, help="Print the rates of one interval and end.")
    as_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON object each interval.")
    return interval(once(as_json(function)))


def show_top(client: Client, board: Board, interval: float, *, once: bool, as_json: bool) -> None:
    """Runs the view until a key ends it; where the output is no terminal, for one interval."""
    view = View(board, interval)
    view.sample(client)
    if view.trouble is not None:
        raise view.trouble
    with suppress(KeyboardInterrupt):
        if as_json:
            _print_objects(client, view, once=once)
        elif once or not (sys.stdout.isatty() and sys.stdin.isatty()):
            time.sleep(interval)
            view.sample(client)
            if view.trouble is not None:
                raise view.trouble
            output.console(_COLUMNS).print(view.render())
        else:
            _show(client, view)


def _print_objects(client: Client, view: View, *, once: bool) -> None:
    """One object an interval. While no daemon answers it has `error` in place of rows."""
    while True:
        time.sleep(view.interval_s)
        has_rates = view.sample(client)
        said: Json = {"time": round(time.time(), 3), "restarts": view.restarts}
        if view.trouble is not None:
            output.print_json(said | {"error": str(view.trouble), "rows": []})
        elif has_rates:
            output.print_json(said | view.board.totals(view.status) | {"rows": view.rates.rows})
        if once:
            return


def _show(client: Client, view: View) -> None:
    """The live view until a key ends it."""
    with _keys() as read_keys, Live(screen=True, auto_refresh=False) as live:
        due = time.monotonic()
        going = True
        while going:
            live.update(view.render(live.console.size.height), refresh=True)
            keys = _KEY.findall(read_keys(max(0.0, due - time.monotonic())))
            going = all(view.press(key) for key in keys)
            if time.monotonic() >= due:
                due = time.monotonic() + view.interval_s
                if not view.paused:
                    view.sample(client)


@contextmanager
def _keys() -> Iterator[Any]:
    """What waits for keys, at most so many seconds. The terminal gives each at once and does not show it."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def read(timeout_s: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], timeout_s)
        return os.read(descriptor, 16).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(descriptor)
        yield read
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return scaled(value)
    return str(value)


def scaled(value: float) -> str:
    """A number in at most six characters: `950`, `12.3k`, `4.2M`."""
    for unit in _UNITS[:-1]:
        if abs(value) < 1000:
            return f"{value:.1f}{unit}" if unit or value % 1 else f"{value:.0f}"
        value /= 1000
    return f"{value:.1f}{_UNITS[-1]}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
