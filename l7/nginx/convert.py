"""A configuration of nginx as ours: the YAML, and what is to be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l4lb.control.message import printable
from l4lb.control.network import parse_network
from l4lb.errors import ConfigError
from l7.config.parse import parse_config
from l7.nginx.locations import Locations
from l7.nginx.remarks import Kind, Remark, Remarks
from l7.nginx.settings import default_settings, differences, read_settings
from l7.nginx.sites import Site, is_open, open_doors, place_routes, read_sites, write_listener
from l7.nginx.source import Scope, Source, read_source
from l7.nginx.stream import convert_stream
from l7.nginx.upstreams import Upstreams
from l7.nginx.words import parse_size, size
from l7.nginx.yamltext import Noted, write_yaml

_ANYWHERE = ["0.0.0.0/0", "::/0"]
_MAX_WORKERS = 64


@dataclass(frozen=True, slots=True)
class Imported:
    """`text` is our configuration, which has been read back."""

    text: str
    remarks: list[Remark]

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost."""
        return not any(remark.kind is Kind.LOST for remark in self.remarks)


def import_nginx(path: Path) -> Imported:
    """The configuration in a file of nginx and those that it includes, whole or a snippet.

    ConfigError where it cannot be read, or says what ours has no words for.
    """
    source = read_source(path)
    remarks = Remarks()
    for one in source.missing:
        remarks.lost(one, "there is no such file here")
    try:
        tree = _convert(source, remarks)
    except (ValueError, IndexError) as error:
        raise ConfigError(f"{path}: {printable(str(error))}; nginx -t says where") from None
    for part in (source.main, source.http, source.stream):
        remarks.sweep(part)
    text = write_yaml({"l7": tree}, _head(path))
    parse_config(text, f"{path} (as YAML)")
    return Imported(text, remarks.listed())


def _head(path: Path) -> list[str]:
    return [
        f"Made from {path.name} by l7lb import-nginx; comments name its lines.",
        "Sent to backends in any case: X-Forwarded-For, -Proto, -Host, -Port, X-Real-IP and Forwarded.",
        "What clients say in them is replaced, unless they come from trusted_proxies.",
        "Connections to backends are kept and used again; their Server header is passed on.",
    ]


def _convert(source: Source, remarks: Remarks) -> dict[str, Any]:
    main, http, stream = Scope(source.main), Scope(source.http), Scope(source.stream)
    upstreams = Upstreams(http, remarks)
    sites = read_sites(http, remarks)
    doors = open_doors(sites)
    ours = default_settings()
    outer = read_settings(http, upstreams.largest, remarks, of_route=False)
    splits = _splits(http, remarks)
    tree: dict[str, Any] = _process(main)
    trusted, is_proxy_protocol = _real_ip(http, sites, remarks)
    if trusted and not is_proxy_protocol:
        tree["trusted_proxies"] = trusted
    tree |= _access_log(http, sites, remarks)
    limits = _limits(main, http)
    if limits:
        tree["limits"] = limits
    pages: dict[int, Any] = {}
    routes: list[dict[str, Any]] = []
    for site in sites:
        fixed = {"server_name": site.hosts[0] if site.hosts else ""}
        uris = _error_pages(site, pages, remarks)
        own = Locations(site.scope, upstreams, outer, fixed, splits, uris, remarks).routes()
        if any(site in door.sites and door.has_tls and is_open(site, door) for door in doors):
            own = [{"respond": 403}]
        routes += place_routes(site, own, doors)
    listeners = [write_listener(door, trusted or _ANYWHERE, remarks) for door in doors]
    streams = Upstreams(stream, remarks)
    listeners += convert_stream(stream, streams, remarks)
    if pages:
        tree["error_pages"] = pages
    defaults = differences(outer, ours)
    defaults.setdefault("timeouts", {}).update(upstreams.settings)
    if upstreams.largest <= 1:
        defaults.pop("retries", None)
    defaults["upgrades"] = []
    tree["defaults"] = defaults
    pools = upstreams.pools | streams.pools
    if not listeners:
        listeners = [{"name": "http", "listen": Noted("0.0.0.0:80", "added: there is no server in the file")}]
        routes = [{"pool": pool} for pool in list(pools)[:1]]
        _say_added(source, remarks)
    tree["listeners"] = listeners
    if routes:
        tree["routes"] = routes
    if pools:
        tree["pools"] = pools
    return tree


def _say_added(source: Source, remarks: Remarks) -> None:
    named = [one for one in (*source.http, *source.stream) if one.name == "upstream"]
    for one in named[:1]:
        remarks.differs(
            one, "there is no server in the file; a listener and a route to the first pool were added"
        )


def _process(main: Scope) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for workers in main.here("worker_processes"):
        if workers.first.isdigit():
            tree["workers"] = Noted(min(int(workers.first), _MAX_WORKERS), workers.place)
    for user in main.here("user"):
        tree["user"] = Noted(user.first, user.place)
        if len(user.args) > 1:
            tree["group"] = user.args[1]
    return tree


