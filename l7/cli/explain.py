"""`l7lb explain`: which route and backend a request would get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from l4lb.console import output
from l4lb.console.options import json_option
from l7.cli.common import ask, print_rows

_CANDIDATES = (("ROUTE", "route"), ("FITS", "matches"), ("WHY", "why"))
_BACKENDS = (("BACKEND", "backend"), ("STATE", "state"), ("WEIGHT", "weight"), ("WHY", "why"))


@click.command("explain")
@click.argument("url")
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Ask this configuration instead of the daemon: all backends are taken to be up.",
)
@click.option("--method", default="GET", show_default=True, help="The method.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header; may be repeated.")
@click.option("--cookie", "cookies", multiple=True, metavar="NAME=VALUE", help="A cookie; may be repeated.")
@click.option("--client", metavar="ADDRESS", help="The client's address.")
@json_option
@click.pass_obj
def command(
    socket: Path,
    url: str,
    config: Path | None,
    method: str,
    headers: tuple[str, ...],
    cookies: tuple[str, ...],
    client: str | None,
    as_json: bool,
) -> None:
    """Say which route and backend a request to URL would get, and why. Nothing is sent.

    \b
    Example:
      l7lb explain https://api.example.com/v2/users --header 'X-Beta: 1' --client 198.51.100.7
      l7lb explain https://api.example.com/v2/users -c planned.yaml
    """
    wish = {
        "url": url,
        "method": method,
        "headers": [_pair(header, ":") for header in headers],
        "cookies": [_pair(cookie, "=") for cookie in cookies],
        "client": client,
    }
    answer = ask(socket).post("/explain", wish) if config is None else _explain_offline(config, wish)
    if as_json:
        output.print_json(answer)
    else:
        _print(answer)


def _pair(text: str, separator: str) -> tuple[str, str]:
    name, found, value = text.partition(separator)
    if not found or not name.strip():
        raise click.BadParameter(f"{text!r} is not of the form NAME{separator}VALUE")
    return name.strip(), value.strip()


def _explain_offline(path: Path, wish: dict[str, Any]) -> dict[str, Any]:
    from l7.process.blueprint import load_config, secret_of
    from l7.process.explain import explain
    from l7.process.roster import Roster

    config = load_config(path)
    return explain(Roster(config), secret_of(config), wish)


def _print(answer: dict[str, Any]) -> None:
    keys = ("listener", "client", "host", "path", "route", "to", "status", "target")
    fields = [(key, answer[key]) for key in keys if key in answer]
    for split in answer["splits"]:
        fields.append((f"pool {split['pool']}", f"{split['backend'] or 'nobody'}: {split['how']}"))
    for which in ("request_headers", "response_headers"):
        edits = answer.get(which) or {}
        for word in ("removed", "added"):
            if edits.get(word):
                fields.append((f"{which.replace('_', ' ')}, {word}", edits[word]))
    output.print_fields("explain", fields)
    for split in answer["splits"]:
        print()
        print_rows(split["backends"], _BACKENDS, False, f"backends of {split['pool']}")
    print()
    print_rows(answer["candidates"], _CANDIDATES, False, "routes")
