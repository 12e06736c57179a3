"""The `l7lb` command."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import click

from l4lb import __version__
from l4lb.console import output
from l4lb.console.options import json_option
from l4lb.console.shell import CONTEXT, EXIT_CODES, run_command
from l7.cli import asking, backends
from l7.cli.common import DEFAULT_SOCKET, PROGRAM, ask


@click.group(context_settings=CONTEXT, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name=PROGRAM)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    default=DEFAULT_SOCKET,
    envvar="L7LB_SOCKET",
    show_default=True,
    show_envvar=True,
    metavar="PATH",
    help="The daemon's admin socket.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(context: click.Context, socket: Path, debug: bool) -> None:
    """Balance HTTP requests over backends: route them, end TLS, keep sessions.

    \b
    Example:
      l7lb check -c /etc/l4lb/l4lb.yaml
      l7lb run -c /etc/l4lb/l4lb.yaml
    """
    context.obj = socket


for command in (backends.group, *asking.COMMANDS):
    cli.add_command(command)


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@json_option
@click.pass_obj
def reload(socket: Path, dry_run: bool, as_json: bool) -> None:
    """Make the daemon read its configuration again; on any error nothing changes.

    No request is lost: workers of the new configuration take over the listening sockets, the old ones end
    what they have. Health, counters, and what was drained or disabled stay. Backends that were added or
    removed by a command are as the file says again.

    \b
    Example:
      l7lb reload --dry-run
      l7lb reload
    """
    answer = ask(socket).post("/reload", {"dry_run": dry_run})
    if as_json:
        output.print_json(answer)
        return
    for line in answer["changes"]:
        print(line)
    if dry_run:
        print(f"would change {len(answer['changes'])} things; nothing was done")
    else:
        print(f"reloaded: generation {answer['generation']} in {answer['seconds']} s")


def main() -> NoReturn:
    """Runs the command; every error becomes one line and an exit code."""
    run_command(cli, PROGRAM)
