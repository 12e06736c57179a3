"""What holds for requests: time-outs, retries, bodies, headers; for all, and in locations what differs.

What nginx does without being told is written out where we would do something else: it waits 60 s for a
connection, tries every backend, and upgrades nothing unless headers say so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from l4lb.control.units import show_duration
from l7.config.words import FRAMING, parse_edited_header
from l7.model import Timeouts
from l7.nginx.remarks import Remarks
from l7.nginx.source import Directive, Scope, reading
from l7.nginx.words import parse_size, parse_time, size, template
from l7.nginx.yamltext import Noted

_LONGEST_S = 86400.0
_SHORTEST_S = 0.01
_MOST_TRIES = 16

_TIMES = {
    "connect": ("proxy_connect_timeout", "60s"),
    "read": ("proxy_read_timeout", "60s"),
    "backend_write": ("proxy_send_timeout", "60s"),
    "upgraded": ("proxy_read_timeout", "60s"),
    "body": ("client_body_timeout", "60s"),
    "write": ("send_timeout", "60s"),
}
_TIMES_OF_CONNECTIONS = {"header": ("client_header_timeout", "60s"), "idle": ("keepalive_timeout", "75s")}

_BUILT_IN = {
    "host": ("$http_host",),
    "x-real-ip": ("$remote_addr",),
    "x-forwarded-for": ("$proxy_add_x_forwarded_for",),
    "x-forwarded-proto": ("$scheme",),
    "x-forwarded-host": ("$http_host",),
    "x-forwarded-port": ("$server_port",),
}
"""What the proxy sends without being told."""


@dataclass(slots=True)
class Settings:
    """Effective values of a scope, in our words; `notes` says which line each is from."""

    timeouts: dict[str, str] = field(default_factory=dict)
    retries: Any = None
    max_body: str = "1MiB"
    response_headers: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def noted(self, key: str, value: Any) -> Any:
        """The value with the line that it is from."""
        return Noted(value, self.notes[key]) if key in self.notes else value


def read_settings(scope: Scope, tries: int, remarks: Remarks, *, of_route: bool) -> Settings:
    """What holds in a scope; `tries` is how many backends the largest pool has."""
    settings = Settings()
    times = _TIMES if of_route else _TIMES | _TIMES_OF_CONNECTIONS
    for name, (directive_name, default) in times.items():
        directive = scope.one(directive_name)
        settings.timeouts[name] = _time(directive, default, remarks)
        if directive:
            settings.notes[f"timeouts.{name}"] = directive.place
    settings.retries = _retries(scope, tries, remarks, settings.notes)
    if directive := scope.one("client_max_body_size"):
        with reading(directive):
            settings.max_body = size(directive.first) if parse_size(directive.first) else "none"
        settings.notes["max_body"] = directive.place
    settings.response_headers = _response_headers(scope, remarks)
    return settings


def differences(own: Settings, outer: Settings) -> dict[str, Any]:
    """The keys of a route whose values are not those of `outer`."""
    found: dict[str, Any] = {}
    times = {
        name: own.noted(f"timeouts.{name}", value)
        for name, value in own.timeouts.items()
        if outer.timeouts.get(name) != value
    }
    if times:
        found["timeouts"] = times
    for key in ("retries", "max_body", "response_headers"):
        if getattr(own, key) != getattr(outer, key):
            found[key] = own.noted(key, getattr(own, key))
    return found


def default_settings() -> Settings:
    """What holds here where nothing is said."""
    ours = Timeouts()
    names = (*_TIMES, *_TIMES_OF_CONNECTIONS)
    return Settings(timeouts={name: show_duration(getattr(ours, f"{name}_s")) for name in names})


def _time(directive: Directive | None, default: str, remarks: Remarks) -> str:
    if directive is None:
        return show_duration(parse_time(default))
    with reading(directive):
        seconds = parse_time(directive.first)
    if not _SHORTEST_S <= seconds <= _LONGEST_S:
        nearest = min(max(seconds, 1.0), _LONGEST_S)
        remarks.differs(directive, f"time-outs are 10ms to 24h; {show_duration(nearest)} is used")
        seconds = nearest
    return show_duration(seconds)


def _retries(scope: Scope, tries: int, remarks: Remarks, notes: dict[str, str]) -> Any:
    directive, limit = scope.one("proxy_next_upstream"), scope.one("proxy_next_upstream_tries")
    if timeout := scope.one("proxy_next_upstream_timeout"):
        remarks.lost(timeout, "tries are bounded in number, not in time; use timeouts: {total: …}")
    for each in (directive, limit):
        if each:
            notes["retries"] = each.place
    words = directive.args if directive else ("error", "timeout")
    if "off" in words:
        return False
    if directive and "non_idempotent" in words:
        remarks.lost(
            directive, "what was sent and is not idempotent is never sent twice; the rest is carried over"
        )
    wanted = int(limit.first) if limit and limit.first.isdigit() and limit.first != "0" else tries
    retries: dict[str, Any] = {"attempts": max(1, min(wanted, _MOST_TRIES)), "budget": "100%"}
    if statuses := [int(word.removeprefix("http_")) for word in words if re.fullmatch("http_[0-9]{3}", word)]:
        retries["statuses"] = statuses
    return retries


def _response_headers(scope: Scope, remarks: Remarks) -> dict[str, Any]:
    edits: dict[str, Any] = {}
    passed = {one.first.lower() for one in scope.all("proxy_pass_header")}
    hidden = [
        one.first
        for one in scope.all("proxy_hide_header")
        if one.first.lower() not in passed and _is_name(one, remarks)
    ]
    if hidden:
        edits["remove"] = hidden
    added: dict[str, Any] = {}
    for one in scope.all("add_header"):
        if len(one.args) < 2 or not _is_name(one, remarks) or not one.args[1]:
            continue
        try:
            value = template(one.args[1])
        except ValueError as error:
            remarks.lost(one, str(error))
            continue
        if "always" not in one.args:
            remarks.differs(
                one, "is added to answers of every status; nginx leaves errors out without always"
            )
        added[one.first] = [*added[one.first], value] if one.first in added else [value]
    if added:
        edits["add"] = {name: values[0] if len(values) == 1 else values for name, values in added.items()}
    return edits


@dataclass(slots=True)
class RequestHeaders:
    """The edits of a location; `upgrades` is whether it lets connections be upgraded."""

    edits: dict[str, Any]
    upgrades: bool
    keeps_host: bool


def read_request_headers(
    scope: Scope, proxy_host: str, fixed: dict[str, str], by: Directive, remarks: Remarks
) -> RequestHeaders:
    """What `proxy_set_header` says, and the Host that nginx sends where it says nothing: that of the URL."""
    lines = scope.all("proxy_set_header")
    values = {one.first.lower(): one for one in lines}
    found: dict[str, Any] = {}
    removed: list[str] = []
    if "host" not in values and "$" in proxy_host:
        remarks.differs(by, "Host is passed on; in nginx it is the name of the upstream that was chosen")
    elif "host" not in values:
        found["Host"] = Noted(proxy_host, f"{by.place} nginx's default, $proxy_host")
    for one in lines:
        name, value = one.first, one.args[1] if len(one.args) > 1 else ""
        if name.lower() in FRAMING:
            _check_framing(one, value, remarks)
        elif value in _BUILT_IN.get(name.lower(), ()) or not _is_name(one, remarks):
            continue
        elif not value:
            removed.append(name)
        else:
            try:
                found[name] = Noted(template(value, {"proxy_host": proxy_host, **fixed}), one.place)
            except ValueError as error:
                remarks.lost(one, str(error))
    edits: dict[str, Any] = {}
    if found:
        edits["set"] = found
    if removed:
        edits["remove"] = removed
    host = values["host"].args[1:] if "host" in values else ()
    return RequestHeaders(edits, "upgrade" in values, host in (("$http_host",), ("$host",)))


def _check_framing(one: Directive, value: str, remarks: Remarks) -> None:
    """Connection and Upgrade are how nginx is told of keep-alive and of WebSockets, which need no telling."""
    if one.first.lower() not in ("connection", "upgrade") or value.lower() == "close":
        remarks.lost(one, "belongs to the connection, and the proxy writes it itself")


def _is_name(one: Directive, remarks: Remarks) -> bool:
    try:
        parse_edited_header(one.first)
    except ValueError as error:
        remarks.lost(one, str(error).partition(";")[0])
        return False
    return True
