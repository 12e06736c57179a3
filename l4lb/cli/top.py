"""`l4lb top`: what goes where at this moment."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from l4lb.cli.rates import Rates, sparkline
from l4lb.console import output
from l4lb.errors import L4lbError
from l4lb.net.client import Client

Json = dict[str, Any]
_SPARK = 30
_LINES_AROUND = 6
_COLUMNS = (
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
)
_SORTABLE = tuple(key for _, key in _COLUMNS if key != "state")
_KEY = re.compile(r"\x1b\[.|.", re.DOTALL)
"""One key: that of an arrow is three characters."""
_UNITS = ("", "k", "M", "G", "T")


@dataclass(slots=True)
class View:
    """What is shown: the samples, how they are sorted, and what keys have changed."""

    interval_s: float
    rates: Rates = field(default_factory=Rates)
    status: Json = field(default_factory=dict)
    trouble: L4lbError | None = None
    """Why the last sample could not be taken."""
    sort: int = 0
    paused: bool = False
    first: int = 0
    """Lines that are scrolled out at the top."""
    restarts: int = 0

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
                self.sort = (self.sort + 1) % len(_SORTABLE)
            case "S":
                self.sort = (self.sort - 1) % len(_SORTABLE)
            case "p" | " ":
                self.paused = not self.paused
            case "j" | "\x1b[B":
                self.first += 1
            case "k" | "\x1b[A":
                self.first = max(0, self.first - 1)
        return True

    def sorted_rows(self) -> list[Json]:
        """Services in the order of the configuration, the backends of each by the chosen column."""
        key = _SORTABLE[self.sort]
        services = [row for row in self.rates.rows if row["backend"] is None]
        found = []
        for service in services:
            own = [row for row in self.rates.rows if row["backend"] and row["service"] == service["service"]]
            if key != "backend":
                own.sort(key=lambda row: row.get(key) or 0, reverse=True)
            found += [service, *own]
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
            return "l4lb top: waiting for a daemon"
        status = self.status
        capacity = f"{status['flows']} of {status['flow_capacity']} flows"
        words = [
            f"l4lb {status['version']}",
            status["datapath"],
            f"up {_duration(status['uptime_s'])}",
            capacity,
        ]
        lost = sum(queue["dropped_full"] + queue["dropped_socket"] for queue in status["queues"])
        words += [f"{lost} lost by full queues"] if lost else []
        words += [f"{self.restarts} restarts"] if self.restarts else []
        words += ["PAUSED"] if self.paused else []
        return "  ".join(words)

    def _table(self, rows: list[Json]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
        chosen = _SORTABLE[self.sort]
        for heading, key in _COLUMNS:
            mark = " ▾" if key == chosen else ""
            table.add_column(
                heading + mark, justify="left" if key in ("backend", "state") else "right", no_wrap=True
            )
        table.add_column("PACKETS IN, LAST MINUTE", no_wrap=True)
        for row in rows:
            line = sparkline(self.rates.history(row["service"], row["backend"]), _SPARK)
            name = row["service"] if row["backend"] is None else f"  {row['backend']}"
            cells = [name, *(_cell(row.get(key)) for _, key in _COLUMNS[1:])]
            style = "bold" if row["backend"] is None else None
            table.add_row(*(Text(cell) for cell in cells), Text(line, style="cyan"), style=style)
        return table


@click.command("top")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two samples.",
)
@click.option("--once", is_flag=True, help="Print the rates of one interval and end.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object each interval.")
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
    client, view = Client(socket), View(interval)
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
            output.console().print(view.render())
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
            output.print_json(said | {"flows": view.status["flows"], "rows": view.rates.rows})
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