def _limits(main: Scope, http: Scope) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    for events in main.here("events"):
        for connections in Scope(events.block or []).here("worker_connections"):
            limits["connections"] = Noted(int(connections.first), connections.place)
    if buffers := http.one("large_client_header_buffers"):
        number, each = int(buffers.first), parse_size(buffers.args[-1])
        limits["request_line"] = Noted(size(str(each)), buffers.place)
        limits["header_bytes"] = size(str(number * each))
    if requests := http.one("keepalive_requests"):
        limits["requests_per_connection"] = Noted(int(requests.first), requests.place)
    return limits


def _real_ip(http: Scope, sites: list[Site], remarks: Remarks) -> tuple[list[str], bool]:
    """Networks that are believed, and whether by PROXY headers."""
    networks: dict[str, None] = {}
    is_proxy_protocol = False
    for scope in (http, *(site.scope for site in sites)):
        for one in scope.here("set_real_ip_from"):
            try:
                networks[str(parse_network(one.first))] = None
            except ValueError as error:
                remarks.lost(one, str(error).partition(";")[0])
        for one in scope.here("real_ip_header"):
            if one.first.lower() == "proxy_protocol":
                is_proxy_protocol = True
            elif one.first.lower() != "x-forwarded-for":
                remarks.differs(one, "clients behind proxies are known by X-Forwarded-For and Forwarded")
        for one in scope.here("real_ip_recursive"):
            if one.first != "on":
                remarks.differs(
                    one, "the first address from the right that is no trusted proxy's is the client's"
                )
    return list(networks), is_proxy_protocol


def _access_log(http: Scope, sites: list[Site], remarks: Remarks) -> dict[str, Any]:
    formats = {one.first: one for one in http.here("log_format")}
    found: Any = None
    for scope in (http, *(site.scope for site in sites)):
        for one in scope.here("access_log"):
            if found is not None:
                if one.args != found.args:
                    remarks.lost(one, "there is one access log for all; the first that is named is written")
                continue
            found = one
    if found is None:
        return {}
    if found.first == "off":
        return {"access_log": Noted(False, found.place)}
    if not found.first.startswith("/") or "$" in found.first or found.first.startswith("/dev/"):
        remarks.differs(found, "is written to standard output")
        return {}
    used = formats.get(found.args[1]) if len(found.args) > 1 else None
    if used and "escape=json" in used.args:
        return {"access_log": Noted({"path": found.first, "format": "json"}, found.place)}
    if used and used.first != "combined":
        remarks.differs(used, "the line is that of the format combined")
    return {"access_log": Noted(found.first, found.place)}


def _error_pages(site: Site, pages: dict[int, Any], remarks: Remarks) -> set[str]:
    """`error_page 502 /50x.html` with a location that has a root: the file. Their paths are returned."""
    uris: set[str] = set()
    for one in site.scope.all("error_page"):
        *codes, uri = one.args
        codes = [code for code in codes if not code.startswith("=")]
        if len(codes) + 1 < len(one.args) or not uri.startswith("/") or "$" in uri:
            remarks.lost(one, "pages of errors are files; name one for each status in error_pages")
            continue
        file = _file_of(site.scope, uri)
        uris.add(uri)
        for code in codes:
            if code.isdigit() and int(code) >= 400:
                page = pages.setdefault(int(code), Noted(file, one.place))
                if page.value != file:
                    remarks.differs(
                        one, "there is one page a status for all; the first that is named is sent"
                    )
    return uris


def _file_of(scope: Scope, uri: str) -> str:
    for location in scope.directives:
        if location.name == "location" and location.args[-1] == uri:
            inner = Scope(location.block or [], scope)
            if alias := inner.here("alias"):
                return alias[0].first
            return f"{inner.word('root', '/usr/share/nginx/html').rstrip('/')}{uri}"
    return f"{scope.word('root', '/usr/share/nginx/html').rstrip('/')}{uri}"


def _splits(http: Scope, remarks: Remarks) -> dict[str, dict[str, int]]:
    """`split_clients` as weights, in hundredths of a percent; the key is that of the variable."""
    found: dict[str, dict[str, int]] = {}
    for one in http.directives:
        if one.name != "split_clients" or len(one.args) != 2:
            continue
        one.is_known = True
        rest = 10_000
        shares: dict[str, int] = {}
        for entry in one.block or []:
            entry.is_known = True
            part = rest if entry.name == "*" else round(float(entry.name.rstrip("%")) * 100)
            shares[entry.first] = shares.get(entry.first, 0) + part
            rest -= part
        found[one.args[1].removeprefix("$")] = shares
        remarks.differs(one, "requests are told apart by chance, not by the client")
    return found
