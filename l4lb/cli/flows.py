"""`l4lb flows ls`, `count` and `flush`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from l4lb.cli import changing
from l4lb.cli.paging import DEFAULT_ROWS, DEFAULT_SORT, MOST_ROWS, SORTS
from l4lb.console import output
from l4lb.console.options import json_option

COLUMNS = (
    ("CLIENT", "client"),
    ("LISTEN", "listen"),
    ("SERVICE", "service"),
    ("BACKEND", "backend"),
    ("STATE", "state"),
    ("IDLE S", "idle_s"),
    ("EXPIRES S", "expires_s"),
    ("PACKETS", "packets"),
    ("BYTES", "bytes"),
    ("QUEUE", "queue"),
    ("OFFLOADED", "offloaded"),
    ("SOURCE", "source"),
)
Json = dict[str, Any]
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _filters(wrapped: _Command) -> _Command:
    """What both `ls` and `count` can be narrowed by."""
    for option in (
        click.option("--state", metavar="STATE", help="Only flows in this state, such as established."),
        click.option("--backend", metavar="BACKEND", help="Only flows to this backend."),
        click.option("--service", metavar="NAME", help="Only flows of this service."),
        click.option("--client", metavar="ADDRESS[/LENGTH]", help="Only flows of this client or network."),
    ):
        wrapped = option(wrapped)
    return wrapped


@click.group("flows")
def command() -> None:
    """Look at flows, and forget them."""


command.add_command(changing.flush)


@command.command("ls")
@_filters
@click.option("--sort", type=click.Choice(SORTS), default=DEFAULT_SORT, show_default=True)
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option(
    "--limit",
    type=click.IntRange(0, MOST_ROWS),
    default=DEFAULT_ROWS,
    show_default=True,
    help="Flows of one page.",
)
@click.option("--after", metavar="CURSOR", help="Go on behind the page that ended with this cursor.")
@click.option("--all", "everything", is_flag=True, help="Read page after page to the end.")
@json_option
@click.pass_obj
def list_flows(
    socket: Path, /, limit: int, reverse: bool, everything: bool, as_json: bool, **given: str | None
) -> None:
    """List remembered flows, a page at a time.

    The most packets or bytes come first, the longest idle, what expires soonest; everything else in
    ascending order. IDLE and EXPIRES are by what user space saw of a flow: the kernel forwards learned ones
    alone. A row's `cursor` (--json) goes on behind it.

    \b
    Example:
      l4lb flows ls --client 198.51.100.0/24 --state established
      l4lb flows ls --service web --sort bytes --limit 20
      l4lb flows ls --sort idle --all --json | jq -r .client
    """
    query = {key: value for key, value in given.items() if value is not None}
    query["limit"] = str(MOST_ROWS if everything else limit)
    if reverse:
        query["reverse"] = "1"
    listed = _Listing(_client(socket), query, everything=everything)
    output.print_rows(listed.rows(), COLUMNS, as_json=as_json, title="flows", empty="no flows")
    if not as_json and limit == listed.shown < listed.matched:
        print(f"\n{listed.shown} of {listed.matched}; behind these: --after {listed.cursor}")


@command.command("count")
@_filters
@json_option
@click.pass_obj
def count_flows(socket: Path, /, as_json: bool, **given: str | None) -> None:
    """Show how many flows are remembered, and how many could be.

    With a filter those that live and fit it are counted.

    \b
    Example:
      l4lb flows count
      l4lb flows count --service web --state established
    """
    filters = {key: value for key, value in given.items() if value is not None}
    answer = _client(socket).get("/flows/count", **filters)
    if as_json:
        output.print_json(answer)
    elif filters:
        print(answer["flows"])
    else:
        print(f"{answer['flows']} of {answer['flow_capacity']}")


class _Listing:
    """The rows of one page, or of all from one on, as they arrive."""

    def __init__(self, client: Any, query: dict[str, str], *, everything: bool) -> None:
        self._client = client
        self._query = query
        self._everything = everything
        self.shown = 0
        self.matched = 0
        self.cursor: str | None = None

    def rows(self) -> Iterator[Json]:
        while True:
            before = self.shown
            with self._client.page("/flows", **self._query) as (self.matched, page):
                for row in page:
                    self.shown += 1
                    self.cursor = row["cursor"]
                    yield row
            if not self._everything or self.shown - before < int(self._query["limit"]):
                return
            self._query["after"] = str(self.cursor)


def _client(socket: Path) -> Any:
    from l4lb.net.client import Client

    return Client(socket)
