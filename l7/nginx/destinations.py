"""`proxy_pass` → the pool or the split of a route, with the TLS to its backends."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from l7.config.words import parse_path
from l7.nginx.paths import Path
from l7.nginx.remarks import Remarks
from l7.nginx.source import Directive, Scope
from l7.nginx.upstreams import Upstreams
from l7.nginx.words import variables
from l7.nginx.yamltext import Noted


class Destinations:
    """Where a server's locations lead. `splits` are the variables of `split_clients`: pools by weight."""

    def __init__(self, upstreams: Upstreams, splits: dict[str, dict[str, int]], remarks: Remarks) -> None:
        self._upstreams = upstreams
        self._splits = splits
        self._remarks = remarks

    def of(self, passed: Directive, path: Path, scope: Scope, *, rewritten: bool) -> dict[str, Any]:
        """The keys of a route that say where a `proxy_pass` leads. Where the path is `rewritten` already,
        what stands behind the host has no part in it. ValueError for what has no counterpart."""
        url = passed.first
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in ("http", "https"):
            raise ValueError("is not a URL of http or https")
        name, slash, tail = rest.partition("/")
        if name.startswith("$") and name[1:].strip("{}") in self._splits and not tail:
            split = self._splits[name[1:].strip("{}")]
            return {
                "split": Noted(
                    {self._pool(pool, passed, scope, scheme): weight for pool, weight in split.items()},
                    passed.place,
                )
            }
        if variables(name) or name.startswith("unix:"):
            raise ValueError("backends are named in the configuration, not by variables or sockets of Unix")
        pool = self._pool(name, passed, scope, scheme)
        for health_check in scope.here("health_check"):
            self._upstreams.check(pool, health_check)
        route: dict[str, Any] = {"pool": Noted(pool, f"{passed.place} {url}")}
        if slash and not rewritten:
            if variables(tail) or "?" in tail:
                self._remarks.lost(
                    passed, "paths with variables or parameters are not made here; use rewrite"
                )
            elif isinstance(path, dict) and "regex" in path:
                self._remarks.lost(passed, "a path behind an expression has no meaning in nginx either")
            else:
                route["rewrite"] = {"prefix": parse_path(f"/{tail}")}
        return route

    def _pool(self, name: str, passed: Directive, scope: Scope, scheme: str) -> str:
        tls = self._backend_tls(scope, name) if scheme == "https" else False
        port = urlsplit(f"//{name}").port
        return self._upstreams.pool_for(name, passed, tls=tls, port=port or (443 if tls else 80))

    def _backend_tls(self, scope: Scope, name: str) -> dict[str, Any]:
        """nginx verifies nothing unless told to."""
        tls: dict[str, Any] = {"verify": scope.word("proxy_ssl_verify") == "on"}
        if (ca := scope.word("proxy_ssl_trusted_certificate")) and tls["verify"]:
            tls["ca"] = ca
        given = scope.word("proxy_ssl_name")
        host = name.partition(":")[0]
        if given and not variables(given):
            tls["server_name"] = given
        elif (scope.word("proxy_ssl_server_name") == "on" or tls["verify"]) and re.search("[a-z]", host):
            tls["server_name"] = host
        for key, directive in (
            ("certificate", "proxy_ssl_certificate"),
            ("key", "proxy_ssl_certificate_key"),
        ):
            if file := scope.word(directive):
                tls[key] = file
        for directive in ("proxy_ssl_protocols", "proxy_ssl_ciphers", "proxy_ssl_session_reuse"):
            scope.all(directive)
        return tls
