"""The keys of a service about what is done when too few of its backends are up.

Without `quorum` that is when none is. A sorry server is kept as one more backend: what a backend must be, it
must be, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from l4lb.control.endpoint import parse_endpoint
from l4lb.control.field import Field
from l4lb.control.message import quoted
from l4lb.control.placed import PlacedService
from l4lb.control.quorum import needed_for
from l4lb.control.units import parse_fraction
from l4lb.model import Backend, BelowQuorum, OnNoBackend, Quorum, Service

KEYS = ("quorum", "hysteresis", "below_quorum", "sorry_server", "on_no_backend", "withdraw_vip")
_MOST = 10_000


def parse_sorry_server(field: Field) -> tuple[Backend, Field]:
    """The backend that it is, and the field that names its address. Raises ConfigError."""
    place = field.keys(("address",), required=("address",))["address"] if field.is_mapping() else field
    address, port = place.parse(parse_endpoint, "an endpoint such as 10.2.0.99:8080")
    return Backend(address, port, sorry=True), place


def with_quorum(service: Service, keys: dict[str, Field]) -> Service:
    """The service with what its keys say of its quorum. Raises ConfigError."""
    quorum = _parse_quorum(keys["quorum"]) if "quorum" in keys else Quorum()
    if "hysteresis" in keys:
        quorum = replace(quorum, hysteresis=keys["hysteresis"].integer(0, _MOST))
    # As keepalived: with a sorry server nobody else serves below the quorum, without one who is left does.
    below = BelowQuorum.REFUSE if "sorry_server" in keys else BelowQuorum.SERVE
    if "below_quorum" in keys:
        below = keys["below_quorum"].choice(BelowQuorum)
    refused = keys["on_no_backend"].choice(OnNoBackend) if "on_no_backend" in keys else OnNoBackend.DROP
    withdraws = keys["withdraw_vip"].flag() if "withdraw_vip" in keys else False
    return replace(service, quorum=quorum, below_quorum=below, on_no_backend=refused, withdraw_vip=withdraws)


def _parse_quorum(field: Field) -> Quorum:
    what = f"a number of backends from 1 to {_MOST}, or a part of them such as 50%"
    text = field.text(what)
    if not text.endswith("%"):
        return Quorum(field.integer(1, _MOST, what))
    part = field.parse(parse_fraction, what)
    if not part:
        raise field.error(f"must be {what}, not {quoted(text)}")
    return Quorum(part=part)


def check_withdrawals(vip_interface: str | None, services: Sequence[PlacedService]) -> None:
    """Only what the balancer has added can be taken away."""
    for service in services:
        if service.value.withdraw_vip and vip_interface is None:
            raise service.keys["withdraw_vip"].error(
                "l4.vip_interface is none, so no address is added that could be withdrawn; "
                "name an interface there, or remove it"
            )


def check_quorum(service: PlacedService) -> None:
    """What could never be, or could never end."""
    backends = [backend for backend in service.value.backends if not backend.sorry]
    needed = needed_for(service.value.quorum, sum(1 for backend in backends if not backend.backup))
    hysteresis = service.value.quorum.hysteresis
    if needed > len(backends):
        raise service.keys["quorum"].error(
            f"{needed} backends can never be up, the service has {len(backends)}; use {len(backends)} or less"
        )
    if not hysteresis:
        return
    if hysteresis >= needed:
        raise service.keys["hysteresis"].error(
            f"must be below the quorum, which is {needed} here; "
            + (f"use {needed - 1} or less" if needed > 1 else "set a quorum of 2 or more, or remove it")
        )
    if needed + hysteresis > len(backends):
        raise service.keys["hysteresis"].error(
            f"once lost, the quorum would be regained with {needed} + {hysteresis} backends up, and the "
            f"service has {len(backends)}; add backends, or use a smaller quorum"
        )
