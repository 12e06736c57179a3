"""The configuration file as a value: YAML text to `L4Config`. docs/configuration.md is its manual.

`parse_config` is pure: `l4lb.net.files` reads the file. It stops at the first error, a ConfigError of the
form `FILE:LINE:COLUMN: KEY: reason; what to do`. The layers below: `yamlnode` (text to nodes with
positions), `field` (nodes to typed values), `endpoint`, `network` and `units` (addresses, ports, networks,
durations), `service` and `health_keys` (the list of services), `conflicts` and `modes` (rules between
values). `parse_placed` keeps the positions, which `advice` needs.
"""

from __future__ import annotations

import re
from dataclasses import replace

from l4lb.control.conflicts import check_metrics
from l4lb.control.endpoint import parse_local_endpoint, parse_port_range
from l4lb.control.field import Field
from l4lb.control.message import quoted
from l4lb.control.modes import check_outer_sources, check_pool
from l4lb.control.network import parse_plain_address, parse_source_network
from l4lb.control.placed import PlacedConfig
from l4lb.control.pool import MAX_ADDRESSES
from l4lb.control.quorum_keys import check_withdrawals
from l4lb.control.section import collector_paused, section_of
from l4lb.control.service import MAX_FLOWS, parse_services
from l4lb.model import (
    FIRST_PORT,
    LAST_PORT,
    Address,
    Datapath,
    FlowSettings,
    L4Config,
    MasqueradeSettings,
    Network,
    QueueSettings,
    TunnelSettings,
)

MAX_WORKERS = 64
MAX_QUEUE = 65535
MIN_POOL_PORTS = 256
_QUEUE_LENGTHS = (64, 1 << 20)
_CAPACITIES = (1024, 1 << 24)
_MAX_INTERFACE_NAME = 15
_KEY_DIGITS = 32

_L4_KEYS = (
    *("datapath", "workers", "queue", "flow_table", "masquerade", "tunnel", "hash_key", "vip_interface"),
    *("metrics", "services"),
)

_HEX = re.compile(r"[0-9A-Fa-f]*")


def parse_config(text: str, source: str) -> L4Config:
    """The configuration in `text`; `source` names the file in errors. Raises ConfigError."""
    return parse_placed(text, source).value


def parse_placed(text: str, source: str) -> PlacedConfig:
    """As `parse_config`, with the places of what it says."""
    with collector_paused():
        section = section_of(text, source, "l4")
        return PlacedConfig(_parse_l4(section), section)


def _parse_l4(section: Field) -> L4Config:
    keys = section.keys(_L4_KEYS, required=("services",))
    workers = parse_workers(keys["workers"]) if "workers" in keys else None
    masquerade, pool = _parse_masquerade(keys.get("masquerade"))
    tunnel, sources = _parse_tunnel(keys.get("tunnel"))
    metrics = None
    if "metrics" in keys:
        metrics = keys["metrics"].parse(parse_local_endpoint, "an endpoint such as 127.0.0.1:9100")
    settings = L4Config(
        datapath=keys["datapath"].choice(Datapath) if "datapath" in keys else Datapath.AUTO,
        workers=workers,
        queue=_parse_queue(keys["queue"], workers or 1) if "queue" in keys else QueueSettings(),
        flows=_parse_flow_table(keys["flow_table"]) if "flow_table" in keys else FlowSettings(),
        masquerade=masquerade,
        tunnel=tunnel,
        metrics=metrics,
        hash_key=_parse_hash_key(keys["hash_key"]) if "hash_key" in keys else None,
        vip_interface=_parse_interface(keys["vip_interface"]) if "vip_interface" in keys else "lo",
        services=(),
    )
    services = parse_services(keys["services"])
    if metrics:
        check_metrics(metrics, keys["metrics"], services)
    check_withdrawals(settings.vip_interface, services)
    check_pool(pool, services)
    check_outer_sources(sources, services)
    return replace(settings, services=tuple(service.value for service in services))


def parse_workers(field: Field) -> int | None:
    """A number of workers; None is `auto`."""
    what = f"auto or a whole number from 1 to {MAX_WORKERS}"
    return None if field.text(what) == "auto" else field.integer(1, MAX_WORKERS, what)


def _parse_queue(field: Field, workers: int) -> QueueSettings:
    keys = field.keys(("first", "length"), required=())
    settings = QueueSettings()
    first, length = settings.first, settings.length
    if "first" in keys:
        first = keys["first"].integer(0, MAX_QUEUE)
        # One for headers and one for whole packets of each worker, and one for ICMP errors.
        more = 2 * workers
        if first + more > MAX_QUEUE:
            raise keys["first"].error(
                f"{workers} {'worker needs' if workers == 1 else 'workers need'} the queues {first} to "
                f"{first + more}, but the last is {MAX_QUEUE}; use {MAX_QUEUE - more} or less"
            )
    if "length" in keys:
        length = keys["length"].integer(*_QUEUE_LENGTHS)
    return QueueSettings(first, length)


def _parse_flow_table(field: Field) -> FlowSettings:
    keys = field.keys(("capacity", "new_flows"), required=())
    settings = FlowSettings()
    return FlowSettings(
        capacity=keys["capacity"].integer(*_CAPACITIES) if "capacity" in keys else settings.capacity,
        new_flows=keys["new_flows"].integer(1, MAX_FLOWS) if "new_flows" in keys else settings.new_flows,
    )


def _parse_masquerade(field: Field | None) -> tuple[MasqueradeSettings, list[tuple[Address, Field]]]:
    """The settings, and where each address stands."""
    keys = field.keys(("addresses", "ports"), required=()) if field else {}
    pool: list[tuple[Address, Field]] = []
    if "addresses" in keys:
        pool = keys["addresses"].distinct(parse_plain_address, "an address of this host", "addresses")
        if len(pool) > MAX_ADDRESSES:
            raise pool[MAX_ADDRESSES][1].error(
                f"there are {len(pool)} addresses, and there is room for {MAX_ADDRESSES}; remove the others"
            )
    settings = MasqueradeSettings(addresses=tuple(address for address, _ in pool))
    if "ports" in keys:
        first, last = keys["ports"].parse(parse_port_range, "a range of ports such as 1024-32767")
        if (count := last - first + 1) < MIN_POOL_PORTS:
            raise keys["ports"].error(
                f"must be a range of at least {MIN_POOL_PORTS} ports, not {first}-{last} with {count}"
            )
        settings = replace(settings, first_port=first, last_port=last)
    return settings, pool


def _parse_tunnel(field: Field | None) -> tuple[TunnelSettings, list[tuple[Network, Field]]]:
    """The settings, and where each network stands."""
    keys = field.keys(("sources", "port"), required=()) if field else {}
    sources: list[tuple[Network, Field]] = []
    if "sources" in keys:
        sources = keys["sources"].distinct(
            parse_source_network, "a network such as 198.18.0.0/15", "networks"
        )
        families: dict[int, Network] = {}
        for network, item in sources:
            if other := families.get(network.version):
                raise item.error(
                    f"{network} is the second IPv{network.version} network, after {other}; "
                    "remove one of the two"
                )
            families[network.version] = network
    settings = TunnelSettings(sources=tuple(network for network, _ in sources))
    if "port" in keys:
        settings = replace(settings, port=keys["port"].integer(FIRST_PORT, LAST_PORT))
    return settings, sources


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
