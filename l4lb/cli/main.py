"""The `l4lb` command."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import click

from l4lb import __version__
from l4lb.cli import changing
from l4lb.console import output
from l4lb.console.lazy import LazyGroup
from l4lb.console.options import config_option, json_option, program_options
from l4lb.console.shell import CONTEXT, EXIT_CODES, run_command
from l4lb.errors import ConfigError, L4lbError

_DEFAULT_SOCKET = Path("/run/l4lb/l4lb.sock")
_DOWN_TIMEOUT_S = 15
_BACKEND_COLUMNS = (
    ("SERVICE", "service"),
    ("BACKEND", "backend"),
    ("STATE", "state"),
    ("WEIGHT", "weight"),
    ("FLOWS", "flows"),
    ("ACTIVE", "active"),
    ("OPEN", "open"),
    ("MAX", "max_connections"),
    ("SCHEDULED", "scheduled"),
    ("PACKETS IN", "packets_in"),
    ("BYTES IN", "bytes_in"),
    ("PACKETS OUT", "packets_out"),
    ("BYTES OUT", "bytes_out"),
    ("OFFLOADED", "packets_offloaded"),
)
_SERVICE_COLUMNS = (
    ("SERVICE", "service"),
    ("LISTEN", "listen"),
    ("FORWARD", "forward"),
    ("SCHEDULER", "scheduler"),
    ("STATE", "state"),
    ("UP", "up"),
    ("BACKENDS", "backends"),
    ("QUORUM", "quorum"),
    *(column for column in _BACKEND_COLUMNS[4:] if column[1] != "max_connections"),
)
_MODULES = {
    "capture": "l4lb.cli.capture",
    "flows": "l4lb.cli.flows",
    "metrics": "l4lb.cli.metrics",
    "real-server": "l4lb.cli.realserver",
    "replay": "l4lb.cli.replay",
    "top": "l4lb.cli.top",
    "trace": "l4lb.cli.trace",
}
"""Commands with modules of their own."""


@click.group(cls=LazyGroup, modules=_MODULES, context_settings=CONTEXT, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="l4lb")
@program_options(_DEFAULT_SOCKET, "L4LB_SOCKET", "The daemon's admin socket; lock and journal lie beside it.")
@click.pass_context
def cli(context: click.Context, socket: Path, debug: bool) -> None:
    """Balance TCP and UDP flows over backends on a Linux gateway.

    \b
    Example:
      l4lb check -c examples/nat.yaml
      l4lb run -c examples/nat.yaml
    """
    context.obj = socket


@cli.command()
@config_option
@click.option("--strict", is_flag=True, help="Fail on warnings, too, with exit code 2.")
@json_option
def check(config: Path, strict: bool, as_json: bool) -> None:
    """Check a configuration without touching the host.

    Warnings name what is allowed and will probably be regretted, with the reason.

    \b
    Example:
      l4lb check -c examples/nat.yaml
      l4lb check -c examples/health.yaml --strict
    """
    from l4lb.control.advice import locate
    from l4lb.control.config import parse_placed
    from l4lb.net.files import read_config
    from l4lb.net.userscheduler import Schedulers

    placed = parse_placed(read_config(config), str(config))
    Schedulers().load(placed)
    warnings = locate(placed)
    services = len(placed.value.services)
    backends = sum(not backend.sorry for service in placed.value.services for backend in service.backends)
    if as_json:
        output.print_json(
            {
                "ok": not (strict and warnings),
                "config": str(config),
                "services": services,
                "backends": backends,
                "warnings": [{"where": where, "text": text} for where, text in warnings],
            }
        )
    else:
        for where, text in warnings:
            print(f"{where}: warning: {text}", file=sys.stderr)
        count = len(warnings)
        counted = f", {count} {'warning' if count == 1 else 'warnings'}" if warnings else ""
        print(f"{config}: valid, {services} services, {backends} backends{counted}")
    if strict and warnings:
        sys.exit(ConfigError.exit_code)


@cli.command()
@json_option
def doctor(as_json: bool) -> None:
    """Show what this host's kernel can do, and what is used instead where it cannot.

    Nothing is changed. Exit code 3 where no datapath works.

    \b
    Example:
      l4lb doctor
    """
    from l4lb.net.probe import probe_host

    host = probe_host()
    datapaths = [str(datapath) for datapath in host.datapaths()]
    rows = [
        {
            "feature": f.name,
            "present": f.present,
            "purpose": f.purpose,
            "instead": "" if f.present else f.instead,
        }
        for f in host.features
    ]
    if as_json:
        output.print_json({"kernel": host.kernel, "datapaths": datapaths, "features": rows})
    else:
        columns = (("FEATURE", "feature"), ("PRESENT", "present"), ("FOR", "purpose"), ("INSTEAD", "instead"))
        output.print_rows(rows, columns, as_json=False, title=f"kernel {host.kernel}", empty="")
        print(f"datapaths that work: {', '.join(datapaths) or 'none'}")
        if datapaths:
            print(f"`datapath: auto` uses {datapaths[0]}")
    if not datapaths:
        missing = ", ".join(f.name for f in host.features if not f.present)
        output.complain(f"no datapath works on this host; missing: {missing}")
        sys.exit(3)


@cli.command()
@config_option
@click.option("--log-format", type=click.Choice(["logfmt", "json"]), default="logfmt", show_default=True)
@click.pass_obj
def run(socket: Path, config: Path, log_format: str) -> None:
    """Balance in the foreground until SIGTERM or SIGINT, then put the host back as it was.

    SIGHUP reads the configuration again. A run that was killed is taken over by the next.

    \b
    Example:
      l4lb run -c /etc/l4lb/l4lb.yaml
    """
    import asyncio

    from l4lb.cli.daemon import Daemon
    from l4lb.net import logs

    logs.set_up(as_json=log_format == "json")
    # Until the daemon listens for signals itself, the ordinary way out undoes what was begun.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    daemon = Daemon(config, socket)
    daemon.start()
    try:
        asyncio.run(daemon.serve())
    finally:
        daemon.stop()


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@json_option
@click.pass_obj
def reload(socket: Path, dry_run: bool, as_json: bool) -> None:
    """Make the daemon read its configuration again; on any error nothing changes.

    Flows, counters, the state of backends and what was drained stay. Backends that were added or removed
    by a command are as the file says again.

    \b
    Example:
      l4lb reload --dry-run
      l4lb reload
    """
    answer = _client(socket).post("/reload", {"dry_run": dry_run})
    if as_json:
        output.print_json(answer)
        return
    for line in answer["changes"]:
        print(line)
    if dry_run:
        print(f"would change {len(answer['changes'])} things; nothing was done")
    else:
        print(f"reloaded: {answer['services']} services in {answer['seconds']} s")


@cli.command()
@json_option
@click.pass_obj
def status(socket: Path, as_json: bool) -> None:
    """Show the daemon's state, its counters by reason, and its queues.

    \b
    Example:
      l4lb status
    """
    answer = _client(socket).get("/status")
    if as_json:
        output.print_json(answer)
        return
    flat = ((k.replace("_", " "), v) for k, v in answer.items() if not isinstance(v, dict | list))
    output.print_fields("daemon", flat)
    for name in ("service_states", "reassembly", "icmp"):
        print()
        output.print_fields(
            name.replace("_", " "), ((k.replace("_", " "), v) for k, v in answer[name].items())
        )
    print()
    _print_reasons(answer["reasons"])
    print()
    keys = list(dict.fromkeys(key for queue in answer["queues"] for key in queue))
    output.print_rows(
        answer["queues"],
        [(key.replace("_", " ").upper(), key) for key in keys],
        as_json=False,
        title="queues",
        empty="no queues",
    )


@cli.command()
@json_option
@click.pass_obj
def services(socket: Path, as_json: bool) -> None:
    """List the services with what they are and their counters.

    UP are the backends that count for the QUORUM; `--json` says why a service is what it is.

    \b
    Example:
      l4lb services
    """
    _print(_client(socket).rows("/services"), _SERVICE_COLUMNS, as_json, "services")


@cli.group()
def backends() -> None:
    """Look at backends, and change them while they work."""


@backends.command("ls")
@json_option
@click.pass_obj
def backends_ls(socket: Path, as_json: bool) -> None:
    """List every backend with its counters.

    FLOWS are remembered flows, ACTIVE established TCP connections, SCHEDULED new flows since the start.

    \b
    Example:
      l4lb backends ls
    """
    _print(_client(socket).rows("/backends"), _BACKEND_COLUMNS, as_json, "backends")


for command in changing.COMMANDS:
    backends.add_command(command)


@cli.command()
@click.argument("client")
@click.argument("service")
@json_option
@click.pass_obj
def explain(socket: Path, client: str, service: str, as_json: bool) -> None:
    """Say where a packet from CLIENT to SERVICE would go, and why. Nothing is changed.

    \b
    Example:
      l4lb explain 198.51.100.7:40000 203.0.113.10:80/tcp
    """
    from l4lb.cli.flows import COLUMNS

    answer = _client(socket).get("/explain", client=client, service=service)
    if as_json:
        output.print_json(answer)
        return
    keys = ["client", "listen", "service", "forward", "scheduler", "affinity", "state", "verdict"]
    fields = [(key, answer[key]) for key in keys if key != "affinity" or answer[key] is not None]
    fields.append(("reason", f"{answer['reason']}: {answer['why']}"))
    if answer["verdict"] == "forward":
        alike = answer["backend"] is not None
        by_queue = ", ".join(f"queue {a['queue']}: {a['backend']}" for a in answer["by_queue"])
        fields.append(("backend", answer["backend"] if alike else by_queue))
    output.print_fields("explain", fields)
    if answer["flow"]:
        print()
        _print([answer["flow"]], COLUMNS, False, "flow")
    if answer["backends"]:
        print()
        _print(answer["backends"], _BACKEND_COLUMNS[1:], False, "backends of the service")


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.pass_obj
def down(socket: Path, dry_run: bool) -> None:
    """End the daemon if one runs, and remove all that it, or a killed one, left on the host.

    \b
    Example:
      l4lb down --dry-run
      l4lb down
    """
    from l4lb.control import fastpath
    from l4lb.control.ruleset import TABLE
    from l4lb.net import nft
    from l4lb.net.fastpath import remove_fast_path
    from l4lb.net.host import restore_host
    from l4lb.net.journal import Journal, journal_path
    from l4lb.net.lock import RunLock, lock_path
    from l4lb.net.privilege import demand_net_admin

    demand_net_admin()
    lock = RunLock(lock_path(socket))
    owner = lock.owner()
    if dry_run:
        changes = Journal(journal_path(socket)).changes
        if owner:
            print(f"would end process {owner}")
        if nft.table_exists(TABLE):
            print(f"would delete table inet {TABLE}")
        if nft.table_exists(TABLE, fastpath.FAMILY):
            print(f"would delete table {fastpath.FAMILY} {TABLE}")
        for interface, address in changes.addresses:
            print(f"would remove {address} from {interface}")
        for interface, address in changes.routes:
            print(f"would remove the route to {address} by {interface}")
        for name, value in changes.sysctls.items():
            print(f"would set {name.replace('/', '.')} back to {value}")
        return
    if owner:
        _end(lock, owner)
        print(f"ended process {owner}")
    lock.acquire()
    try:
        if remove_fast_path():
            print(f"deleted table {fastpath.FAMILY} {TABLE}")
        if nft.delete_table(TABLE):
            print(f"deleted table inet {TABLE}")
        for line in restore_host(Journal(journal_path(socket))):
            print(line)
        socket.unlink(missing_ok=True)
    finally:
        lock.release()


def _end(lock: Any, owner: int) -> None:
    """Asks the daemon to end and waits until it has."""
    try:
        os.kill(owner, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise L4lbError(f"process {owner} may not be ended; run as root") from error
    deadline = time.monotonic() + _DOWN_TIMEOUT_S
    while lock.owner() == owner:
        if time.monotonic() > deadline:
            raise L4lbError(
                f"process {owner} has not ended in {_DOWN_TIMEOUT_S} s; `kill -9 {owner}`, then again"
            )
        time.sleep(0.02)


def _client(socket: Path) -> Any:
    from l4lb.net.client import Client

    return Client(socket)


def _print(rows: Iterable[Any], columns: Any, as_json: bool, title: str) -> None:
    output.print_rows(rows, columns, as_json=as_json, title=title, empty=f"no {title}")


def _print_reasons(reasons: dict[str, int]) -> None:
    from l4lb.dataplane.decision import Reason

    rows = [
        {
            "reason": name,
            "verdict": Reason[name.upper()].verdict.name.lower(),
            "packets": count,
            "meaning": Reason[name.upper()].text,
        }
        for name, count in reasons.items()
    ]
    columns = (("REASON", "reason"), ("VERDICT", "verdict"), ("PACKETS", "packets"), ("MEANING", "meaning"))
    output.print_rows(rows, columns, as_json=False, title="packets by reason", empty="")


def main() -> NoReturn:
    """Runs the command; every error becomes one line and an exit code."""
    run_command(cli, "l4lb")
