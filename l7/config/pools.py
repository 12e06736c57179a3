"""The mapping of pools as values."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from l4lb.control.field import Field
from l4lb.control.health_keys import PASSIVE_KEYS, parse_health, read_passive
from l4lb.control.message import quoted
from l4lb.control.units import parse_fraction
from l4lb.model import CheckType, HealthCheck
from l7.config.placed import PlacedPool
from l7.config.times import parse_statuses
from l7.config.words import (
    parse_backend_address,
    parse_cookie_name,
    parse_file,
    parse_header_name,
    parse_pool_name,
    parse_server_name,
)
from l7.model import (
    Backend,
    BackendTls,
    HashBy,
    PassiveCheck,
    Pool,
    ProxyProtocol,
    Scheduler,
    Sticky,
    StickyKind,
)

_MAX_WEIGHT = 65535
_MAX_CONNECTIONS = 1_000_000
_MAX_COUNT = 1_000_000
_MAX_SLOW_START_S = 3600.0
_RESOLVE_S = (1.0, 86400.0)
_SESSION_S = (1.0, 31_536_000.0)
_MAX_COOKIE_TEXT = 200

_KEYS = (
    *("scheduler", "hash_by", "sticky", "health", "passive", "slow_start", "max_queue", "max_idle", "tls"),
    *("proxy_protocol", "resolve", "backends"),
)
_BLIND = (CheckType.UDP, CheckType.DNS)
"""Checks that say nothing of a server that is spoken to over TCP."""


class _SameSite(StrEnum):
    LAX = "Lax"
    STRICT = "Strict"
    NONE = "None"


def parse_pools(field: Field) -> list[PlacedPool]:
    """The pools. Raises ConfigError."""
    pools = []
    for name, item in field.entries("pools"):
        try:
            parse_pool_name(name)
        except ValueError as error:
            raise item.error(str(error)) from None
        pools.append(_parse_pool(name, item))
    return pools


def _parse_pool(name: str, field: Field) -> PlacedPool:
    keys = field.keys(_KEYS, required=("backends",))
    backends = [_parse_backend(item) for item in keys["backends"].items("backends")]
    if not backends:
        raise keys["backends"].error("the list is empty; add at least one backend")
    scheduler = keys["scheduler"].choice(Scheduler) if "scheduler" in keys else Scheduler.WEIGHTED_ROUND_ROBIN
    default = Pool(name, ())
    pool = Pool(
        name=name,
        backends=tuple(backend for backend, _ in backends),
        scheduler=scheduler,
        hash_by=_parse_hash_by(keys.get("hash_by"), scheduler),
        sticky=_parse_sticky(keys["sticky"]) if "sticky" in keys else None,
        health=_parse_health(keys["health"]) if "health" in keys else None,
        passive=_parse_passive(keys["passive"]) if "passive" in keys else default.passive,
        slow_start_s=keys["slow_start"].duration(0, _MAX_SLOW_START_S) if "slow_start" in keys else 0.0,
        max_queue=keys["max_queue"].integer(0, _MAX_COUNT) if "max_queue" in keys else default.max_queue,
        max_idle=keys["max_idle"].integer(0, _MAX_COUNT) if "max_idle" in keys else default.max_idle,
        tls=_parse_tls(keys["tls"]) if "tls" in keys else None,
        proxy_protocol=_parse_proxy_protocol(keys["proxy_protocol"]) if "proxy_protocol" in keys else None,
        resolve_s=keys["resolve"].duration(*_RESOLVE_S) if "resolve" in keys else default.resolve_s,
    )
    return PlacedPool(pool, field, keys, [item for _, item in backends])


def _parse_backend(field: Field) -> tuple[Backend, Field]:
    """The backend, and the field that names its address."""
    what = "an endpoint such as 10.0.0.1:8080"
    if not field.is_mapping():
        return Backend(field.parse(parse_backend_address, what)), field
    keys = field.keys(("address", "weight", "backup", "max_connections"), required=("address",))
    backend = Backend(
        address=keys["address"].parse(parse_backend_address, what),
        weight=keys["weight"].integer(0, _MAX_WEIGHT) if "weight" in keys else 1,
        is_backup="backup" in keys and keys["backup"].flag(),
        max_connections=(
            keys["max_connections"].integer(1, _MAX_CONNECTIONS) if "max_connections" in keys else None
        ),
    )
    return backend, keys["address"]


def _parse_hash_by(field: Field | None, scheduler: Scheduler) -> HashBy | None:
    if field is None:
        return HashBy("uri") if scheduler is Scheduler.CONSISTENT_HASH else None
    if scheduler is not Scheduler.CONSISTENT_HASH:
        raise field.error(
            f"belongs to consistent-hash, and the scheduler is {scheduler}; change one of the two"
        )
    what = "uri, or a mapping such as {header: X-User} or {cookie: session}"
    if not field.is_mapping():
        if (text := field.text(what)) != "uri":
            raise field.error(f"must be {what}, not {quoted(text)}")
        return HashBy("uri")
    keys = field.keys(("header", "cookie"), required=())
    if len(keys) != 1:
        raise field.error("needs one of header and cookie; write it as in {header: X-User}")
    if "header" in keys:
        return HashBy("header", keys["header"].parse(parse_header_name, "a header").lower())
    return HashBy("cookie", keys["cookie"].parse(parse_cookie_name, "a cookie"))


_STICKY_OWNERS: dict[str, tuple[StickyKind, ...]] = {
    "cookie": (StickyKind.INSERT, StickyKind.LEARN),
    "path": (StickyKind.INSERT,),
    "domain": (StickyKind.INSERT,),
    "secure": (StickyKind.INSERT,),
    "http_only": (StickyKind.INSERT,),
    "same_site": (StickyKind.INSERT,),
    "capacity": (StickyKind.LEARN, StickyKind.SOURCE),
}


def _parse_sticky(field: Field) -> Sticky:
    if not field.is_mapping():
        kind = field.choice(StickyKind)
        if kind is StickyKind.LEARN:
            raise field.error("needs the application's cookie; write {kind: learn, cookie: NAME}")
        return Sticky(kind)
    keys = field.keys(("kind", "max_age", *_STICKY_OWNERS), required=())
    kind = keys["kind"].choice(StickyKind) if "kind" in keys else StickyKind.INSERT
    for name, item in keys.items():
        if name in _STICKY_OWNERS and kind not in _STICKY_OWNERS[name]:
            raise item.error(
                f"belongs to {' and '.join(_STICKY_OWNERS[name])}, and this is {kind}; remove it"
            )
    if kind is StickyKind.LEARN and "cookie" not in keys:
        raise field.error("needs the application's cookie; add cookie: NAME")
    sticky = Sticky(kind)
    if "cookie" in keys:
        sticky = replace(sticky, cookie=keys["cookie"].parse(parse_cookie_name, "the name of a cookie"))
    if "max_age" in keys:
        sticky = replace(sticky, max_age_s=int(keys["max_age"].duration(*_SESSION_S)))
    if "path" in keys:
        sticky = replace(sticky, path=keys["path"].parse(_parse_attribute, "a path such as /"))
    if "domain" in keys:
        domain = keys["domain"].parse(parse_server_name, "a domain such as example.com")
        sticky = replace(sticky, domain=domain.encode())
    if "secure" in keys:
        wanted = "true, false or auto"
        auto = keys["secure"].text(wanted) == "auto"
        sticky = replace(sticky, secure=None if auto else keys["secure"].flag(wanted))
    if "http_only" in keys:
        sticky = replace(sticky, http_only=keys["http_only"].flag())
    if "same_site" in keys:
        sticky = replace(sticky, same_site=keys["same_site"].choice(_SameSite).value)
        if sticky.same_site == _SameSite.NONE and sticky.secure is False:
            raise keys["same_site"].error("browsers take None only with secure; set secure: true")
    if "capacity" in keys:
        sticky = replace(sticky, capacity=keys["capacity"].integer(1, 10_000_000))
    return sticky


def _parse_attribute(text: str) -> bytes:
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or ";" in text:
        raise ValueError(f"{quoted(text)} is not a path of a cookie; begin with /, without semicolons")
    if len(text) > _MAX_COOKIE_TEXT:
        raise ValueError(f"has {len(text)} characters; use at most {_MAX_COOKIE_TEXT}")
    return text.encode()


def _parse_health(field: Field) -> HealthCheck:
    check = parse_health(field)
    if check.type in _BLIND:
        raise field.at(["type"]).error(
            f"{check.type} says nothing of a web server; use http, https, tls or tcp"
        )
    if check.via is not None:
        raise field.at(["via"]).error("a pool has no VIP to go through; remove it")
    return check


def _parse_passive(field: Field) -> PassiveCheck | None:
    check, keys = read_passive(field, PassiveCheck(), (*PASSIVE_KEYS, "max_ejected", "statuses"))
    if check is None:
        return None
    if "max_ejected" in keys:
        part = keys["max_ejected"].parse(parse_fraction, "a part of the backends such as 50% or 0.5")
        check = replace(check, max_ejected=part)
    if "statuses" in keys:
        check = replace(check, statuses=parse_statuses(keys["statuses"]))
    return check


def _parse_tls(field: Field) -> BackendTls | None:
    if not field.is_mapping():
        wanted = "true, false or a mapping with the keys verify, ca, server_name, certificate, key"
        return BackendTls() if field.flag(wanted) else None
    keys = field.keys(("verify", "ca", "server_name", "certificate", "key"), required=())
    if "key" in keys and "certificate" not in keys:
        raise keys["key"].error("is the key of a certificate; add certificate")
    verify = keys["verify"].flag() if "verify" in keys else True
    if "ca" in keys and not verify:
        raise keys["ca"].error("is for verification, which is off; remove it, or verify: false")
    return BackendTls(
        verify=verify,
        ca=file_of(keys.get("ca")),
        server_name=(
            keys["server_name"].parse(parse_server_name, "a name such as api.example.com")
            if "server_name" in keys
            else None
        ),
        certificate=file_of(keys.get("certificate")),
        key=file_of(keys.get("key")),
    )


def file_of(field: Field | None) -> Path | None:
    """A path, where the key is there."""
    return Path(field.parse(parse_file, "an absolute path of a file")) if field else None


def _parse_proxy_protocol(field: Field) -> ProxyProtocol:
    return ProxyProtocol(field.integer(1, 2, "1 or 2, the version of the header"))
