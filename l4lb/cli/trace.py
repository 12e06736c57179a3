"""`l4lb trace`: decisions as they happen, a line a packet."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from l4lb.cli.onlooker import Event, Onlooker, make_wish, say_ready, until_interrupted, wish_options
from l4lb.console import output

_HEADERS = 256


@click.command("trace")
@wish_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each packet.")
@click.pass_obj
def command(socket: Path, /, as_json: bool, client: str | None, reason: str | None, **wish: Any) -> None:
    """Show packets to the services as they come in, and what is decided of them.

    Packets are seen beside their way and looked up a moment later; the balancer does not wait. What comes
    faster than --rate is left out and counted. Answers are not shown.

    \b
    Example:
      l4lb trace --client 198.51.100.0/24
      l4lb trace --service web --reason scheduled --count 10 --json
    """
    from l4lb.net.client import Client

    onlooker = Onlooker(Client(socket), make_wish(client, reason, **wish), _HEADERS)
    if not as_json:
        onlooker.on_left_out = lambda count: print(f"… {count} packets left out", flush=True)
    onlooker.on_ready = say_ready
    with until_interrupted():
        for event in onlooker.events():
            if event is None:
                sys.stdout.flush()
            elif as_json:
                output.print_json(event.row() | decode(event))
            else:
                print(render(event))
    print(onlooker.tally.text(), file=sys.stderr)


def decode(event: Event) -> dict[str, Any]:
    """TCP flags as tcpdump's letters, None for UDP, and the bytes behind the headers."""
    from scapy.layers.inet import TCP

    body, header, flags = event.packet.data[event.ip.body :], 8, None
    if event.ip.protocol == 6 and len(body) >= 20:
        tcp = TCP(body[:20])
        header, flags = 4 * tcp.dataofs, str(tcp.flags)
    return {"flags": flags, "payload": max(0, event.ip.total - (event.ip.body + header))}


def render(event: Event) -> str:
    """One line for people."""
    row = event.row() | decode(event)
    seconds = row["time"]
    clock = time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{int(seconds % 1 * 1e6):06}"
    packet = f"{row['client']} → {row['listen']} {row['flags'] or '-'} {row['payload']} B"
    where = f" → {row['backend']}" if row["backend"] else ""
    service = f" ({row['service']})" if row["service"] else ""
    by = ", by the kernel" if row["offloaded"] else ""
    return f"{clock} {packet}  {row['verdict']} {row['reason']}{where}{service}{by}"
