"""`upstream` → pools.

What nginx does without being told is written out: a backend is out for 10 s after one failure. Weights count
with `least_conn` and in turn, as there.
"""

from __future__ import annotations

import re
from typing import Any

from l7.config.words import parse_backend_address
from l7.nginx.remarks import Remarks
from l7.nginx.source import Directive, Scope, reading
from l7.nginx.words import duration, expression, parse_time
from l7.nginx.yamltext import Noted

_FOREVER = "8760h"
_HASHES = {"$request_uri": "uri", "$uri": "uri", "$uri$is_args$args": "uri"}
_SOURCES = ("$remote_addr", "$binary_remote_addr")
_METHODS = ("least_conn", "ip_hash", "hash", "random", "least_time")


class Upstreams:
    """The pools of one context, made when they are asked for. `pools` is in the order of the file."""

    def __init__(self, scope: Scope, remarks: Remarks) -> None:
        self.pools: dict[str, dict[str, Any]] = {}
        self.settings: dict[str, Any] = {}
        """Time-outs that stand in upstreams in nginx and in routes here."""
        self._remarks = remarks
        self._matches = {one.first: one for one in scope.here("match")}
        self._names: dict[tuple[str, str], str] = {}
        """(name in nginx, what else the pool has) → pool."""
        self._made: dict[str, dict[str, Any]] = {}
        """Pools of upstreams as they are without what a `proxy_pass` adds."""
        for upstream in scope.here("upstream"):
            with reading(upstream):
                self._add(upstream)

    @property
    def largest(self) -> int:
        """The number of backends of the largest pool."""
        return max((len(pool["backends"]) for pool in self.pools.values()), default=0)

    def pool_for(
        self, name: str, by: Directive, *, tls: dict[str, Any] | bool = False, port: int = 80
    ) -> str:
        """The pool that a `proxy_pass` to `name` means. ValueError where it cannot be one."""
        known = self._names.get((name, repr(tls)))
        if known:
            return known
        if name in self._made and not tls:
            label = name if self.pools.get(name, self._made[name]) is self._made[name] else self._free(name)
            self.pools[label] = self._made[name]
            self._names[name, repr(tls)] = label
            return label
        if name not in self._made:
            address = name if re.search(r":[0-9]+$", name) else f"{name}:{port}"
            parse_backend_address(address)
            pool: dict[str, Any] = {"backends": [Noted(address, by.place)]}
            if not re.search(r"[0-9.]:|\.|\]:|^localhost:", address):
                self._remarks.differs(by, f"there is no upstream {name} here; it is taken for a host name")
        else:
            pool = dict(self._made[name])
            if not any(other == name for other, _ in self._names):
                self.pools.pop(name, None)
        if tls:
            pool = {"tls": Noted(tls, by.place), **pool}
        label = self._free(re.sub(r"[^A-Za-z0-9_.-]", "-", name).strip("-"))
        self.pools[label] = pool
        self._names[name, repr(tls)] = label
        return label

    def check(self, pool: str, health_check: Directive) -> None:
        """A `health_check` that stands in a location."""
        if "health" not in self.pools[pool]:
            health = self._health(health_check, "https" if "tls" in self.pools[pool] else "http")
            self.pools[pool] = {"health": health, **self.pools[pool]}

    def _free(self, name: str) -> str:
        label, number = name, 2
        while label in self.pools:
            label, number = f"{name}-{number}", number + 1
        return label

    def _add(self, upstream: Directive) -> None:
        name = upstream.first
        if name in self._made:
            self._remarks.differs(upstream, "stands here twice, which nginx refuses; both are carried over")
        label = self._free(name)
        self.pools[label] = self._made[label] = self._pool(upstream)

    def _pool(self, upstream: Directive) -> dict[str, Any]:
        scope = Scope(upstream.block or [])
        servers = scope.here("server")
        pool: dict[str, Any] = self._method(scope)
        for sticky in scope.here("sticky"):
            self._sticky(sticky, pool)
        for health_check in scope.here("health_check"):
            pool["health"] = self._health(health_check, "http")
        if servers:
            pool["passive"] = self._passive(servers)
            self._slow_start(servers, pool)
        self._rest(scope, pool)
        pool["backends"] = [backend for server in servers if (backend := self._backend(server)) is not None]
        return pool

    def _method(self, scope: Scope) -> dict[str, Any]:
        found = scope.here(*_METHODS)
        if not found:
            return {}
        method = found[-1]
        if method.name == "least_conn":
            return {"scheduler": Noted("weighted-least-connections", f"{method.place} least_conn")}
        if method.name == "ip_hash":
            self._remarks.differs(method, "the whole address is hashed; nginx takes the first three numbers")
            return {"scheduler": Noted("source-hash", f"{method.place} ip_hash")}
        if method.name == "least_time":
            return {"scheduler": Noted("least-time", method.place)}
        if method.name == "random":
            if "two" not in method.args:
                self._remarks.differs(method, "of two by chance the one with fewer requests is taken")
            return {"scheduler": Noted("power-of-two", method.place)}
        return self._hash(method)

    def _hash(self, method: Directive) -> dict[str, Any]:
        key = method.first
        if key in _SOURCES:
            return {"scheduler": Noted("source-hash", f"{method.place} hash {key}")}
        pool: dict[str, Any] = {"scheduler": Noted("consistent-hash", f"{method.place} hash {key}")}
        if header := re.fullmatch(r"\$http_([a-z0-9_]+)", key):
            pool["hash_by"] = {"header": header[1].replace("_", "-")}
        elif cookie := re.fullmatch(r"\$cookie_([A-Za-z0-9_]+)", key):
            pool["hash_by"] = {"cookie": cookie[1]}
        else:
            if key not in _HASHES:
                self._remarks.differs(method, f"{key} cannot be hashed; the URI with its parameters is")
            pool["hash_by"] = "uri"
        return pool

    def _sticky(self, sticky: Directive, pool: dict[str, Any]) -> None:
        kind, *args = sticky.args or ("",)
        options = dict(arg.partition("=")[::2] for arg in args)
        if kind == "cookie" and args:
            value: dict[str, Any] = {"cookie": args[0]}
            if expires := options.get("expires"):
                value["max_age"] = _FOREVER if expires == "max" else duration(expires)
            for name in ("domain", "path"):
                if name in options:
                    value[name] = options[name].removeprefix(".") if name == "domain" else options[name]
            if "secure" in options:
                value["secure"] = True
            if same_site := options.get("samesite"):
                value["same_site"] = same_site.capitalize()
            pool["sticky"] = Noted(value, sticky.place)
        elif kind == "learn" and (
            cookie := re.fullmatch(r"\$cookie_([A-Za-z0-9_]+)", options.get("lookup", ""))
        ):
            value = {"kind": "learn", "cookie": cookie[1], "max_age": duration(options.get("timeout", "10m"))}
            pool["sticky"] = Noted(value, sticky.place)
        else:
            self._remarks.lost(
                sticky, "sessions are known by cookies or addresses only; use sticky: {cookie: NAME}"
            )

    def _health(self, health_check: Directive, kind: str) -> Noted:
        options = dict(arg.partition("=")[::2] for arg in health_check.args)
        health: dict[str, Any] = {"type": kind, "path": options.get("uri", "/")}
        health["interval"] = duration(options.get("interval", "5s"))
        health["rise"] = int(options.get("passes", "1"))
        health["fall"] = int(options.get("fails", "1"))
        if "port" in options:
            health["port"] = int(options["port"])
        for name in ("jitter", "mandatory", "persistent", "keepalive_time"):
            if name in options:
                self._remarks.differs(health_check, f"{name} has no counterpart, the rest is carried over")
        if options.get("type", "http") != "http":
            self._remarks.lost(health_check, "gRPC is not checked; the path is asked for by HTTP")
        if (wanted := options.get("match")) and (match := self._matches.get(wanted)):
            health["expect"] = self._expectation(match)
        elif wanted:
            self._remarks.lost(
                health_check, f"there is no match {wanted} here; any status of 200 to 399 is right"
            )
        return Noted(health, health_check.place)

    def _expectation(self, match: Directive) -> dict[str, Any]:
        expect: dict[str, Any] = {}
        for test in match.block or []:
            test.is_known = True
            if test.name == "status" and "!" not in test.args:
                expect["status"] = [int(arg) if arg.isdigit() else arg for arg in test.args]
            elif test.name == "body" and test.first == "~" and len(test.args) == 2:
                expect["match"] = expression(test.args[1])
            else:
                self._remarks.lost(test, "a check looks at the status and for text in the body only")
        return expect

    def _passive(self, servers: list[Directive]) -> Any:
        """nginx counts for each server; here it is one rule for the pool."""
        servers = [one for one in servers if "down" not in one.args] or servers
        rules = {(_option(one, "max_fails", "1"), _option(one, "fail_timeout", "10s")) for one in servers}
        fails, timeout = _option(servers[0], "max_fails", "1"), _option(servers[0], "fail_timeout", "10s")
        if len(rules) > 1:
            self._remarks.differs(
                servers[0], "max_fails and fail_timeout are one for the pool; the first counts"
            )
        note = f"max_fails={fails} fail_timeout={timeout}"
        if fails == "0":
            return Noted(False, note)
        inhibit = duration(timeout) if parse_time(timeout) >= 0.1 else "100ms"
        return Noted(
            {"failures": int(fails), "inhibit": inhibit, "longest": inhibit, "max_ejected": "100%"}, note
        )

    def _slow_start(self, servers: list[Directive], pool: dict[str, Any]) -> None:
        times = {text for one in servers if (text := _option(one, "slow_start", "0"))}
        longest = max(times, key=parse_time)
        if parse_time(longest) > 0:
            pool["slow_start"] = Noted(duration(longest), servers[0].place)
            if any("down" not in one.args and not _option(one, "slow_start", "") for one in servers):
                self._remarks.differs(servers[0], "slow_start is one for the pool; the longest counts")

    def _rest(self, scope: Scope, pool: dict[str, Any]) -> None:
        for keepalive in scope.here("keepalive"):
            pool["max_idle"] = Noted(int(keepalive.first), keepalive.place)
        for idle in scope.here("keepalive_timeout"):
            self.settings["backend_idle"] = Noted(duration(idle.first), idle.place)
        for queue in scope.here("queue"):
            pool["max_queue"] = Noted(int(queue.first), queue.place)
            if timeout := _option(queue, "timeout", ""):
                self.settings["queue"] = Noted(duration(timeout), queue.place)

    def _backend(self, server: Directive) -> Any:
        with reading(server):
            return self._read_backend(server)

    def _read_backend(self, server: Directive) -> Any:
        address = server.first if re.search(r":[0-9]+$", server.first) else f"{server.first}:80"
        if address.startswith("unix:"):
            self._remarks.lost(server, "backends are reached over TCP; let it listen on an address")
            return None
        parse_backend_address(address)
        backend: dict[str, Any] = {"address": address}
        if (weight := _option(server, "weight", "1")) != "1":
            backend["weight"] = int(weight)
        if "down" in server.args:
            backend["weight"] = 0
        if "backup" in server.args:
            backend["backup"] = True
        if (limit := _option(server, "max_conns", "0")) != "0":
            backend["max_connections"] = int(limit)
            self._remarks.differs(server, "max_conns holds for each worker, as in nginx without a zone")
        for word in server.args[1:]:
            if word.partition("=")[0] in ("route", "service", "drain"):
                self._remarks.lost(server, f"{word} has no counterpart, the rest is carried over")
        note = server.place + (" down" if "down" in server.args else "")
        return Noted(backend if len(backend) > 1 else address, note)


def _option(directive: Directive, name: str, default: str) -> str:
    """The value of `name=value` among the arguments."""
    for arg in directive.args:
        if arg.startswith(f"{name}="):
            return arg.partition("=")[2]
    return default
