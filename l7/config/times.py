"""Time-outs and retries, of the whole section (`defaults`) and of a route."""

from __future__ import annotations

from dataclasses import replace

from l4lb.control.field import Field
from l4lb.control.health_keys import parse_status
from l4lb.control.units import parse_fraction
from l7.model import Retries, Timeouts

_RANGE_S = (0.01, 86400.0)
_MAX_RATE = 1 << 30
_MAX_ATTEMPTS = 16

_RATES = ("body_rate", "write_rate", "read_rate")

_OF_CONNECTIONS = ("header", "idle", "backend_idle")
"""What is decided before a request has a route, or after it has gone."""
_OF_REQUESTS = ("body", "write", "connect", "read", "backend_write", "total", "upgraded", "queue", *_RATES)


def parse_timeouts(field: Field, default: Timeouts, *, of_route: bool) -> Timeouts:
    """Those that the field names, and `default` for the others. Raises ConfigError."""
    known = _OF_REQUESTS if of_route else _OF_CONNECTIONS + _OF_REQUESTS
    if of_route and field.is_mapping():
        for name, item in field.entries("time-outs"):
            if name in _OF_CONNECTIONS:
                raise item.error(
                    f"{name} is about connections, whatever the route; write it in l7.defaults.timeouts"
                )
    keys = field.keys(known, required=())
    changes: dict[str, float | int | None] = {}
    for name, item in keys.items():
        if name in _RATES:
            is_none = item.text("bytes a second or none") == "none"
            changes[name] = None if is_none else item.size(1, _MAX_RATE)
        elif name == "total" and item.text("a duration or none") == "none":
            changes["total_s"] = None
        else:
            changes[f"{name}_s"] = item.duration(*_RANGE_S)
    return replace(default, **changes)  # type: ignore[arg-type]


def parse_retries(field: Field, default: Retries) -> Retries:
    """`false` is one try; else a mapping. Raises ConfigError."""
    names = ("attempts", "budget", "statuses")
    if not field.is_mapping():
        wanted = f"true, false or a mapping with the keys {', '.join(names)}"
        return default if field.flag(wanted) else Retries(attempts=1)
    keys = field.keys(names, required=())
    return Retries(
        attempts=keys["attempts"].integer(1, _MAX_ATTEMPTS) if "attempts" in keys else default.attempts,
        budget=(
            keys["budget"].parse(parse_fraction, "a part of the requests such as 20% or 0.2")
            if "budget" in keys
            else default.budget
        ),
        statuses=parse_statuses(keys["statuses"]) if "statuses" in keys else default.statuses,
    )


def parse_statuses(field: Field) -> tuple[tuple[int, int], ...]:
    """Ranges of statuses."""
    ranges = field.distinct(parse_status, "a status such as 503 or 500-599", "statuses")
    return tuple(value for value, _ in ranges)
