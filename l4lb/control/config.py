"""The configuration file as a value: YAML text to `L4Config`. docs/configuration.md is its manual.

`parse_config` is pure: `l4lb.net.files` reads the file. It stops at the first error, a ConfigError of the
form `FILE:LINE:COLUMN: KEY: reason; what to do`. The layers below: `yamlnode` (text to nodes with
positions), `field` (nodes to typed values), `endpoint` (addresses and ports), `conflicts` (rules
between values).
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager

from l4lb.control.conflicts import PlacedService, check_service, check_services
from l4lb.control.endpoint import parse_endpoint, parse_listen
from l4lb.control.field import Field
from l4lb.control.message import error_at, quoted
from l4lb.control.yamlnode import parse_yaml
from l4lb.model import Backend, Datapath, FlowSettings, Forward, L4Config, QueueSettings, Scheduler, Service

MAX_WORKERS = 64
MAX_QUEUE = 65535
MAX_WEIGHT = 65535
_QUEUE_LENGTHS = (64, 1 << 20)
_CAPACITIES = (1024, 1 << 24)
_MAX_NAME = 64
_MAX_INTERFACE_NAME = 15
_KEY_DIGITS = 32

_L4_KEYS = ("datapath", "workers", "queue", "flow_table", "hash_key", "vip_interface", "services")
_SERVICE_KEYS = ("name", "listen", "forward", "scheduler", "backends")

_NAME = re.compile(r"[a-z0-9_.-]+")
_HEX = re.compile(r"[0-9A-Fa-f]*")


def parse_config(text: str, source: str) -> L4Config:
    """The configuration in `text`; `source` names the file in errors. Raises ConfigError."""
    with _collector_paused():
        root = parse_yaml(text, source)
        if root is None:
            raise error_at(source, 1, 1, "l4", 'missing, the file is empty; begin with "l4:"')
        return _parse_l4(Field(root, source).keys(("l4",), required=("l4",))["l4"])


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keeps the cycle collector from walking a growing tree that has no cycles.

    With 20,000 weighted backends that took 0.3 s of 0.65 s; what is built is bounded by the size of the text.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _parse_l4(section: Field) -> L4Config:
    keys = section.keys(_L4_KEYS, required=("services",))
    workers = _parse_workers(keys["workers"]) if "workers" in keys else None
    return L4Config(
        datapath=keys["datapath"].choice(Datapath) if "datapath" in keys else Datapath.AUTO,
        workers=workers,
        queue=_parse_queue(keys["queue"], workers or 1) if "queue" in keys else QueueSettings(),
        flows=_parse_flow_table(keys["flow_table"]) if "flow_table" in keys else FlowSettings(),
        hash_key=_parse_hash_key(keys["hash_key"]) if "hash_key" in keys else None,
        vip_interface=_parse_interface(keys["vip_interface"]) if "vip_interface" in keys else "lo",
        services=_parse_services(keys["services"]),
    )


def _parse_workers(field: Field) -> int | None:
    what = f"auto or a whole number from 1 to {MAX_WORKERS}"
    return None if field.text(what) == "auto" else field.integer(1, MAX_WORKERS, what)


def _parse_queue(field: Field, workers: int) -> QueueSettings:
    keys = field.keys(("first", "length"), required=())
    settings = QueueSettings()
    first, length = settings.first, settings.length
    if "first" in keys:
        first = keys["first"].integer(0, MAX_QUEUE)
        if first + workers - 1 > MAX_QUEUE:
            raise keys["first"].error(
                f"{workers} workers need the queues {first} to {first + workers - 1}, "
                f"but the last is {MAX_QUEUE}; use {MAX_QUEUE + 1 - workers} or less"
            )
    if "length" in keys:
        length = keys["length"].integer(*_QUEUE_LENGTHS)
    return QueueSettings(first, length)


def _parse_flow_table(field: Field) -> FlowSettings:
    keys = field.keys(("capacity",), required=())
    return FlowSettings(keys["capacity"].integer(*_CAPACITIES)) if "capacity" in keys else FlowSettings()


def _parse_hash_key(field: Field) -> bytes:
    """The key is a secret: messages say what is wrong with it and do not repeat it."""
    text = field.text(f"{_KEY_DIGITS} hexadecimal digits")
    if len(text) != _KEY_DIGITS:
        raise field.error(
            f"must be {_KEY_DIGITS} hexadecimal digits, not {len(text)} characters; "
            f'make one with "openssl rand -hex {_KEY_DIGITS // 2}"'
        )
    if not _HEX.fullmatch(text):
        raise field.error(f"must be {_KEY_DIGITS} hexadecimal digits; remove what is not 0-9 or a-f")
    return bytes.fromhex(text)


def _parse_interface(field: Field) -> str | None:
    if field.is_nothing():
        return None
    text = field.text("the name of an interface")
    if text == "none":
        return None
    if not text.isascii() or not text.isprintable() or set(text) & set(" /:") or text in ("", ".", ".."):
        raise field.error(f"{quoted(text)} is not the name of an interface; see ip link")
    if len(text) > _MAX_INTERFACE_NAME:
        raise field.error(
            f"{quoted(text)} is not the name of an interface: it has {len(text)} characters, "
            f"and there are at most {_MAX_INTERFACE_NAME}; see ip link"
        )
    return text


def _parse_services(field: Field) -> tuple[Service, ...]:
    services = [_parse_service(item) for item in field.items("services")]
    if not services:
        raise field.error("the list is empty; add at least one service")
    check_services(services)
    return tuple(service.value for service in services)


def _parse_service(field: Field) -> PlacedService:
    keys = field.keys(_SERVICE_KEYS, required=("name", "listen", "backends"))
    name = _parse_name(keys["name"])
    listens = [
        (listen, item)
        for item in keys["listen"].items_or_one("listens")
        for listen in item.parse(parse_listen, "an endpoint such as 203.0.113.10:80/tcp")
    ]
    if not listens:
        raise keys["listen"].error("the list is empty; add an endpoint such as 203.0.113.10:80/tcp")
    forward = keys["forward"].choice(Forward) if "forward" in keys else Forward.NAT
    scheduler = keys["scheduler"].choice(Scheduler) if "scheduler" in keys else Scheduler.MAGLEV
    backends = [_parse_backend(item) for item in keys["backends"].items("backends")]
    if not backends:
        raise keys["backends"].error("the list is empty; add at least one backend")
    service = PlacedService(
        Service(
            name=name,
            listens=tuple(listen for listen, _ in listens),
            backends=tuple(backend for backend, _ in backends),
            forward=forward,
            scheduler=scheduler,
        ),
        field=field,
        name=keys["name"],
        listens=tuple(item for _, item in listens),
        backends=tuple(item for _, item in backends),
    )
    check_service(service)
    return service


def _parse_name(field: Field) -> str:
    name = field.text("a name")
    if len(name) > _MAX_NAME:
        raise field.error(f"{quoted(name)} has {len(name)} characters; use at most {_MAX_NAME}")
    if not _NAME.fullmatch(name):
        raise field.error(f"{quoted(name)} is not a name; use the characters a-z, 0-9, _, . and -")
    return name


def _parse_backend(field: Field) -> tuple[Backend, Field]:
    """The backend, and the field that names its address."""
    if not field.is_mapping():
        address, port = field.parse(parse_endpoint, "an endpoint such as 10.2.0.11:8080")
        return Backend(address, port), field
    keys = field.keys(("address", "weight"), required=("address",))
    address, port = keys["address"].parse(parse_endpoint, "an endpoint such as 10.2.0.11:8080")
    weight = keys["weight"].integer(0, MAX_WEIGHT) if "weight" in keys else 1
    return Backend(address, port, weight), keys["address"]
