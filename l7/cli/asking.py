"""Commands that ask the daemon and change nothing: `l7lb status`, `routes`, `certs`, `metrics`."""

from __future__ import annotations

from pathlib import Path

import click

from l4lb.console import output
from l4lb.console.options import json_option
from l7.cli.common import ask, print_rows

_ROUTE_COLUMNS = (("ROUTE", "route"), ("MATCH", "match"), ("TO", "to"), ("REQUESTS", "requests"))
_CERTIFICATE_COLUMNS = (
    ("LISTENER", "listener"),
    ("NAMES", "names"),
    ("EXPIRES", "expires"),
    ("DAYS", "days"),
    ("FILE", "file"),
    ("FINGERPRINT", "fingerprint"),
)
_WORKER_COLUMNS = (
    ("WORKER", "worker"),
    ("GENERATION", "generation"),
    ("PID", "pid"),
    ("STATE", "state"),
    ("CONNECTIONS", "connections"),
    ("REQUESTS", "requests"),
)


@click.command()
@json_option
@click.pass_obj
def status(socket: Path, as_json: bool) -> None:
    """Show the daemon's state, its counters, and its workers.

    \b
    Example:
      l7lb status
    """
    answer = ask(socket).get("/status")
    if as_json:
        output.print_json(answer)
        return
    flat = ((k.replace("_", " "), v) for k, v in answer.items() if not isinstance(v, dict | list))
    output.print_fields("daemon", flat)
    print()
    counters = ((k.replace("_", " "), v) for k, v in answer["counters"].items())
    output.print_fields("counters", counters)
    print()
    print_rows(answer["workers"], _WORKER_COLUMNS, False, "workers")


@click.command()
@json_option
@click.pass_obj
def routes(socket: Path, as_json: bool) -> None:
    """List the routes in the order in which they are asked, with their counters.

    \b
    Example:
      l7lb routes
    """
    print_rows(ask(socket).rows("/routes"), _ROUTE_COLUMNS, as_json, "routes")


@click.command()
@json_option
@click.pass_obj
def certs(socket: Path, as_json: bool) -> None:
    """List the certificates with their names, and when they expire.

    \b
    Example:
      l7lb certs
    """
    print_rows(ask(socket).rows("/certificates"), _CERTIFICATE_COLUMNS, as_json, "certificates")


@click.command()
@click.pass_obj
def metrics(socket: Path) -> None:
    """Print the daemon's metrics in the text format of Prometheus.

    The same text is served on the admin socket (GET /metrics), and on TCP where `l7.metrics` says so.

    \b
    Example:
      l7lb metrics | grep l7lb_backend_requests
    """
    print(ask(socket).text("/metrics"), end="", flush=True)


COMMANDS = (status, routes, certs, metrics)
