"""`l4lb real-server`: what a backend needs that answers for VIPs itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from l4lb.console import output
from l4lb.errors import ConfigError
from l4lb.model import Address, Forward

if TYPE_CHECKING:
    from l4lb.control.realserver import Step

_FORWARDS = [str(forward) for forward in Forward if forward.answers_itself]


@click.command("real-server")
@click.option("--vip", "vips", multiple=True, metavar="ADDRESS", help="A VIP to answer for; may be repeated.")
@click.option(
    "--forward",
    type=click.Choice(_FORWARDS),
    default=str(Forward.DSR),
    show_default=True,
    help="How packets come here: the service's `forward`.",
)
@click.option(
    "--gue-port",
    type=click.IntRange(1, 65535),
    default=6080,
    show_default=True,
    help="UDP port of GUE: `tunnel.port` of the gateway.",
)
@click.option(
    "--interface", metavar="IF", help="Where packets come in.  [default: that of the default route]"
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="ADDRESS",
    help="This host's address in the gateway's configuration, one a family.  [default: the interface's]",
)
@click.option(
    "--mtu",
    type=click.IntRange(576, 65535),
    metavar="BYTES",
    help="MTU of the path from the gateway.  [default: the interface's]",
)
@click.option(
    "--tunnel-device",
    "device",
    metavar="IF",
    help="A device that decapsulates already, in place of a tunnel of our own.",
)
@click.option("--apply", "action", flag_value="apply", help="Do it. What is there already is left alone.")
@click.option("--undo", "action", flag_value="undo", help="Take back all that --apply did.")
@click.option("--dry-run", is_flag=True, help="Only say what --apply or --undo would do.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(
    socket: Path,
    vips: tuple[str, ...],
    forward: str,
    gue_port: int,
    interface: str | None,
    backends: tuple[str, ...],
    mtu: int | None,
    device: str | None,
    action: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Prepare a backend that answers clients itself (forward: dsr, ipip or gue).

    Run it on the backend. Alone it prints the commands of a shell; with --apply it does the same, and
    --undo takes it back. Backends of the other forwards need nothing.

    \b
    Example:
      l4lb real-server --vip 203.0.113.10 --forward ipip
      l4lb real-server --vip 203.0.113.10 --vip 2001:db8:f::10 --apply
      l4lb real-server --undo
    """
    if action == "undo":
        if vips:
            raise ConfigError("--undo takes back all that --apply did; leave out --vip")
        _undo(socket, dry_run=dry_run, as_json=as_json)
        return
    if not vips:
        raise ConfigError("--vip: name at least one address")
    from l4lb.control.realserver import Wish, plan
    from l4lb.net.nic import demand_interface, find_nic

    wish = Wish(
        vips=tuple(_address("--vip", text) for text in vips),
        forward=Forward(forward),
        gue_port=gue_port,
        backends=tuple(_address("--backend", text) for text in backends),
        mtu=mtu,
        device=device,
    )
    nic = find_nic(interface, (vip.version for vip in wish.vips))
    if device is not None:
        demand_interface("--tunnel-device", device)
    steps = plan(wish, nic)
    about = {"interface": nic.name, "mtu": wish.mtu or nic.mtu, "forward": forward, "vips": list(vips)}
    if action == "apply":
        _apply(socket, steps, about, dry_run=dry_run, as_json=as_json)
    else:
        _print_commands(steps, about, as_json=as_json)


def _print_commands(steps: Sequence[Step], about: dict[str, object], *, as_json: bool) -> None:
    from l4lb.control.realserver import commands, explain

    if as_json:
        listed = [{"why": explain(step), "commands": commands(step)} for step in steps]
        output.print_json({**about, "steps": listed})
        return
    print(f"# {', '.join(map(str, about['vips']))} by {about['forward']}, on {about['interface']}")  # type: ignore[call-overload]
    said = ""
    for step in steps:
        if explain(step) != said:
            said = explain(step)
            print(f"\n# {said}")
        print("\n".join(commands(step)))


def _apply(
    socket: Path, steps: Sequence[Step], about: dict[str, object], *, dry_run: bool, as_json: bool
) -> None:
    from l4lb.net.made import RealServerJournal
    from l4lb.net.privilege import demand_net_admin
    from l4lb.net.realserver import apply

    demand_net_admin()
    journal = RealServerJournal(_journal_path(socket))
    told = []
    with journal.alone():
        for outcome in apply(journal, steps, dry_run=dry_run):
            told.append({"what": outcome.what, "changed": outcome.changed})
            if not as_json:
                done = "would set up" if dry_run else "set up"
                print(f"{done if outcome.changed else 'already there'}: {outcome.what}", flush=True)
    if as_json:
        output.print_json({**about, "dry_run": dry_run, "steps": told})


def _undo(socket: Path, *, dry_run: bool, as_json: bool) -> None:
    from l4lb.net.made import RealServerJournal
    from l4lb.net.privilege import demand_net_admin
    from l4lb.net.realserver import undo

    demand_net_admin()
    journal = RealServerJournal(_journal_path(socket))
    told = []
    with journal.alone():
        for line in undo(journal, dry_run=dry_run):
            told.append(line)
            if not as_json:
                print(f"would have {line}" if dry_run else line, flush=True)
    if as_json:
        output.print_json({"dry_run": dry_run, "undone": told})
    elif not told:
        print("nothing is applied")


def _journal_path(socket: Path) -> Path:
    return socket.with_suffix(".real-server")


def _address(option: str, text: str) -> Address:
    from l4lb.control.endpoint import parse_address

    bracketed = f"[{text}]" if ":" in text and not text.startswith("[") else text
    try:
        return parse_address(bracketed)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None
