"""`l4lb metrics`: one scrape on standard output."""

from __future__ import annotations

from pathlib import Path

import click

from l4lb.net.client import Client


@click.command("metrics")
@click.pass_obj
def command(socket: Path) -> None:
    """Print the daemon's metrics in the text format of Prometheus.

    The same text is served on the admin socket (GET /metrics), and on TCP where `l4.metrics` says so.

    \b
    Example:
      l4lb metrics | grep l4lb_backend_flows
    """
    print(Client(socket).text("/metrics"), end="", flush=True)
