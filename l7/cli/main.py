"""The `l7lb` command."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from l4lb import __version__
from l4lb.console import output
from l4lb.console.options import config_option, json_option, program_options
from l4lb.console.shell import CONTEXT, EXIT_CODES, run_command
from l4lb.errors import ConfigError
from l7.cli import asking, backends, explain, importing, top
from l7.cli.common import DEFAULT_SOCKET, PROGRAM, ask


@click.group(context_settings=CONTEXT, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name=PROGRAM)
@program_options(DEFAULT_SOCKET, "L7LB_SOCKET", "The daemon's admin socket.")
@click.pass_context
def cli(context: click.Context, socket: Path, debug: bool) -> None:
    """Balance HTTP requests over backends: route them, end TLS, keep sessions.

    \b
    Example:
      l7lb check -c /etc/l4lb/l4lb.yaml
      l7lb run -c /etc/l4lb/l4lb.yaml
    """
    context.obj = socket


for command in (backends.group, explain.command, top.command, *asking.COMMANDS, importing.import_nginx):
    cli.add_command(command)


@cli.command()
@config_option
@click.option("--strict", is_flag=True, help="Fail on warnings, too, with exit code 2.")
@json_option
def check(config: Path, strict: bool, as_json: bool) -> None:
    """Check a configuration without touching the host.

    Warnings name what is allowed and will probably be regretted, with the reason. Certificates are read
    with their keys; names of backends are not looked up.

    \b
    Example:
      l7lb check -c /etc/l4lb/l4lb.yaml
    """
    from l4lb.net.files import read_config
    from l7.config.advice import locate
    from l7.config.parse import parse_placed
    from l7.process.blueprint import read_pems
    from l7.tls.pem import advice, describe

    placed = parse_placed(read_config(config), str(config))
    found, warnings = placed.value, locate(placed)
    now = datetime.now(UTC)
    for listener, pems in read_pems(found).items():
        for described in map(describe, pems):
            warnings += [(f"{config}: listener {listener}", text) for text in advice(described, now)]
    counts = {
        "listeners": len(found.listeners),
        "routes": len(found.routes),
        "pools": len(found.pools),
        "backends": sum(len(pool.backends) for pool in found.pools),
    }
    if as_json:
        shown = [{"where": where, "text": text} for where, text in warnings]
        ok = not (strict and warnings)
        output.print_json({"ok": ok, "config": str(config), **counts, "warnings": shown})
    else:
        for where, text in warnings:
            print(f"{where}: warning: {text}", file=sys.stderr)
        print(f"{config}: valid, {', '.join(f'{count} {what}' for what, count in counts.items())}")
    if strict and warnings:
        sys.exit(ConfigError.exit_code)


@cli.command()
@config_option
@click.option("--log-format", type=click.Choice(["logfmt", "json"]), default="logfmt", show_default=True)
@click.pass_obj
def run(socket: Path, config: Path, log_format: str) -> None:
    """Proxy in the foreground until SIGTERM (requests are answered first) or SIGINT (at once).

    SIGHUP reads the configuration again, SIGUSR1 opens the access log again, SIGUSR2 replaces the program by
    the one that is on disk; none of them loses a request.

    \b
    Example:
      l7lb run -c /etc/l4lb/l4lb.yaml
    """
    from l4lb.net import logs
    from l7.process.master import Master

    logs.set_up(as_json=log_format == "json")
    Master(config, socket).run()


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@json_option
@click.pass_obj
def reload(socket: Path, dry_run: bool, as_json: bool) -> None:
    """Make the daemon read its configuration again; on any error nothing changes.

    No request is lost: workers of the new configuration take over the listening sockets, the old ones end
    what they have. Health, counters, and what commands changed stay.

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
