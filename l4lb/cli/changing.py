"""Commands that change what runs: `l4lb backends drain`, `enable`, `disable`, `weight`, `add`, `remove`, and
`l4lb flows flush`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from l4lb.console.options import about_a_backend, drain_options, given_weight, json_option, weight_option
from l4lb.console.output import print_done
from l4lb.console.waiting import wait_for_none

_about_a_backend = about_a_backend("service")


@_about_a_backend
@drain_options
def drain(socket: Path, service: str, backend: str, wait: bool, timeout: float, as_json: bool) -> None:
    """Let a backend's flows end and give it no new ones.

    \b
    Example:
      l4lb backends drain web 10.2.0.11:8080 --wait
    """
    answer = _change(socket, "drain", service, backend)
    if wait:
        answer["flows"] = wait_for_none(
            lambda: _live_flows(socket, service, backend),
            f"{backend} of {service}",
            "flows",
            timeout,
            quiet=as_json,
        )
    print_done(answer, as_json, f"{backend} of {service} takes no new flows")


@_about_a_backend
def enable(socket: Path, service: str, backend: str, as_json: bool) -> None:
    """Give a backend that was drained, disabled or in maintenance new flows again.

    \b
    Example:
      l4lb backends enable web 10.2.0.11:8080
    """
    print_done(_change(socket, "enable", service, backend), as_json, f"{backend} of {service} is enabled")


@_about_a_backend
@click.option("--maintenance", is_flag=True, help="Somebody works at it: afterwards checks must find it up.")
@click.option(
    "--end-flows", is_flag=True, help="End the flows that it has: TCP is reset, UDP goes elsewhere."
)
def disable(
    socket: Path, service: str, backend: str, maintenance: bool, end_flows: bool, as_json: bool
) -> None:
    """Take a backend out: it gets no new flows and is not checked.

    \b
    Example:
      l4lb backends disable web 10.2.0.11:8080
      l4lb backends disable web 10.2.0.11:8080 --maintenance --end-flows
    """
    answer = _change(socket, "disable", service, backend, maintenance=maintenance, end_flows=end_flows)
    print_done(
        answer, as_json, f"{backend} of {service} is {'in maintenance' if maintenance else 'disabled'}"
    )


@_about_a_backend
@given_weight
def weight(socket: Path, service: str, backend: str, weight: int | None, as_json: bool) -> None:
    """Give a backend another weight, or the configured one back.

    \b
    Example:
      l4lb backends weight web 10.2.0.11:8080 5
      l4lb backends weight web 10.2.0.11:8080 default
    """
    answer = _change(socket, "weight", service, backend, weight=weight)
    print_done(
        answer, as_json, f"{backend} of {service} has weight {'default' if weight is None else weight}"
    )


@_about_a_backend
@weight_option
def add(socket: Path, service: str, backend: str, weight: int, as_json: bool) -> None:
    """Add a backend until the next reload; write it into the configuration to keep it.

    \b
    Example:
      l4lb backends add web 10.2.0.14:8080 --weight 2
    """
    answer = _change(socket, "add", service, backend, weight=weight)
    print_done(answer, as_json, f"{backend} is a backend of {service} until the next reload")


@_about_a_backend
def remove(socket: Path, service: str, backend: str, as_json: bool) -> None:
    """Remove a backend until the next reload; its flows go to others with their next packet.

    \b
    Example:
      l4lb backends remove web 10.2.0.14:8080
    """
    answer = _change(socket, "remove", service, backend)
    print_done(answer, as_json, f"{backend} is no backend of {service} until the next reload")


@click.command()
@click.option("--service", required=True, metavar="NAME", help="The flows of this service.")
@click.option("--backend", metavar="BACKEND", help="Only those to this backend.")
@json_option
@click.pass_obj
def flush(socket: Path, service: str, backend: str | None, as_json: bool) -> None:
    """Forget flows. Their next packets are decided as those of new ones.

    \b
    Example:
      l4lb flows flush --service web --backend 10.2.0.11:8080
    """
    answer = _client(socket).post("/flows/flush", {"service": service, "backend": backend})
    print_done(answer, as_json, f"{answer['flushed']} flows forgotten")


COMMANDS = (drain, enable, disable, weight, add, remove)


def _change(socket: Path, action: str, service: str, backend: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = _client(socket).post(
        f"/backends/{action}", {"service": service, "backend": backend, **more}
    )
    return answer


def _live_flows(socket: Path, service: str, backend: str) -> int:
    """Flows that may still carry something: not those that close, which are only remembered for late
    packets."""
    rows = _client(socket).rows("/backends")
    active = next((r["active"] for r in rows if (r["service"], r["backend"]) == (service, backend)), 0)
    if active:
        return int(active)
    filters = {"service": service, "backend": backend}
    return sum(
        int(_client(socket).get("/flows/count", state=state, **filters)["flows"])
        for state in ("syn_recv", "udp")
    )


def _client(socket: Path) -> Any:
    from l4lb.net.client import Client

    return Client(socket)
