"""`l4lb replay`: a capture through the core, without a host."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from l4lb.console import output
from l4lb.errors import L4lbError

if TYPE_CHECKING:
    from l4lb.control.rehearsal import Choice, Rehearsal
    from l4lb.net.captures import CaptureReader

Json = dict[str, Any]
_DEFAULT_CONFIG = Path("/etc/l4lb/l4lb.yaml")
_PROGRESS_BYTES = 8 << 20
_PROGRESS_EVERY = 4096
_COLUMNS = (
    ("SERVICE", "service"),
    ("BACKEND", "backend"),
    ("WEIGHT", "weight"),
    ("WEIGHT %", "weight_percent"),
    ("FLOWS", "flows"),
    ("FLOWS %", "flows_percent"),
    ("PACKETS", "packets"),
    ("BYTES", "bytes"),
)


@dataclass(slots=True)
class Comparison:
    """The same packets by two configurations; a flow is looked at when its backend is chosen by the first."""

    flows: int = 0
    moved: int = 0
    """They would go to another backend, or to one of another service."""
    lost: int = 0
    """They would go to none."""
    gained: int = 0
    """Only the second configuration would take them."""

    def add(self, first: Choice, second: Choice) -> None:
        """Takes one packet into account."""
        if first.begins:
            self.flows += 1
            if second.backend is None:
                self.lost += 1
            elif (first.service, first.backend) != (second.service, second.backend):
                self.moved += 1
        elif second.begins and first.backend is None:
            self.gained += 1


@dataclass(slots=True)
class Replay:
    """What was read so far."""

    packets: int = 0
    not_ip: int = 0
    seconds: float = 0.0
    comparison: Comparison = field(default_factory=Comparison)

    def run(self, capture: CaptureReader, first: Rehearsal, second: Rehearsal | None) -> Iterator[int]:
        """Decides every packet by one or two configurations; yields the position in the file now and then."""
        began: float | None = None
        for packet in capture:
            began = packet.time_s if began is None else began
            self.seconds = max(self.seconds, packet.time_s - began)
            self.packets += 1
            if packet.data:
                choice = first.decide(packet.data, packet.length, packet.time_s)
                if second is not None:
                    self.comparison.add(choice, second.decide(packet.data, packet.length, packet.time_s))
            else:
                self.not_ip += 1
            if self.packets % _PROGRESS_EVERY == 0:
                yield capture.position


@click.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    default=_DEFAULT_CONFIG,
    show_default=True,
    metavar="FILE",
    help="The configuration that decides.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Another configuration: how many flows would it send elsewhere?",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(file: Path, config: Path, against: Path | None, as_json: bool) -> None:
    """Send the packets of a capture (pcap, pcapng) through the core: who would get what?

    No host is touched and no daemon asked. Every backend counts as up, and time is that of the packets.

    \b
    Example:
      l4lb replay monday.pcapng -c /etc/l4lb/l4lb.yaml
      l4lb replay monday.pcapng -c now.yaml --against planned.yaml
    """
    from l4lb.cli.assembly import machine_key
    from l4lb.cli.configfile import ConfigFile
    from l4lb.control.rehearsal import Rehearsal
    from l4lb.net.captures import CaptureReader

    configs = [ConfigFile(path).load() for path in (config, against) if path is not None]
    key = machine_key()
    first, *others = [Rehearsal(loaded, key) for loaded in configs]
    second = others[0] if others else None
    replay = Replay()
    damage: L4lbError | None = None
    with CaptureReader(file) as capture, _progress(capture) as moved_to:
        try:
            for position in replay.run(capture, first, second):
                moved_to(position)
        except L4lbError as error:
            if not replay.packets:
                raise
            damage = error
    report: Json = {
        "file": str(file),
        "packets": replay.packets,
        "not_ip": replay.not_ip,
        "seconds": round(replay.seconds, 3),
        **describe(config, first),
        "against": describe(against, second) | describe_comparison(replay.comparison)
        if against is not None and second is not None
        else None,
    }
    if as_json:
        output.print_json(report)
    else:
        _print(report)
    if damage is not None:
        raise damage


def describe(path: Path, rehearsal: Rehearsal) -> Json:
    """Reasons and balance of one configuration. Shares are of the service, 0 to 1."""
    rows = []
    for service in rehearsal.config.services:
        counted = [(backend, rehearsal.counters(service.name, backend.name)) for backend in service.backends]
        weights = sum(backend.weight for backend in service.backends)
        flows = sum(counters.scheduled for _, counters in counted)
        rows += [
            {
                "service": service.name,
                "backend": backend.name,
                "weight": backend.weight,
                "weight_share": _share(backend.weight, weights),
                "flows": counters.scheduled,
                "flows_share": _share(counters.scheduled, flows),
                "packets": counters.packets_in,
                "bytes": counters.bytes_in,
            }
            for backend, counters in counted
        ]
    return {"config": str(path), "reasons": rehearsal.reasons(), "backends": rows}


def describe_comparison(comparison: Comparison) -> Json:
    """How many flows the second configuration would send elsewhere."""
    elsewhere = comparison.moved + comparison.lost
    return {
        "flows": comparison.flows,
        "moved": comparison.moved,
        "lost": comparison.lost,
        "gained": comparison.gained,
        "disruption": _share(elsewhere, comparison.flows),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _print(report: Json) -> None:
    aside = f", {report['not_ip']} of them not IP" if report["not_ip"] else ""
    print(f"{report['file']}: {report['packets']} packets in {report['seconds']} s{aside}\n")
    _print_balance(report)
    other = report["against"]
    if other is None:
        return
    print()
    _print_balance(other)
    share = other["disruption"]
    percent = "" if share is None else f" ({100 * share:.1f} %)"
    print(
        f"\nof {other['flows']} flows {other['moved']} would go to another backend, {other['lost']} to none"
        f"{percent}; {other['gained']} would be taken that are not now"
    )


def _print_balance(report: Json) -> None:
    rows = [
        {
            **row,
            "weight_percent": _percent(row["weight_share"]),
            "flows_percent": _percent(row["flows_share"]),
        }
        for row in report["backends"]
    ]
    output.print_rows(rows, _COLUMNS, as_json=False, title=report["config"], empty="no backends")
    counts = ", ".join(f"{name} {count}" for name, count in report["reasons"].items())
    print(f"packets by reason: {counts or 'none'}")


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)


@contextmanager
def _progress(capture: CaptureReader) -> Iterator[Any]:
    """What is called with the position in the file; shown for large files on a terminal."""
    if capture.size < _PROGRESS_BYTES or not sys.stderr.isatty():
        yield lambda position: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(capture.path.name, total=capture.size)
        yield lambda position: progress.update(task, completed=position)
