"""`./scripts/lab`: the namespaces alone, for trying things."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from tests.support.lab import (
    LAST_BACKEND,
    ROOT,
    SHAPES,
    SMALL_MTUS,
    Lab,
    LabError,
    existing_labs,
    unavailable,
)
from tests.support.lab.lab import DEFAULT_PREFIX, PREFIX
from tests.support.lab.process import in_namespace

FAILED, WRONG, INCAPABLE = 1, 2, 3


def fail(code: int, message: str) -> NoReturn:
    """End with one line on standard error."""
    click.echo(f"lab: {message}", err=True)
    sys.exit(code)


def check_prefix(_: click.Context, __: click.Parameter, value: str) -> str:
    """Refuse a prefix that cannot name namespaces."""
    if not PREFIX.fullmatch(value):
        raise click.BadParameter("a prefix is of a-z, 0-9 and single dashes, as in l4lb-2")
    return value


def prefix_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option that chooses one of several labs."""
    return click.option(
        "--prefix",
        default=DEFAULT_PREFIX,
        show_default=True,
        callback=check_prefix,
        help="Namespaces are called PREFIX-HOST; labs with different prefixes stand beside each other.",
    )(command)


@click.group(epilog="Example: ./scripts/lab up && ./scripts/lab exec client curl -sS http://203.0.113.10/")
def main() -> None:
    """A client, a gateway and backends in network namespaces, for trying things."""


def check_host() -> None:
    """End with exit code 3 where no lab can be made."""
    reason = unavailable()
    if reason is not None:
        fail(INCAPABLE, reason)


@main.command(epilog="Example: ./scripts/lab up --backends 5 --shape past-gateway")
@prefix_option
@click.option("--backends", type=click.IntRange(1, LAST_BACKEND), default=3, show_default=True)
@click.option(
    "--shape",
    type=click.Choice(SHAPES),
    default=SHAPES[0],
    show_default=True,
    help="Who reaches whom, and how (above).",
)
@click.option(
    "--small-mtu",
    type=click.Choice(SMALL_MTUS),
    default=SMALL_MTUS[0],
    show_default=True,
    help="Two routers with a link of 1400 bytes between them, before or behind the gateway.",
)
@click.option("--offloads/--no-offloads", default=True, show_default=True, help="Segmentation and checksums.")
def up(prefix: str, backends: int, shape: str, small_mtu: str, offloads: bool) -> None:
    """Make the lab, and leave it up; one of this prefix that stands is made anew.

    \b
    through-gateway  backends answer by the gateway, their default route
    past-gateway     the client has a leg among the backends, who answer it there
    one-armed        client, gateway and backends on one segment
    own-router       backends have no route but their segment; `peer` is a client there
    """
    check_host()
    try:
        lab = Lab(prefix, backends, shape=shape, small_mtu=small_mtu, offloads=offloads)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    lab.up()
    lab.leave()
    option = "" if prefix == DEFAULT_PREFIX else f"--prefix {prefix} "
    click.echo(f"The lab is up. Enter a host: ./scripts/lab exec {option}gateway bash")
    click.echo(f"Remove it:               ./scripts/lab down {option}".rstrip())
    print_table(describe(lab))


@main.command(epilog="Example: ./scripts/lab down --all")
@prefix_option
@click.option("--all", "everything", is_flag=True, help="All labs on this machine, of whatever prefix.")
def down(prefix: str, everything: bool) -> None:
    """Remove the lab and end what runs in it. A lab that is not up is no failure."""
    check_host()
    for name in list(existing_labs()) if everything else [prefix]:
        Lab(name).down()


@main.command(epilog="Example: ./scripts/lab status --json")
@prefix_option
@click.option("--json", "as_json", is_flag=True, help="One object.")
def status(prefix: str, as_json: bool) -> None:
    """Show the hosts, their addresses and what runs in them."""
    if os.geteuid() != 0:
        fail(INCAPABLE, "looking into network namespaces needs root: run it with sudo")
    is_up = prefix in existing_labs()
    described = describe(Lab.attach(prefix)) if is_up else {}
    if as_json:
        others = sorted(set(existing_labs()) - {prefix})
        click.echo(json.dumps({"prefix": prefix, "up": is_up, "hosts": described, "other_labs": others}))
    elif is_up:
        print_table(described)
    else:
        click.echo(f"No lab with the prefix {prefix!r} is up. Make it: ./scripts/lab up")


def describe(lab: Lab) -> dict[str, dict[str, Any]]:
    """Host → what there is to know about it."""
    return {
        name: {
            "namespace": host.namespace,
            "addresses": [a for i in host.plan.interfaces for a in (i.v4, i.v6) if a],
            "interfaces": list(host.interfaces),
            "processes": sorted(host.pids()),
        }
        for name, host in lab.hosts.items()
    }


def print_table(described: dict[str, dict[str, Any]]) -> None:
    """Print the hosts as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("host", "namespace", "IPv4", "IPv6", "processes"):
        table.add_column(heading, no_wrap=heading != "processes")
    for name, host in described.items():
        families = (
            "\n".join(a for a in host["addresses"] if ":" not in a) or "(bridge)",
            "\n".join(a for a in host["addresses"] if ":" in a),
        )
        processes = "\n".join(f"{pid} {program(pid)}" for pid in host["processes"])
        table.add_row(name, host["namespace"], *families, processes)
    Console().print(table)


def program(pid: int) -> str:
    """What a process is called: its program, or the module that Python runs; nothing if it has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    if words[1:2] == ["-m"]:
        return words[2].rpartition(".")[2]
    if Path(words[0]).name.startswith("python") and len(words) > 1 and words[1].startswith("/"):
        return Path(words[1]).name
    return Path(words[0]).name


@main.command(
    "exec",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: ./scripts/lab exec b1 tcpdump -ni eth0",
)
@prefix_option
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(prefix: str, host: str, command: tuple[str, ...]) -> None:
    """Run a command in a host; the exit code is the command's own."""
    check_host()
    lab = Lab.attach(prefix)
    if host not in lab.hosts:
        raise click.BadParameter(f"the lab has no host {host!r}: it has {', '.join(lab.hosts)}")
    environment = {**os.environ, "PATH": f"{ROOT}/.venv/bin:{os.environ.get('PATH', os.defpath)}"}
    if shutil.which(command[0], path=environment["PATH"]) is None:
        fail(FAILED, f"there is no program {command[0]!r} on this machine")
    argv = in_namespace(lab.host(host).namespace, command)
    os.execvpe(argv[0], argv, environment)


if __name__ == "__main__":
    try:
        main(prog_name="./scripts/lab")
    except LabError as error:
        fail(FAILED, str(error))
