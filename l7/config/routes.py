"""The list of routes as values."""

from __future__ import annotations

from dataclasses import dataclass, replace

from l4lb.control.field import Field
from l4lb.control.health_keys import parse_pattern
from l4lb.control.message import quoted
from l4lb.control.units import show_size
from l7.config.headers import parse_edits
from l7.config.match import parse_match
from l7.config.placed import PlacedRoute
from l7.config.times import parse_retries, parse_timeouts
from l7.config.words import MAX_NAME, parse_name, parse_path, parse_pool_name
from l7.model import (
    HeaderEdits,
    Match,
    PathKind,
    Redirect,
    Respond,
    Retries,
    Rewrite,
    Route,
    Share,
    Timeouts,
)
from l7.routing.compiled import CompiledRoute
from l7.routing.rewriting import check_replacement

_MAX_WEIGHT = 65535
_MAX_PRIORITY = 1_000_000
_MAX_BODY = 1 << 40
_MAX_RESPONSE = 64 << 10
_REDIRECTS = (301, 302, 303, 307, 308)

_ACTIONS = ("pool", "split", "redirect", "respond")
_TO_BACKENDS = ("rewrite", "request_headers", "timeouts", "retries", "upgrades")
"""Keys that mean nothing where no backend is asked."""
_SHARED_KEYS = ("request_headers", "response_headers", "timeouts", "retries", "max_body", "upgrades")
_KEYS = ("name", "match", *_ACTIONS, "rewrite", *_SHARED_KEYS, "priority")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for a route that says nothing else."""

    request_headers: HeaderEdits
    response_headers: HeaderEdits
    timeouts: Timeouts
    retries: Retries
    max_body: int | None
    upgrades: tuple[bytes, ...]


def parse_defaults(field: Field | None) -> Defaults:
    """The key `defaults`. Raises ConfigError."""
    plain = Route("", Match())
    default = Defaults(
        request_headers=plain.request_headers,
        response_headers=plain.response_headers,
        timeouts=plain.timeouts,
        retries=plain.retries,
        max_body=plain.max_body,
        upgrades=plain.upgrades,
    )
    keys = field.keys(_SHARED_KEYS, required=()) if field else {}
    return _parse_shared(keys, default, of_route=False)


def parse_routes(field: Field, defaults: Defaults) -> list[PlacedRoute]:
    """The routes, each with a name of its own. Raises ConfigError."""
    routes: list[PlacedRoute] = []
    taken: dict[str, Field] = {}
    for number, item in enumerate(field.items("routes")):
        route = _parse_route(item, number, defaults)
        name = route.value.name
        if other := taken.get(name):
            if "name" in dict(item.entries("keys")):
                raise item.at(["name"]).error(
                    f"{quoted(name)} is the name of {other.path} too; change one of the two"
                )
            name = _free(name, taken)
            route = replace(route, value=replace(route.value, name=name))
        taken[name] = item
        routes.append(route)
    return routes


def _free(name: str, taken: dict[str, Field]) -> str:
    number = 2
    while (free := f"{name}#{number}") in taken:
        number += 1
    return free


def _parse_route(field: Field, number: int, defaults: Defaults) -> PlacedRoute:
    keys = field.keys(_KEYS, required=())
    match, listeners = parse_match(keys["match"]) if "match" in keys else (Match(), [])
    actions = [name for name in _ACTIONS if name in keys]
    if len(actions) != 1:
        raise field.error(
            f"has {len(actions) or 'none'} of {', '.join(_ACTIONS[:-1])} and {_ACTIONS[-1]}; "
            "give it one of them"
        )
    if actions[0] in ("redirect", "respond"):
        for name in _TO_BACKENDS:
            if name in keys:
                raise keys[name].error(f"means nothing where no backend is asked ({actions[0]}); remove it")
    pools = _parse_shares(keys)
    shared = _parse_shared(keys, defaults, of_route=True)
    route = Route(
        name=keys["name"].parse(parse_name, "a name") if "name" in keys else _name_of(match, number),
        match=match,
        shares=tuple(share for share, _ in pools),
        redirect=_parse_redirect(keys["redirect"]) if "redirect" in keys else None,
        respond=_parse_respond(keys["respond"]) if "respond" in keys else None,
        rewrite=_parse_rewrite(keys["rewrite"], match) if "rewrite" in keys else None,
        request_headers=shared.request_headers,
        response_headers=shared.response_headers,
        timeouts=shared.timeouts,
        retries=shared.retries,
        max_body=shared.max_body,
        upgrades=shared.upgrades,
        priority=keys["priority"].integer(-_MAX_PRIORITY, _MAX_PRIORITY) if "priority" in keys else 0,
    )
    try:
        CompiledRoute(route, number)
    except ValueError as error:  # the groups that a redirect names are those of the path
        raise keys[actions[0]].error(str(error)) from None
    return PlacedRoute(route, field, [(share.pool, item) for share, item in pools], listeners)


def _name_of(match: Match, number: int) -> str:
    """`api.example.com/api/`, as far as that is a name."""
    name = (match.hosts[0] if match.hosts else "*") + (match.paths[0].text if match.paths else "/")
    try:
        return parse_name(name[:MAX_NAME])
    except ValueError:
        return f"route-{number}"


def _parse_shared(keys: dict[str, Field], default: Defaults, *, of_route: bool) -> Defaults:
    return Defaults(
        request_headers=(
            parse_edits(keys["request_headers"]) if "request_headers" in keys else default.request_headers
        ),
        response_headers=(
            parse_edits(keys["response_headers"]) if "response_headers" in keys else default.response_headers
        ),
        timeouts=(
            parse_timeouts(keys["timeouts"], default.timeouts, of_route=of_route)
            if "timeouts" in keys
            else default.timeouts
        ),
        retries=parse_retries(keys["retries"], default.retries) if "retries" in keys else default.retries,
        max_body=_parse_max_body(keys["max_body"]) if "max_body" in keys else default.max_body,
        upgrades=_parse_upgrades(keys["upgrades"]) if "upgrades" in keys else default.upgrades,
    )


def _parse_max_body(field: Field) -> int | None:
    what = f"none or a size up to {show_size(_MAX_BODY)}"
    return None if field.text(what) == "none" else field.size(0, _MAX_BODY, what)


def _parse_upgrades(field: Field) -> tuple[bytes, ...]:
    """An empty list allows none."""
    return tuple(
        item.parse(parse_name, "a protocol such as websocket").lower().encode()
        for item in field.items("protocols")
    )


def _parse_shares(keys: dict[str, Field]) -> list[tuple[Share, Field]]:
    if "pool" in keys:
        return [(Share(keys["pool"].parse(parse_pool_name, "the name of a pool")), keys["pool"])]
    if "split" not in keys:
        return []
    shares = [
        (Share(name, item.integer(0, _MAX_WEIGHT)), item)
        for name, item in keys["split"].entries("pools and weights")
    ]
    if not any(share.weight for share, _ in shares):
        raise keys["split"].error("no pool has a weight above 0; give one to at least one of them")
    return shares


def _parse_redirect(field: Field) -> Redirect:
    if not field.is_mapping():
        return Redirect(_parse_to(field))
    keys = field.keys(("to", "status"), required=("to",))
    redirect = Redirect(_parse_to(keys["to"]))
    if "status" in keys:
        status = keys["status"].integer(_REDIRECTS[0], _REDIRECTS[-1])
        if status not in _REDIRECTS:
            raise keys["status"].error(f"must be one of {', '.join(map(str, _REDIRECTS))}, not {status}")
        redirect = replace(redirect, status=status)
    return redirect


def _parse_to(field: Field) -> str:
    text = field.text("a URL such as https://$host$request_uri")
    if not text.startswith(("http://", "https://", "/", "$scheme://")):
        raise field.error(
            f"{quoted(text)} is not a URL; begin with https://, http://, $scheme:// or / as in "
            '"https://$host$request_uri"'
        )
    return text


def _parse_respond(field: Field) -> Respond:
    if not field.is_mapping():
        return Respond(field.integer(200, 599))
    keys = field.keys(("status", "body", "content_type"), required=())
    status = keys["status"].integer(200, 599) if "status" in keys else 200
    body = keys["body"].parse(_parse_body, "text") if "body" in keys else b""
    if body and status in (204, 304):
        raise keys["body"].error(f"answers of status {status} have no body; remove it")
    respond = Respond(status, body)
    if "content_type" in keys:
        content_type = keys["content_type"].parse(_parse_content_type, "a type such as text/html")
        respond = replace(respond, content_type=content_type)
    return respond


def _parse_content_type(text: str) -> bytes:
    if not text.isascii() or not text.isprintable() or "/" not in text:
        raise ValueError(f"{quoted(text)} is not a type of content; write it as in text/html")
    return text.encode()


def _parse_body(text: str) -> bytes:
    try:
        body = text.encode()
    except UnicodeEncodeError:
        raise ValueError("has half a character in it; write it without \\ud800 to \\udfff") from None
    if len(body) > _MAX_RESPONSE:
        raise ValueError(f"has {len(body)} bytes; use at most {show_size(_MAX_RESPONSE)}")
    return body


def _parse_rewrite(field: Field, match: Match) -> Rewrite:
    keys = field.keys(("prefix", "pattern", "replacement"), required=())
    if "prefix" in keys:
        for name in ("pattern", "replacement"):
            if name in keys:
                raise keys[name].error("prefix is given, too; remove one of the two")
        if not any(path.kind is not PathKind.REGEX for path in match.paths):
            raise keys["prefix"].error(
                "replaces the prefix of match.path, and there is none; add one, or use pattern"
            )
        return Rewrite(prefix=keys["prefix"].parse(parse_path, "a path such as /"))
    for name in ("pattern", "replacement"):
        if name not in keys:
            raise field.error(
                f'needs {name}; write it as in {{pattern: "^/old/(.*)", replacement: "/new/\\\\1"}}'
            )
    pattern = keys["pattern"].parse(parse_pattern, "a regular expression")
    return Rewrite(pattern=pattern, replacement=_parse_replacement(keys["replacement"], pattern))


def _parse_replacement(field: Field, pattern: str) -> str:
    text = field.text("text")
    if not text.isprintable():
        raise field.error(f"{quoted(text)} has a character in it that no path has; remove it")
    try:
        check_replacement(pattern, text)
    except ValueError as error:
        raise field.error(
            f"{quoted(text)} is not a replacement: {error}; name groups of the pattern as in \\1"
        ) from None
    return text
