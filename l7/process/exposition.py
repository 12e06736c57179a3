"""What the proxy counts, as Prometheus text: `l7lb_` and the names of the layout.

Counters come as they stand in shared memory: microseconds become seconds here, and the buckets of a histogram
are added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from l4lb.control.prometheus import Row, Sample, render_family, render_sample
from l7.process.counts import Counts
from l7.proxy.layout import Column, Labels

_PREFIX = "l7lb_"
_MICROSECONDS = "_microseconds_total"
_BUCKET = "_bucket"
_TEXTS = {
    "worker_connections": "Connections of clients that are open.",
    "worker_tunnels": "Upgraded and passed-through connections that are open.",
    "worker_log_lines_lost": "Lines of the access log that could not be written.",
    "ends_total": "Requests by how they ended.",
    "refused_total": "Requests that were refused, by the rule that they broke.",
    "listener_connections_total": "Connections that were accepted.",
    "listener_connections": "Connections that are open.",
    "listener_tls_handshakes_total": "TLS handshakes that were completed.",
    "listener_tls_resumed_total": "Of those, resumed sessions.",
    "listener_tls_failures_total": "TLS handshakes that failed.",
    "listener_proxy_refused_total": "Connections whose PROXY header was missing, wrong or not allowed.",
    "route_requests_total": "Requests that took the route.",
    "route_active": "Requests that are being served.",
    "route_answers_total": "Answers by the class of their status.",
    "route_bytes_in_total": "Bytes of requests' bodies.",
    "route_bytes_out_total": "Bytes of answers' bodies.",
    "route_retries_total": "Requests that were given to another backend.",
    "route_seconds_bucket": "Time from the first byte of a request to the last of its answer.",
    "pool_waiting": "Requests that wait for a place.",
    "pool_queue_full_total": "Requests that were refused because too many wait.",
    "pool_queue_timeouts_total": "Requests that waited too long for a place.",
    "pool_down_total": "Requests that no backend was up for.",
    "backend_requests_total": "Requests that the backend was given.",
    "backend_active": "Requests and upgraded connections that it has now.",
    "backend_answers_total": "Its answers by the class of their status.",
    "backend_connects_total": "Connections to it.",
    "backend_connect_failures_total": "Connections to it that failed.",
    "backend_failures_total": "Requests that it broke off or answered with nonsense.",
    "backend_timeouts_total": "Requests that it did not answer in time.",
    "backend_reused_total": "Requests on a kept connection.",
    "backend_stale_total": "Of those, connections that it had closed.",
    "backend_idle": "Connections to it that are kept for later requests.",
    "backend_bytes_in_total": "Bytes of bodies that were sent to it.",
    "backend_bytes_out_total": "Bytes of bodies that it sent.",
    "backend_first_byte_microseconds_total": "Time that it took to the first byte of its answers.",
}
_STATES = ("up", "down", "draining", "disabled", "ejected")

_Counter = tuple[Column, Labels, int]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process costs: `master`, `steward`, `worker 0`."""

    name: str
    pid: int
    cpu_s: float
    resident_bytes: int


def render_metrics(
    counts: Counts,
    backends: Iterable[Row],
    status: Row,
    certificates: Iterable[Row],
    costs: Iterable[Cost],
) -> str:
    """The text of one scrape."""
    families = [
        *_whole(status),
        *_counters(counts),
        *_backends(list(backends)),
        *_certificates(list(certificates)),
        *_costs(list(costs)),
    ]
    return "".join(families)


def _whole(status: Row) -> Iterator[str]:
    info = {"version": status["version"]}
    yield render_family(_PREFIX + "build_info", "gauge", "Version; always 1.", [(info, 1)])
    yield _gauge("generation", "Reloads and starts, counted.", [({}, status["generation"])])
    yield _gauge("workers", "Workers that serve.", [({}, len(status["workers"]))])
    restarts: list[Sample] = [({}, status["restarts"])]
    yield render_family(
        _PREFIX + "restarts_total", "counter", "Processes that died and were replaced.", restarts
    )


def _counters(counts: Counts) -> Iterator[str]:
    # What stands together for one metric may stand apart in the layout, where an object's columns do.
    ordered = sorted(counts.samples(), key=lambda one: _TEXT_ORDER.get(one[0].metric, len(_TEXT_ORDER)))
    for metric, group in groupby(ordered, key=lambda one: one[0].metric):
        own = list(group)
        if metric.endswith(_BUCKET):
            yield _histogram(metric.removesuffix(_BUCKET), own, counts)
        elif metric == "route" + _MICROSECONDS:
            continue  # the sum of its histogram
        elif metric.endswith(_MICROSECONDS):
            name = metric.removesuffix(_MICROSECONDS) + "_seconds_total"
            samples: list[Sample] = [(dict(labels), value / 1e6) for _, labels, value in own]
            yield render_family(_PREFIX + name, "counter", _TEXTS[metric], samples)
        else:
            kind = "counter" if own[0][0].grows else "gauge"
            samples = [(dict(labels), value) for _, labels, value in own]
            yield render_family(_PREFIX + metric, kind, _TEXTS.get(metric, metric), samples)


def _histogram(name: str, own: list[_Counter], counts: Counts) -> str:
    """Buckets of one object stand together, the smallest first."""
    full = _PREFIX + name
    lines = [f"# HELP {full} {_TEXTS[name + _BUCKET]}\n# TYPE {full} histogram\n"]
    for owner, group in groupby(own, key=lambda one: one[1][:-1]):
        total = 0
        for _, labels, value in group:
            total += value
            lines.append(render_sample(f"{full}_bucket", dict(labels), total))
        microseconds = counts.of(name.removesuffix("_seconds") + _MICROSECONDS, *owner)
        lines.append(render_sample(f"{full}_sum", dict(owner), microseconds / 1e6))
        lines.append(render_sample(f"{full}_count", dict(owner), total))
    return "".join(lines)


def _backends(rows: list[Row]) -> Iterator[str]:
    def owner(row: Row) -> dict[str, object]:
        return {"pool": row["pool"], "backend": row["backend"]}

    yield _gauge("backend_weight", "Weight.", [(owner(row), row["weight"]) for row in rows])
    states: list[Sample] = [
        ({**owner(row), "state": state}, int(row["state"] == state)) for row in rows for state in _STATES
    ]
    yield _gauge("backend_state", "1 for the state that the backend is in.", states)


def _certificates(rows: list[Row]) -> Iterator[str]:
    samples: list[Sample] = [
        ({"listener": row["listener"], "file": row["file"]}, row["expires_s"]) for row in rows
    ]
    yield _gauge("certificate_expires_seconds", "When the certificate expires, since the epoch.", samples)


def _costs(costs: list[Cost]) -> Iterator[str]:
    def owner(cost: Cost) -> dict[str, object]:
        return {"process": cost.name, "pid": cost.pid}

    cpu: list[Sample] = [(owner(cost), cost.cpu_s) for cost in costs]
    text = "CPU time of each process, user and system."
    yield render_family(_PREFIX + "process_cpu_seconds_total", "counter", text, cpu)
    memory: list[Sample] = [(owner(cost), cost.resident_bytes) for cost in costs]
    yield _gauge("process_resident_bytes", "Resident memory of each process.", memory)


def _gauge(name: str, text: str, samples: list[Sample]) -> str:
    return render_family(_PREFIX + name, "gauge", text, samples)


_TEXT_ORDER = {metric: place for place, metric in enumerate(_TEXTS)}
