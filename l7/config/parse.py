"""The `l7` section as a value: YAML text to `L7Config`. docs/proxy.md is its manual.

`parse_config` is pure: the caller reads the file. It stops at the first error, a ConfigError of the form
`FILE:LINE:COLUMN: KEY: reason; what to do`. Text, positions and types are read by `l4lb.control` (`yamlnode`,
`field`, `units`), which both tiers share; here are the keys (`listeners`, `routes` with `match`, `headers`
and `times`, `pools`) and the rules between them (`conflicts`). `parse_placed` keeps the positions, which
`advice` needs.
"""

from __future__ import annotations

import re
from pathlib import Path

from l4lb.control.config import parse_workers
from l4lb.control.endpoint import parse_local_endpoint
from l4lb.control.field import Field
from l4lb.control.message import quoted
from l4lb.control.network import parse_network
from l4lb.control.section import collector_paused, section_of
from l7.config.conflicts import check_listeners, check_names, check_pool
from l7.config.listeners import parse_listeners
from l7.config.placed import PlacedConfig
from l7.config.pools import parse_pools
from l7.config.routes import parse_defaults, parse_routes
from l7.config.words import parse_file, parse_user
from l7.model import AccessLog, L7Config, Limits, LogFormat

_MAX_SHUTDOWN_S = 86400.0
_SECRET_BYTES = (16, 64)
_STATUS = re.compile(r"[45][0-9]{2}")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*")

_KEYS = (
    *("listeners", "routes", "pools", "defaults", "trusted_proxies", "access_log", "error_pages", "limits"),
    *("workers", "user", "group", "secret", "metrics", "shutdown_timeout"),
)
_LIMITS = {
    "request_line": (256, 1 << 20),
    "header_bytes": (1 << 10, 1 << 20),
    "header_count": (10, 10_000),
    "requests_per_connection": (1, 1_000_000_000),
    "connections": (1, 10_000_000),
}
_SIZES = ("request_line", "header_bytes")


def parse_config(text: str, source: str) -> L7Config:
    """The section in `text`; `source` names the file in errors. Raises ConfigError."""
    return parse_placed(text, source).value


def parse_placed(text: str, source: str) -> PlacedConfig:
    """As `parse_config`, with the places of what it says."""
    with collector_paused():
        section = section_of(text, source, "l7")
        return PlacedConfig(_parse_l7(section), section)


def _parse_l7(section: Field) -> L7Config:
    keys = section.keys(_KEYS, required=("listeners",))
    defaults = parse_defaults(keys.get("defaults"))
    listeners = parse_listeners(keys["listeners"])
    routes = parse_routes(keys["routes"], defaults) if "routes" in keys else []
    pools = parse_pools(keys["pools"]) if "pools" in keys else []
    metrics = None
    if "metrics" in keys:
        metrics = keys["metrics"].parse(parse_local_endpoint, "an endpoint such as 127.0.0.1:9101")
    check_listeners(listeners, keys.get("metrics"), metrics)
    for pool in pools:
        check_pool(pool)
    check_names(listeners, routes, pools)
    default = L7Config((), (), ())
    return L7Config(
        listeners=tuple(one.value for one in listeners),
        routes=tuple(one.value for one in routes),
        pools=tuple(one.value for one in pools),
        workers=parse_workers(keys["workers"]) if "workers" in keys else None,
        user=keys["user"].parse(parse_user, "a user") if "user" in keys else None,
        group=keys["group"].parse(parse_user, "a group") if "group" in keys else None,
        trusted_proxies=(
            tuple(
                network
                for network, _ in keys["trusted_proxies"].distinct(
                    parse_network, "a network such as 10.0.0.0/8", "networks"
                )
            )
            if "trusted_proxies" in keys
            else ()
        ),
        access_log=_parse_access_log(keys["access_log"]) if "access_log" in keys else default.access_log,
        error_pages=_parse_error_pages(keys["error_pages"]) if "error_pages" in keys else (),
        limits=_parse_limits(keys["limits"]) if "limits" in keys else default.limits,
        secret=_parse_secret(keys["secret"]) if "secret" in keys else None,
        metrics=metrics,
        timeouts=defaults.timeouts,
        shutdown_s=(
            keys["shutdown_timeout"].duration(0, _MAX_SHUTDOWN_S)
            if "shutdown_timeout" in keys
            else default.shutdown_s
        ),
    )


def _parse_access_log(field: Field) -> AccessLog | None:
    """`true`, `false`, a path, or a mapping."""
    if field.is_mapping():
        keys = field.keys(("path", "format"), required=())
        return AccessLog(
            path=_parse_log_path(keys["path"]) if "path" in keys else None,
            format=keys["format"].choice(LogFormat) if "format" in keys else LogFormat.COMBINED,
        )
    text = field.text("true, false, a path or a mapping with the keys path, format")
    if text in ("true", "false"):
        return AccessLog() if field.flag() else None
    return AccessLog(_parse_log_path(field))


def _parse_log_path(field: Field) -> Path | None:
    text = field.text("a path or stdout")
    return None if text == "stdout" else Path(field.parse(parse_file, "a path"))


def _parse_error_pages(field: Field) -> tuple[tuple[int, Path], ...]:
    pages = []
    for status, item in field.entries("statuses and files"):
        if not _STATUS.fullmatch(status):
            raise item.error(f"{quoted(status)} is not the status of an error; use 400 to 599")
        pages.append((int(status), Path(item.parse(parse_file, "an absolute path of a file"))))
    return tuple(pages)


def _parse_limits(field: Field) -> Limits:
    keys = field.keys(tuple(_LIMITS), required=())
    return Limits(
        **{
            name: item.size(*_LIMITS[name]) if name in _SIZES else item.integer(*_LIMITS[name])
            for name, item in keys.items()
        }
    )


def _parse_secret(field: Field) -> bytes:
    """Messages say what is wrong with it and do not repeat it."""
    low, high = _SECRET_BYTES
    what = f"{2 * low} to {2 * high} hexadecimal digits"
    text = field.text(what)
    if not _HEX.fullmatch(text) or not 2 * low <= len(text) <= 2 * high:
        raise field.error(f'must be {what}, an even number of them; make one with "openssl rand -hex 32"')
    return bytes.fromhex(text)
