"""`l4lb metrics`: one scrape on standard output."""

from __future__ import annotations

from pathlib import Path

import click

from l4lb.net.client import Client


class _TextClient(Client):
    """Also answers that are not JSON."""

    def text(self, route: str) -> str:
        """The answer of `route` as it is."""
        with self._request("GET", route, {}) as response:
            return response.read().decode()


@click.command("metrics")
@click.pass_obj
def command(socket: Path) -> None:
    """Print the daemon's metrics in the text format of Prometheus.

    The same text is served on the admin socket (GET /metrics), and on TCP where `l4.metrics` says so.

    \b
    Example:
      l4lb metrics | grep l4lb_backend_flows
    """
    print(_TextClient(socket).text("/metrics"), end="", flush=True)
