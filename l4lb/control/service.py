"""The list of services as values. Every service is checked when it has been read, all of them at the end."""

from __future__ import annotations

import re
from dataclasses import replace
from enum import StrEnum

from l4lb.control.conflicts import check_service, check_services
from l4lb.control.endpoint import parse_endpoint, parse_listen
from l4lb.control.field import Field
from l4lb.control.health_keys import parse_health, parse_passive
from l4lb.control.message import quoted
from l4lb.control.network import parse_network
from l4lb.control.placed import PlacedService
from l4lb.control.quorum_keys import KEYS as QUORUM_KEYS
from l4lb.control.quorum_keys import parse_sorry_server, with_quorum
from l4lb.control.units import parse_fraction
from l4lb.model import (
    Affinity,
    Backend,
    Forward,
    Network,
    OnDown,
    OnFailure,
    Scheduler,
    Service,
    SourceLimits,
)

MAX_WEIGHT = 65535
MAX_FLOWS = 10_000_000
"""The largest limit of flows, of connections, or of new ones in a second."""
MAX_BACKUP = 100
"""The last priority of a backup."""
MAX_SLOW_START_S = 3600.0
AFFINITY_TIMEOUT_S = (1.0, 86400.0)
MAX_DRAIN_TIMEOUT_S = 86400.0
_MAX_NAME = 64

_KEYS = (
    *("name", "listen", "forward", "scheduler", "on_failure", "allow", "deny", "limits", "affinity"),
    *("max_connections", "one_packet"),
    *("health", "passive", "on_down", "slow_start", "panic_threshold", "drain_timeout"),
    *QUORUM_KEYS,
    "backends",
)
_NAME = re.compile(r"[a-z0-9_.-]+")
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


class _By(StrEnum):
    """What affinity knows a client by."""

    CLIENT_IP = "client-ip"


def parse_services(field: Field) -> list[PlacedService]:
    """The services, which agree with each other. Raises ConfigError."""
    services = [_parse_service(item) for item in field.items("services")]
    if not services:
        raise field.error("the list is empty; add at least one service")
    check_services(services)
    return services


def _parse_service(field: Field) -> PlacedService:
    keys = field.keys(_KEYS, required=("name", "listen", "backends"))
    name = _parse_name(keys["name"])
    listens = [
        (listen, item)
        for item in keys["listen"].items_or_one("listens")
        for listen in item.parse(parse_listen, "an endpoint such as 203.0.113.10:80/tcp")
    ]
    if not listens:
        raise keys["listen"].error("the list is empty; add an endpoint such as 203.0.113.10:80/tcp")
    forward = keys["forward"].choice(Forward) if "forward" in keys else Forward.NAT
    scheduler = Scheduler.MAGLEV
    python = None
    if "scheduler" in keys and keys["scheduler"].is_mapping():
        python = _parse_python(keys["scheduler"])
    elif "scheduler" in keys:
        scheduler = keys["scheduler"].choice(Scheduler)
    on_failure = keys["on_failure"].choice(OnFailure) if "on_failure" in keys else OnFailure.DROP
    allow = _parse_networks(keys["allow"]) if "allow" in keys else []
    deny = _parse_networks(keys["deny"]) if "deny" in keys else []
    limits = _parse_limits(keys["limits"]) if "limits" in keys else SourceLimits()
    most = _parse_max_connections(keys)
    backends = [_parse_backend(item, most) for item in keys["backends"].items("backends")]
    if not backends:
        raise keys["backends"].error("the list is empty; add at least one backend")
    if "sorry_server" in keys:
        backends.append(parse_sorry_server(keys["sorry_server"]))
    value = Service(
        name=name,
        listens=tuple(listen for listen, _ in listens),
        backends=tuple(backend for backend, _ in backends),
        forward=forward,
        scheduler=scheduler,
        python=python,
        on_failure=on_failure,
        allow=tuple(network for network, _ in allow),
        deny=tuple(network for network, _ in deny),
        limits=limits,
        max_connections=most,
        one_packet=keys["one_packet"].flag() if "one_packet" in keys else False,
    )
    service = PlacedService(
        _with_changes(value, keys),
        field=field,
        keys=keys,
        listens=[item for _, item in listens],
        backends=[item for _, item in backends],
        networks=[*allow, *deny],
    )
    check_service(service)
    return _without_kept_ports(service) if forward.answers_itself else service


