"""`stream` → listeners that pass TLS through, by the name in the ClientHello where nginx reads it."""

from __future__ import annotations

from typing import Any

from l7.config.words import parse_server_name
from l7.nginx.remarks import Remarks
from l7.nginx.sites import open_doors, read_sites, write_listener
from l7.nginx.source import Directive, Scope
from l7.nginx.upstreams import Upstreams
from l7.nginx.yamltext import Noted

_SERVER_NAME = "$ssl_preread_server_name"


def convert_stream(stream: Scope, upstreams: Upstreams, remarks: Remarks) -> list[dict[str, Any]]:
    """The listeners; their pools are in `upstreams`."""
    maps = {one.args[1]: one for one in stream.directives if _is_by_name(one)}
    listeners = []
    for door in open_doors(read_sites(stream, remarks)):
        site = door.sites[0]
        for other in door.sites[1:]:
            remarks.lost(other.directive, "an endpoint of stream has one server")
        if any("udp" in directive.args for directive in door.endpoints.values()):
            remarks.lost(site.directive, "UDP is balanced by tier 1; write an l4 service")
            continue
        passed = site.scope.here("proxy_pass")
        if not passed:
            remarks.lost(site.directive, "has no proxy_pass")
            continue
        rules = _rules(passed[0], maps, site.scope, upstreams, remarks)
        if not rules:
            continue
        proxies = [one.first for one in site.scope.all("set_real_ip_from")] or ["0.0.0.0/0", "::/0"]
        listener = write_listener(door, proxies, remarks)
        listener["name"] = f"stream-{next(iter(door.endpoints)).rpartition(':')[2]}"
        if "tls" in listener:
            remarks.lost(site.directive, "TLS is ended for HTTP only; here it is passed through")
            del listener["tls"]
        listeners.append({**listener, "pass_through": rules})
        for name in ("proxy_connect_timeout", "proxy_timeout"):
            for one in site.scope.here(name):
                remarks.differs(one, "holds for all that is passed through: defaults: {timeouts: …}")
    return listeners


def _is_by_name(one: Directive) -> bool:
    return one.name == "map" and len(one.args) == 2 and one.first == _SERVER_NAME


def _rules(
    passed: Directive, maps: dict[str, Directive], scope: Scope, upstreams: Upstreams, remarks: Remarks
) -> list[Any]:
    reads_names = any(one.first == "on" for one in scope.all("ssl_preread"))
    target = passed.first
    if not target.startswith("$"):
        if not reads_names:
            remarks.differs(passed, "is taken for TLS; other TCP is balanced by tier 1")
        return [{"pool": Noted(_pool(target, passed, scope, upstreams, remarks), passed.place)}]
    if target not in maps:
        remarks.lost(
            passed, "backends are named in the configuration, or by a map of $ssl_preread_server_name"
        )
        return []
    names: dict[str, list[str]] = {}
    default: dict[str, Any] | None = None
    maps[target].is_known = True
    for entry in maps[target].block or []:
        entry.is_known = True
        if entry.name == "default":
            default = {"pool": Noted(_pool(entry.first, entry, scope, upstreams, remarks), entry.place)}
        elif entry.name not in ("hostnames", "volatile"):
            _add_names(entry, names, _pool(entry.first, entry, scope, upstreams, remarks), remarks)
    rules: list[Any] = [{"names": hosts, "pool": pool} for pool, hosts in names.items()]
    return [*rules, default] if default else rules


def _add_names(entry: Directive, names: dict[str, list[str]], pool: str, remarks: Remarks) -> None:
    hosts = [entry.name[1:], f"*{entry.name}"] if entry.name.startswith(".") else [entry.name]
    for host in hosts:
        try:
            names.setdefault(pool, []).append(parse_server_name(host))
        except ValueError as error:
            remarks.lost(entry, str(error).partition(";")[0])


def _pool(name: str, by: Directive, scope: Scope, upstreams: Upstreams, remarks: Remarks) -> str:
    pool = upstreams.pool_for(name, by)
    if scope.word("proxy_protocol") == "on":
        upstreams.pools[pool] = {"proxy_protocol": 1, **upstreams.pools[pool]}
    return pool
