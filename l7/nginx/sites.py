"""`server` and `listen` → listeners, and routes with their hosts and listeners.

Servers share endpoints; endpoints with the same servers and settings become one listener. Of the servers of
an endpoint one is the default one, which takes every host that no other has: its routes have no host.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from l4lb.control.endpoint import parse_local_endpoint
from l7.nginx.conditions import names_of
from l7.nginx.locations import FIRST
from l7.nginx.remarks import Remarks
from l7.nginx.source import Directive, Scope
from l7.nginx.yamltext import Noted

_LISTEN_WORDS = frozenset(
    {
        *("ssl", "default_server", "default", "http2", "proxy_protocol", "reuseport", "deferred", "bind"),
        *("spdy",),
    }
)
_NO_FILE = "/etc/l4lb/CERTIFICATE.pem"
_OLD = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1")


@dataclass(slots=True)
class Site:
    """A server, its names, and the endpoints that it listens on."""

    scope: Scope
    directive: Directive
    hosts: list[str]
    expressions: list[str]
    endpoints: dict[str, Directive] = field(default_factory=dict)


@dataclass(slots=True)
class Door:
    """A listener to be: endpoints with the same sites. The default one is the first of `sites`."""

    name: str
    endpoints: dict[str, Directive]
    sites: list[Site]
    has_tls: bool
    takes_proxy: bool


def read_sites(http: Scope, remarks: Remarks) -> list[Site]:
    """The servers of `http`."""
    sites = []
    for directive in http.here("server"):
        scope = Scope(directive.block or [], http)
        hosts, expressions = names_of(scope, remarks)
        site = Site(scope, directive, hosts, expressions)
        for listen in scope.here("listen"):
            try:
                site.endpoints[_endpoint(listen.first)] = listen
            except ValueError as error:
                remarks.lost(listen, str(error).partition(";")[0])
                continue
            _check_words(listen, remarks)
        if not site.endpoints:
            site.endpoints["0.0.0.0:80"] = directive
        sites.append(site)
    return sites


def _endpoint(text: str) -> str:
    if text.startswith("unix:"):
        raise ValueError("clients come over TCP; listen on an address")
    if text.isdigit():
        text = f"0.0.0.0:{text}"
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, "80"
    host = {"*": "0.0.0.0", "localhost": "127.0.0.1"}.get(host, host)
    address, number = parse_local_endpoint(f"{host}:{port}")
    return f"[{address}]:{number}" if address.version == 6 else f"{address}:{number}"


def _check_words(listen: Directive, remarks: Remarks) -> None:
    for word in listen.args[1:]:
        name = word.partition("=")[0]
        if name in ("http2", "quic", "spdy"):
            remarks.differs(listen, f"{name}: HTTP/1.1 is spoken with clients")
        elif name not in _LISTEN_WORDS and name not in (
            "backlog",
            "ipv6only",
            "rcvbuf",
            "sndbuf",
            "fastopen",
        ):
            remarks.lost(listen, f"{name} has no counterpart, the rest is carried over")


def open_doors(sites: Sequence[Site]) -> list[Door]:
    """The listeners, in the order in which the file names their endpoints."""
    by_endpoint: dict[str, list[Site]] = {}
    for site in sites:
        for endpoint in site.endpoints:
            by_endpoint.setdefault(endpoint, []).append(site)
    doors: dict[tuple[object, ...], Door] = {}
    for endpoint, here in by_endpoint.items():
        default = next(
            (s for s in here if {"default_server", "default"} & set(s.endpoints[endpoint].args)), here[0]
        )
        ordered = [default, *(site for site in here if site is not default)]
        words = {word for site in here for word in site.endpoints[endpoint].args}
        has_tls = "ssl" in words or any(site.scope.word("ssl") == "on" for site in here)
        key = (tuple(id(site) for site in ordered), has_tls, "proxy_protocol" in words)
        if (door := doors.get(key)) is None:
            door = doors[key] = Door("", {}, ordered, has_tls, "proxy_protocol" in words)
        door.endpoints[endpoint] = default.endpoints[endpoint]
    _name_doors(list(doors.values()))
    return list(doors.values())


def _name_doors(doors: list[Door]) -> None:
    taken: set[str] = set()
    for door in doors:
        scheme = "https" if door.has_tls else "http"
        port = next(iter(door.endpoints)).rpartition(":")[2]
        name, number = scheme if port in ("80", "443") else f"{scheme}-{port}", 2
        base = name
        while name in taken:
            name, number = f"{base}-{number}", number + 1
        door.name = name
        taken.add(name)


def write_listener(door: Door, proxies: list[str], remarks: Remarks) -> dict[str, Any]:
    """A listener in our keys; `proxies` are the networks that PROXY headers may come from."""
    endpoints = [Noted(endpoint, directive.place) for endpoint, directive in door.endpoints.items()]
    listener: dict[str, Any] = {
        "name": door.name,
        "listen": endpoints[0] if len(endpoints) == 1 else endpoints,
    }
    if door.has_tls:
        listener["tls"] = _tls(door, remarks)
    if door.takes_proxy:
        listener["accept_proxy"] = proxies
    return listener


def _tls(door: Door, remarks: Remarks) -> dict[str, Any]:
    default = door.sites[0].scope
    tls: dict[str, Any] = {"certificates": _certificates(door, remarks)}
    if any(site.scope.word("ssl_reject_handshake") == "on" for site in door.sites):
        tls["refuse_unknown"] = True
    if protocols := default.one("ssl_protocols"):
        if set(_OLD) & set(protocols.args):
            remarks.differs(protocols, "TLS 1.2 is the oldest that is spoken")
        if protocols.args == ("TLSv1.3",):
            tls["min_version"] = Noted("1.3", protocols.place)
    if (ciphers := default.one("ssl_ciphers")) and tls.get("min_version") is None:
        tls["ciphers"] = Noted(ciphers.first, ciphers.place)
    authority, asked = default.one("ssl_client_certificate"), default.one("ssl_verify_client")
    if asked and asked.first != "off":
        if authority is None:
            remarks.lost(
                asked, "there is no ssl_client_certificate beside it, and clients' are not asked for"
            )
        else:
            tls["client_ca"] = Noted(authority.first, authority.place)
            tls["client_certificates"] = "required" if asked.first == "on" else "optional"
            if asked.first == "optional_no_ca":
                remarks.differs(asked, "a certificate that is shown is verified")
    for site in door.sites[1:]:
        for name in ("ssl_protocols", "ssl_ciphers", "ssl_client_certificate", "ssl_verify_client"):
            for one in site.scope.here(name):
                if one.args != getattr(default.one(name), "args", None):
                    text = "holds for the listener, and what the default server says is used"
                    remarks.lost(one, f"{text}; the answer is 403" if is_open(site, door) else text)
    return tls


def is_open(site: Site, door: Door) -> bool:
    """Whether a site asks for certificates, and its listener does not."""
    return site.scope.word("ssl_verify_client") == "on" and (
        door.sites[0].scope.word("ssl_verify_client") != "on"
    )


def _certificates(door: Door, remarks: Remarks) -> list[Any]:
    found: dict[tuple[str, str], Any] = {}
    for site in door.sites:
        keys = site.scope.all("ssl_certificate_key")
        for number, cert in enumerate(site.scope.all("ssl_certificate")):
            if "$" in cert.first:
                remarks.lost(cert, "certificates are named in the configuration, not by variables")
                continue
            key = keys[number].first if number < len(keys) else ""
            entry = {"cert": cert.first, "key": key} if key else {"cert": cert.first}
            found.setdefault((cert.first, key), Noted(entry, cert.place))
    if not found:
        first = next(iter(door.endpoints.values()))
        if not any(site.scope.word("ssl_reject_handshake") == "on" for site in door.sites):
            remarks.lost(first, f"no ssl_certificate is named for it; put yours in place of {_NO_FILE}")
        return [_NO_FILE]
    return list(found.values())


def place_routes(site: Site, routes: list[dict[str, Any]], doors: Sequence[Door]) -> list[dict[str, Any]]:
    """A site's routes with the hosts and listeners that they are for: without hosts where it is the default
    one, unless another site there could take what is its own."""
    mine = [door for door in doors if site in door.sites]
    default = [door for door in mine if door.sites[0] is site]
    other = [door for door in mine if door.sites[0] is not site]
    contested = [door for door in default if _is_contested(site, door.sites[1:])]
    placed: list[dict[str, Any]] = []
    closed = routes if any(map(_takes_all, routes)) else [*routes, {"respond": 404}]
    if site.hosts and (other or contested):
        placed += _placed(closed, {"host": _one_or_list(site.hosts)}, [*other, *contested], doors)
    for pattern in site.expressions:
        if other or _has_others(default):
            placed += _placed(closed, {"header": {"Host": {"regex": pattern}}}, mine, doors)
    if default:
        # Expressions for hosts come before the default server.
        rivals = any(other_site.expressions for door in default for other_site in door.sites[1:])
        placed += _placed(routes, {}, default, doors, priority=-1 if rivals else 0)
    return placed


def _takes_all(route: dict[str, Any]) -> bool:
    """Whether no request of its host gets past a route."""
    match, _ = _unnoted(route.get("match", {}))
    path = match.get("path", "/")
    return set(match) <= {"path"} and (path.value if isinstance(path, Noted) else path) == "/"


def _is_contested(site: Site, others: list[Site]) -> bool:
    """Whether another site would get requests for one of the site's names, if that stood nowhere."""
    wildcards = [host[1:] for other in others for host in other.hosts if host.startswith("*")]
    expressions = [pattern for other in others for pattern in other.expressions]
    return any(
        any(host.endswith(end) for end in wildcards)
        or any(re.search(pattern, host) for pattern in expressions)
        for host in site.hosts
    )