def _with_changes(service: Service, keys: dict[str, Field]) -> Service:
    """The service with what its keys say about backends that fail, come and go, and clients that stay."""
    version = service.listens[0].address.version
    return replace(
        with_quorum(service, keys),
        affinity=_parse_affinity(keys["affinity"], version) if "affinity" in keys else None,
        health=parse_health(keys["health"]) if "health" in keys else None,
        passive=parse_passive(keys["passive"]) if "passive" in keys else None,
        on_down=keys["on_down"].choice(OnDown) if "on_down" in keys else service.on_down,
        slow_start_s=keys["slow_start"].duration(0, MAX_SLOW_START_S) if "slow_start" in keys else 0.0,
        panic_threshold=(
            keys["panic_threshold"].parse(parse_fraction, "a part of the backends such as 50% or 0.5")
            if "panic_threshold" in keys
            else 0.0
        ),
        drain_timeout_s=(
            keys["drain_timeout"].duration(0, MAX_DRAIN_TIMEOUT_S)
            if "drain_timeout" in keys
            else service.drain_timeout_s
        ),
    )


def _parse_python(field: Field) -> str:
    """The class is not looked for here: reading a configuration runs no code."""
    what = "a class such as package.module:Class"
    field = field.keys(("python",), required=("python",))["python"]
    text = field.text(what)
    if not _CLASS.fullmatch(text):
        raise field.error(f"must be {what}, not {quoted(text)}")
    return text


def _parse_affinity(field: Field, version: int) -> Affinity:
    """`version` is the family of the service's clients, whose prefix the mask is."""
    affinity = Affinity()
    if not field.is_mapping():
        field.choice(_By)
        return affinity
    keys = field.keys(("by", "mask", "timeout", "group"), required=())
    if "by" in keys:
        keys["by"].choice(_By)
    if "group" in keys:
        affinity = replace(affinity, group=_parse_name(keys["group"]))
    if "timeout" in keys:
        affinity = replace(affinity, timeout_s=keys["timeout"].duration(*AFFINITY_TIMEOUT_S))
    if "mask" not in keys:
        return affinity
    if version == 4:
        return replace(affinity, prefix4=keys["mask"].integer(1, affinity.prefix4))
    return replace(affinity, prefix6=keys["mask"].integer(1, affinity.prefix6))


def _parse_name(field: Field) -> str:
    name = field.text("a name")
    if len(name) > _MAX_NAME:
        raise field.error(f"{quoted(name)} has {len(name)} characters; use at most {_MAX_NAME}")
    if not _NAME.fullmatch(name):
        raise field.error(f"{quoted(name)} is not a name; use the characters a-z, 0-9, _, . and -")
    return name


def _parse_networks(field: Field) -> list[tuple[Network, Field]]:
    return field.distinct(parse_network, "a network such as 10.0.0.0/8", "networks")


def _parse_limits(field: Field) -> SourceLimits:
    keys = field.keys(("new_flows", "flows"), required=())
    return SourceLimits(
        new_flows=keys["new_flows"].integer(1, MAX_FLOWS) if "new_flows" in keys else None,
        flows=keys["flows"].integer(1, MAX_FLOWS) if "flows" in keys else None,
    )


def _parse_max_connections(keys: dict[str, Field]) -> int | None:
    return keys["max_connections"].integer(1, MAX_FLOWS) if "max_connections" in keys else None


def _parse_backend(field: Field, most: int | None) -> tuple[Backend, Field]:
    """The backend, and the field that names its address; `most` are the connections that it may have where
    it does not say so itself."""
    if not field.is_mapping():
        address, port = field.parse(parse_endpoint, "an endpoint such as 10.2.0.11:8080")
        return Backend(address, port, max_connections=most), field
    known = ("address", "weight", "backup", "max_connections", "maintenance")
    keys = field.keys(known, required=("address",))
    address, port = keys["address"].parse(parse_endpoint, "an endpoint such as 10.2.0.11:8080")
    weight = keys["weight"].integer(0, MAX_WEIGHT) if "weight" in keys else 1
    backup = _parse_backup(keys["backup"]) if "backup" in keys else 0
    own = _parse_max_connections(keys)
    backend = Backend(
        address,
        port,
        weight,
        backup,
        max_connections=most if own is None else own,
        maintenance=keys["maintenance"].flag() if "maintenance" in keys else False,
    )
    return backend, keys["address"]


def _parse_backup(field: Field) -> int:
    what = f"true, false or a priority from 1 to {MAX_BACKUP}"
    if field.text(what) in ("true", "false"):
        return int(field.flag(what))
    return field.integer(1, MAX_BACKUP, what)


def _without_kept_ports(service: PlacedService) -> PlacedService:
    """A port that packets keep anyway means the same as none, and is to be the same backend."""
    backends = tuple(replace(backend, port=None) for backend in service.value.backends)
    return replace(service, value=replace(service.value, backends=backends))
