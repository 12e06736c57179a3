"""`location`, `rewrite`, `return`, `if` → routes.

A route here is a mapping of our keys whose `match` has no host and no listener yet. Rewrites of a server, and
its `if`s, come before its locations; expressions are asked in that order, too, which leaves one difference:
exact paths and `^~` come before them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from l7.nginx.conditions import access_of, condition_of, regex_path
from l7.nginx.destinations import Destinations
from l7.nginx.paths import Path, narrowed, path_of, proxy_host_of, through
from l7.nginx.remarks import Remarks
from l7.nginx.settings import Settings, differences, read_request_headers, read_settings
from l7.nginx.source import Directive, Scope, reading
from l7.nginx.upstreams import Upstreams
from l7.nginx.words import expression, replacement, template, unescape, variables
from l7.nginx.yamltext import Noted
from l7.routing.paths import escape_path

Route = dict[str, Any]

FIRST = "first"
"""A key of routes that are asked before the others of their server; none of ours."""
_REDIRECTS = (301, 302, 303, 307, 308)
_SILENT = (444, 499)
"""nginx closes the connection."""
_ABSOLUTE = ("http://", "https://", "$scheme://")
_FILES = ("root", "alias", "try_files", "autoindex", "index")
_AUTHENTICATION = ("auth_basic", "auth_request", "auth_jwt")
_PASSES = ("fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass", "memcached_pass")


class Locations:
    """The routes of one server. `fixed` are variables whose value is known here, as `$server_name`; `pages`
    the paths of pages of errors, which are files."""

    def __init__(
        self,
        server: Scope,
        upstreams: Upstreams,
        outer: Settings,
        fixed: dict[str, str],
        splits: dict[str, dict[str, int]],
        pages: set[str],
        remarks: Remarks,
    ) -> None:
        self._server = server
        self._upstreams = upstreams
        self._destinations = Destinations(upstreams, splits, remarks)
        self._outer = outer
        self._fixed = fixed
        self._pages = pages
        self._remarks = remarks
        self._named = {
            one.first: Scope(one.block or [], server) for one in server.directives if _is_named(one)
        }
        self._used: set[str] = set()

    def routes(self) -> list[Route]:
        """All of them, in the order in which they are to be asked."""
        routes: list[Route] = []
        for one in self._server.directives:
            with reading(one):
                if one.name == "rewrite":
                    routes += self._rewrite_of_server(one)
                elif one.name == "if":
                    routes += self._if(one, self._server, None)
                elif one.name == "return":
                    routes.append(self._answer(one, self._server, None))
                    self._unreached()
                    return routes
        for path, scope, location in self._walk(self._server, None):
            with reading(location):
                routes += self._location(path, scope, location)
        for name in self._named:
            if name not in self._used:
                self._remarks.lost(self._named_directive(name), "nothing that was carried over leads to it")
        return routes

    def _unreached(self) -> None:
        for one in self._server.here("location"):
            self._remarks.lost(one, "is never reached, for the server returns before")

    def _named_directive(self, name: str) -> Directive:
        return next(one for one in self._server.directives if _is_named(one) and one.first == name)

    def _walk(self, scope: Scope, prefix: str | None) -> Iterator[tuple[Path, Scope, Directive]]:
        """Locations with those in them first, for their expressions are asked first."""
        for one in scope.directives:
            if one.name != "location" or _is_named(one):
                continue
            one.is_known = True
            if one.args and one.args[-1] in self._pages:
                for inside in one.block or []:
                    inside.is_known = True
                continue
            try:
                path = path_of(one, prefix)
            except ValueError as error:
                self._remarks.lost(one, str(error).partition(";")[0])
                continue
            inner = Scope(one.block or [], scope)
            is_prefix = isinstance(path, str) or "prefix" in path
            own = (path if isinstance(path, str) else path["prefix"]) if is_prefix else None
            yield from self._walk(inner, own)
            yield path, inner, one

    # -- one location

    def _location(self, path: Path, scope: Scope, location: Directive) -> list[Route]:
        routes: list[Route] = []
        for one in scope.here("if"):
            routes += self._if(one, scope, path)
        rewrites = [one for one in scope.here("rewrite") if not self._redirects(one, path, scope, routes)]
        if any(_is_for_all(route, path) for route in routes):
            return routes
        main = self._main(path, scope, location, rewrites, is_rest=bool(routes))
        main = {"match": {"path": Noted(path, location.place)}, **main}
        routes += self._with_access(main, scope)
        if "pool" in main or "split" in main:
            routes += self._with_slash(path, scope, location)
        return routes

    def _with_slash(self, path: Path, scope: Scope, location: Directive) -> list[Route]:
        """nginx sends requests for `/x` to `/x/`, where that is a location that leads to a backend."""
        prefix = path if isinstance(path, str) else path.get("prefix", "")
        if len(prefix) < 2 or not prefix.endswith("/"):
            return []
        bare = prefix[:-1]
        if any(one.name == "location" and one.args[-1] == bare for one in self._server.directives):
            return []
        match = {"path": Noted({"exact": bare}, f"{location.place} nginx's default")}
        to = escape_path(prefix).decode().replace("$", "$$")
        redirect = {"to": f"{to}$is_args$args", "status": 301}
        return [{"match": match, "redirect": redirect, **self._answer_headers(scope)}]

    def _main(
        self, path: Path, scope: Scope, location: Directive, rewrites: list[Directive], *, is_rest: bool
    ) -> Route:
        """What becomes of a request that no `if` and no redirect took, of which `is_rest` says that there are
        some."""
        if returned := scope.here("return"):
            return self._answer(returned[0], scope, None)
        passed = scope.here("proxy_pass")
        if not passed:
            if rewrites and (target := self._target(rewrites[0])):
                scope, passed, path = target
                rewrites[0] = through(rewrites[0], passed[0], path)
            elif tried := scope.here("try_files"):
                scope, passed = self._tried(tried[0], scope)
        if passed:
            return self._proxied(passed[0], path, scope, rewrites)
        for one in rewrites:
            self._remarks.lost(one, "leads to files, which are not served")
        served = next((one for one in scope.directives if one.name in (*_FILES, *_PASSES)), None)
        if served and served.name in _PASSES:
            self._remarks.sweep([served])
        elif served or not is_rest:
            self._remarks.lost(served or location, "files are not served here, the answer is 404")
        return {"respond": 404, **self._answer_headers(scope)}

    def _proxied(self, passed: Directive, path: Path, scope: Scope, rewrites: list[Directive]) -> Route:
        try:
            route = self._destinations.of(passed, path, scope, rewritten=bool(rewrites))
        except ValueError as error:
            self._remarks.lost(passed, f"{str(error).partition(';')[0]}; the answer is 502")
            return {"respond": 502, **self._answer_headers(scope)}
        if rewrites:
            self._rewrite(rewrites, route)
        headers = read_request_headers(scope, proxy_host_of(passed), self._fixed, passed, self._remarks)
        if not headers.keeps_host and not scope.one("proxy_redirect"):
            self._remarks.differs(
                passed, "Location headers of backends are not changed; pass Host on, so that they need not be"
            )
        for one in scope.all("proxy_redirect"):
            if one.first != "off":
                self._remarks.lost(one, "Location headers of backends are not changed; pass Host on")
        if headers.edits:
            route["request_headers"] = headers.edits
        route |= differences(
            read_settings(scope, self._upstreams.largest, self._remarks, of_route=True), self._outer
        )
        if headers.upgrades:
            route["upgrades"] = ["websocket"]
        return route

    def _tried(self, tried: Directive, scope: Scope) -> tuple[Scope, list[Directive]]:
        """`try_files $uri @app`: files are not looked for, so it is always the last."""
        last = tried.args[-1] if tried.args else ""
        if last in self._named:
            self._used.add(last)
            self._named_directive(last).is_known = True
            self._remarks.differs(tried, f"files are not looked for; everything goes to {last}")
            return self._named[last], self._named[last].here("proxy_pass")
        return scope, []

    def _with_access(self, main: Route, scope: Scope) -> list[Route]:
        """A route for those that may, and one that tells the others 403."""
        match = {"path": main["match"]["path"]}
        refused: Route = {"match": match, "respond": 403, **self._answer_headers(scope)}
        asked = [one for name in _AUTHENTICATION if (one := scope.one(name)) and one.first != "off"]
        for one in asked:
            self._remarks.lost(
                one, "nobody is asked who they are here; the answer is 403 until something else does"
            )
        if asked:
            for name in ("allow", "deny", "satisfy"):
                scope.all(name)
            return [refused]
        try:
            access = access_of(scope)
        except ValueError as error:
            for one in (*scope.all("allow"), *scope.all("deny")):
                self._remarks.lost(one, f"{error}; the answer is 403")
            return [refused]
        if access is None:
            return [main]
        networks, may = access
        if not networks:
            return [refused] if may else [main]
        restricted = {**main, "match": {**main["match"], "client": networks}}
        if may:
            return [restricted, refused]
        return [{**refused, "match": {**refused["match"], "client": networks}}, main]

    # -- answers

    def _answer(self, returned: Directive, scope: Scope, found_by: str | None) -> Route:
        returned.is_known = True
        code, text = (
            (returned.args[0], returned.args[1:]) if returned.first.isdigit() else ("302", returned.args)
        )
        status = int(code)
        headers = self._answer_headers(scope)
        if text and status in _REDIRECTS:
            return {"redirect": self._to(returned, text[0], status, groups=found_by is not None), **headers}
        if not 200 <= status <= 599 or status in _SILENT:
            self._remarks.differs(returned, "connections are not closed without an answer; it is 404")
            status = 404
        if not text or status in (204, 304):
            return {"respond": Noted(status, returned.place), **headers}
        if variables(text[0]):
            self._remarks.lost(
                returned, "there are no variables in the bodies of answers; it is sent as it stands"
            )
        kind = scope.word("default_type", "text/plain")
        respond = {"status": status, "body": unescape(text[0]), "content_type": kind}
        return {"respond": Noted(respond, returned.place), **headers}

    def _answer_headers(self, scope: Scope) -> Route:
        own = read_settings(scope, self._upstreams.largest, self._remarks, of_route=True)
        if own.response_headers == self._outer.response_headers:
            return {}
        return {"response_headers": own.response_headers}

    def _to(self, by: Directive, text: str, status: int, *, groups: bool) -> Noted:
        try:
            to = template(text, self._fixed, groups)
            if not to.startswith((*_ABSOLUTE, "/")):
                to = f"/{to}" if not to.startswith("$") else f"$scheme://$host{to}"
        except ValueError as error:
            self._remarks.lost(by, f"{error}; the redirect goes to /")
            to = "/"
        return Noted(to if status == 302 else {"to": to, "status": status}, by.place)

    # -- rewrites

    def _redirects(self, rewrite: Directive, path: Path, scope: Scope, routes: list[Route]) -> bool:
        """Whether a rewrite sends the client elsewhere; then its route is added."""
        if len(rewrite.args) < 2:
            return False
        text, flag = rewrite.args[1], rewrite.args[2] if len(rewrite.args) > 2 else ""
        if flag not in ("permanent", "redirect") and not text.startswith(_ABSOLUTE):
            return False
        status = 301 if flag == "permanent" else 302
        to = text.removesuffix("?") if text.endswith("?") else f"{text}$is_args$args"
        if "?" in text.removesuffix("?") or "$request_uri" in text or "$args" in text:
            to = text.removesuffix("?")
        try:
            where = narrowed(path, rewrite.first)
        except ValueError as error:
            self._remarks.lost(rewrite, str(error))
            return True
        match = {"path": Noted(where, rewrite.place)} if where is not None else {}
        has_groups = isinstance(where, dict) and "regex" in where
        redirect = self._to(rewrite, to, status, groups=has_groups)
        route: Route = {"match": match, "redirect": redirect, **self._answer_headers(scope)}
        routes.append(_before_all(route) if _is_first(path) else route)
        return True

    def _rewrite_of_server(self, rewrite: Directive) -> list[Route]:
        rewrite.is_known = True
        routes: list[Route] = []
        if self._redirects(rewrite, None, self._server, routes):
            return routes
        target = self._target(rewrite)
        if target is None:
            self._remarks.lost(rewrite, "no location that leads to a backend fits what it makes of the path")
            return []
        scope, passed, path = target
        self._remarks.differs(rewrite, "the location is looked for by the fixed beginning of the new path")
        route = self._proxied(passed[0], path, scope, [through(rewrite, passed[0], path)])
        where = {"path": Noted(regex_path(rewrite.first, False), rewrite.place)}
        return [_before_all({"match": where, **route})]

    def _target(self, rewrite: Directive) -> tuple[Scope, list[Directive], Path] | None:
        """The location that a rewritten path goes to, by what it begins with."""
        start = rewrite.args[1].partition("$")[0].partition("?")[0] if len(rewrite.args) > 1 else ""
        best: tuple[int, Scope, Directive] | None = None
        for one in self._server.directives:
            if one.name != "location" or len(one.args) > 2 or one.first in ("~", "~*", "@"):
                continue
            text = one.args[-1]
            exact = one.first == "="
            if (text == start if exact else start.startswith(text)) and (best is None or len(text) > best[0]):
                best = (len(text) + exact, Scope(one.block or [], self._server), one)
        if best is None:
            return None
        passed = best[1].here("proxy_pass")
        return (best[1], passed, best[2].args[-1]) if passed else None

    def _rewrite(self, rewrites: list[Directive], route: Route) -> None:
        first, *others = rewrites
        for one in others:
            self._remarks.lost(one, "a route has one rewrite; write one expression for both")
        try:
            new = replacement(first.args[1])
            route["rewrite"] = Noted({"pattern": expression(first.first), "replacement": new}, first.place)
        except ValueError as error:
            self._remarks.lost(first, str(error))

    # -- if

    def _if(self, condition: Directive, scope: Scope, path: Path) -> list[Route]:
        condition.is_known = True
        inner = Scope(condition.block or [], scope)
        routes: list[Route] = []
        try:
            asked = condition_of(condition)
            if "path" in asked:
                asked["path"] = narrowed(path, asked["path"]["regex"])
            elif path is not None:
                asked["path"] = path
        except ValueError as error:
            self._remarks.lost(condition, str(error).partition(";")[0])
            return []
        for one in inner.directives:
            if one.name == "return":
                route = {"match": Noted(asked, condition.place), **self._answer(one, inner, None)}
                routes.append(_before_all(route) if _is_first(path) else route)
            elif one.name == "rewrite" and self._redirects(one, path, inner, routes):
                one.is_known = True
                made = routes.pop()
                both = {**asked, **made["match"]} if "path" not in asked or path is None else asked
                routes.append({**made, "match": Noted(both, condition.place)})
            elif one.name != "break":
                self._remarks.lost(one, "only return and redirects are carried over from an if")
            one.is_known = True
        return routes


def _is_first(path: Path) -> bool:
    """Whether what has only conditions, or an expression, would be asked too late: it is the server's, or its
    location is one that comes before expressions."""
    return path is None or (isinstance(path, dict) and bool({"exact", "before_regex"} & set(path)))


def _is_for_all(route: Route, path: Path) -> bool:
    """Whether a redirect leaves nothing of its location."""
    match = route["match"].value if isinstance(route["match"], Noted) else route["match"]
    own = match.get("path")
    return set(match) == {"path"} and (own.value if isinstance(own, Noted) else own) == path


def _before_all(route: Route) -> Route:
    """The route, to be asked before the others of its server; `sites` says how."""
    return {**route, FIRST: True}


def _is_named(one: Directive) -> bool:
    return one.name == "location" and one.first.startswith("@")