def _has_others(doors: list[Door]) -> bool:
    return any(len(door.sites) > 1 for door in doors)


def _placed(
    routes: list[dict[str, Any]],
    match: dict[str, Any],
    here: list[Door],
    doors: Sequence[Door],
    priority: int = 0,
) -> list[dict[str, Any]]:
    placed = []
    for route in routes:
        old, note = _unnoted(route.get("match", {}))
        own = {key: value for key, value in old.items() if key != "scheme"}
        wanted = [door for door in here if old.get("scheme") in (None, "https" if door.has_tls else "http")]
        if not wanted:
            continue
        new = {**match, **own}
        if "header" in match and "header" in own:
            new["header"] = {**own["header"], **match["header"]}
        if "host" in own and "host" in match and own["host"] not in _listed(match["host"]):
            continue
        if len(wanted) < len(doors):
            new["listener"] = _one_or_list([door.name for door in wanted])
        rank = priority
        if FIRST in route:
            if _has_own_host(new) or all(len(door.sites) == 1 for door in wanted):
                rank += 1
            else:
                new.setdefault("path", {"regex": "^/"})
        full: dict[str, Any] = {"match": Noted(new, note) if note else new} if new else {}
        full |= {key: value for key, value in route.items() if key not in ("match", FIRST)}
        if rank:
            full["priority"] = rank
        placed.append(full)
    return placed


def _has_own_host(match: dict[str, Any]) -> bool:
    """Whether a higher priority takes nothing from another server."""
    return "host" in match and not any(host.startswith("*") for host in _listed(match["host"]))


def _unnoted(match: Any) -> tuple[dict[str, Any], str]:
    return (match.value, match.note) if isinstance(match, Noted) else (match, "")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _one_or_list(values: list[str]) -> Any:
    return values[0] if len(values) == 1 else values
