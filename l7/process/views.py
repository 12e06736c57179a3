"""What the daemon answers: rows and objects for the admin socket, from the roster and the counters."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from l7.process.counts import Counts, spare_label
from l7.process.roster import Roster
from l7.routing.router import Router
from l7.routing.views import list_routes

Json = dict[str, Any]

_BACKEND_COUNTERS = {
    "active": "backend_active",
    "idle": "backend_idle",
    "requests": "backend_requests_total",
    "bytes_in": "backend_bytes_in_total",
    "bytes_out": "backend_bytes_out_total",
    "connects": "backend_connects_total",
}
_FAILURES = ("backend_connect_failures_total", "backend_failures_total", "backend_timeouts_total")
_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")


def backend_rows(roster: Roster, counts: Counts) -> Iterator[Json]:
    """A row for each backend of each pool. `state` is `ejected` where it is up by checks and out by its own
    requests, in `ejected_by` workers."""
    now_s = time.monotonic()
    for member in roster.members():
        ejected = member.ejected(now_s)
        name = member.backend.name if member.spare is None else spare_label(member.spare)
        labels = ("pool", member.pool), ("backend", name)
        microseconds = counts.of("backend_first_byte_microseconds_total", *labels)
        requests = counts.of("backend_requests_total", *labels)
        yield {
            "pool": member.pool,
            "backend": member.backend.name,
            "state": "ejected" if ejected and member.state == "up" else member.state,
            "weight": member.full_weight,
            "backup": member.backend.is_backup,
            **{key: counts.of(metric, *labels) for key, metric in _BACKEND_COUNTERS.items()},
            "failed": sum(counts.of(metric, *labels) for metric in _FAILURES),
            "answers": {one: counts.of("backend_answers_total", *labels, ("class", one)) for one in _CLASSES},
            "first_byte_ms": round(microseconds / requests / 1000, 3) if requests else None,
            "first_byte_us_total": microseconds,
            "addresses": [host for host, _ in member.endpoints],
            "ejected_by": len(ejected),
            "why": ejected[0] if ejected else member.why,
            "since_s": round(max(now_s - member.since_s, 0.0), 1) if member.since_s is not None else None,
        }


def route_rows(router: Router, counts: Counts) -> Iterator[Json]:
    """A row for each route, in the order in which they are asked."""
    for row in list_routes(router):
        label = ("route", row["route"])
        yield {
            **row,
            "requests": counts.of("route_requests_total", label),
            "active": counts.of("route_active", label),
            "answers": {one: counts.of("route_answers_total", label, ("class", one)) for one in _CLASSES},
            "retries": counts.of("route_retries_total", label),
            "bytes_in": counts.of("route_bytes_in_total", label),
            "bytes_out": counts.of("route_bytes_out_total", label),
        }


def status_counters(counts: Counts) -> Json:
    """The sums that `l7lb status` shows."""
    return {
        "connections": counts.total("listener_connections_total"),
        "connections_open": counts.total("listener_connections"),
        "tls_handshakes": counts.total("listener_tls_handshakes_total"),
        "tls_failures": counts.total("listener_tls_failures_total"),
        "requests": counts.total("route_requests_total"),
        "requests_active": counts.total("route_active"),
        "retries": counts.total("route_retries_total"),
        "ends": {word: count for word, count in counts.by_label("ends_total").items() if count},
        "refused": {word: count for word, count in counts.by_label("refused_total").items() if count},
    }
