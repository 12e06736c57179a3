"""`l4lb capture`: a pcapng file whose packets say what was decided of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from l4lb.cli.onlooker import Event, Onlooker, make_wish, say_ready, until_interrupted, wish_options
from l4lb.console import output


@click.command("capture")
@click.argument("file", type=click.Path(path_type=Path))
@wish_options
@click.option(
    "--snap",
    type=click.IntRange(64, 65536),
    default=65536,
    show_default=True,
    metavar="BYTES",
    help="Keep so much of each packet.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.pass_obj
def command(
    socket: Path, /, file: Path, snap: int, as_json: bool, client: str | None, reason: str | None, **wish: Any
) -> None:
    """Write packets to the services to FILE (pcapng), each with its decision as a comment.

    Wireshark shows the comments, and `frame.comment contains "no_backend"` finds them. Ends at Ctrl-C,
    --count or --seconds; the file can be read meanwhile. Packets are seen as in `l4lb trace`.

    \b
    Example:
      l4lb capture web.pcapng --service web --seconds 60
      l4lb replay web.pcapng -c planned.yaml
    """
    from l4lb.net.captures import CaptureWriter
    from l4lb.net.client import Client

    asked = Client(socket)
    asked.get("/flows/count")  # without a daemon no file is begun
    onlooker = Onlooker(asked, make_wish(client, reason, **wish), snap)
    writer = CaptureWriter(file)
    try:
        onlooker.on_ready = say_ready
        with until_interrupted():
            for event in onlooker.events():
                if event is None:
                    writer.flush()
                else:
                    writer.write(event.packet, comment(event))
    finally:
        writer.close()
    if as_json:
        tally = onlooker.tally
        output.print_json({"file": str(file), "packets": tally.shown, "left_out": tally.left_out})
    else:
        print(f"{file}: {onlooker.tally.text()}", file=sys.stderr)


def comment(event: Event) -> str:
    """The decision as `key=value` words, then the reason in words."""
    shown = {key: event.decision[key] for key in ("verdict", "reason", "service", "backend", "state")}
    words = [f"{key}={value}" for key, value in shown.items() if value is not None]
    if event.decision["offloaded"]:
        words.append("offloaded")
    return f"l4lb {' '.join(words)}: {event.decision['why']}"
