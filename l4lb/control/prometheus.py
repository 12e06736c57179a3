"""What the daemon counts, as Prometheus text (exposition format 0.0.4).

https://prometheus.io/docs/instrumenting/exposition_formats/

Counters end with `_total`, units are seconds and bytes, and what can be summed is not also given as a sum:
the counters of a service are the sums of its backends'. Pure: the same rows that `status`, `services` and
`backends ls` show come in, text goes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Sample = tuple[Mapping[str, object], float]
"""Labels and value."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BACKEND_COUNTERS = (
    ("scheduled", "l4lb_backend_new_flows_total", "Flows that were given to the backend."),
    (
        "packets_offloaded",
        "l4lb_backend_offloaded_packets_total",
        "Packets in that the kernel forwarded alone.",
    ),
)
_BACKEND_GAUGES = (
    ("flows", "l4lb_backend_flows", "Remembered flows."),
    ("active", "l4lb_backend_active_flows", "Established TCP flows."),
    ("open", "l4lb_backend_open_flows", "Flows that are not closing: what max_connections limits."),
    ("max_connections", "l4lb_backend_max_connections", "Open flows with which it takes no new ones."),
    ("weight", "l4lb_backend_weight", "Configured weight."),
    ("effective_weight", "l4lb_backend_effective_weight", "Weight that new flows are given by."),
)
_SERVICE_GAUGES = (
    ("up", "l4lb_service_backends_up", "Backends of the service that count for its quorum."),
    ("quorum", "l4lb_service_quorum", "Backends of the service that must be up."),
    ("has_quorum", "l4lb_service_has_quorum", "Whether the service has its quorum."),
)
_STATUS_COUNTERS = (
    (
        "undecided",
        "l4lb_undecided_packets_total",
        "Packets that passed a full queue undecided and were dropped.",
    ),
    (
        "fragments",
        "l4lb_fragments_total",
        "Fragments dropped because the kernel could not put them together.",
    ),
    ("denied", "l4lb_denied_packets_total", "Packets of clients that allow and deny keep out."),
    (
        "martians",
        "l4lb_martian_packets_total",
        "Packets from impossible addresses, where they might be answered.",
    ),
    (
        "hashed",
        "l4lb_hashed_packets_total",
        "Packets hashed by the kernel without a decision (on_failure: hash).",
    ),
    ("passed", "l4lb_passed_packets_total", "Packets let through without a decision (on_failure: pass)."),
    ("icmp_excess", "l4lb_icmp_excess_packets_total", "ICMP errors beyond the rate limit."),
    (
        "scheduler_failures",
        "l4lb_scheduler_failures_total",
        "New flows that a scheduler written in Python had no answer for.",
    ),
    (
        "untracked_sources",
        "l4lb_untracked_source_flows_total",
        "Flows that no limit of a source could be kept for.",
    ),
)
_QUEUE_COUNTERS = (
    ("packets", "l4lb_queue_packets_total", "Packets that the queue's worker has read."),
    ("batches", "l4lb_queue_batches_total", "Batches in which it read them."),
    ("dropped", "l4lb_queue_decided_drops_total", "Packets that were decided to be dropped."),
    ("sent", "l4lb_queue_sent_packets_total", "Packets sent through raw sockets in the place of others."),
)
_QUEUE_LOSSES = ("dropped_full", "dropped_socket")
_QUEUE_ERRORS = ("verdict_errors", "send_errors", "send_failed", "overruns", "unreadable")
_REASSEMBLY = (
    ("fragments", "l4lb_reassembly_fragments_total", "Fragments that the host's kernel received."),
    ("reassembled", "l4lb_reassembly_packets_total", "Packets that it put together from fragments."),
    ("failed", "l4lb_reassembly_failures_total", "Packets that it could not put together."),
)


@dataclass(frozen=True, slots=True)
class Process:
    """What the daemon's process costs. CPU time and the start, since the epoch, in seconds."""

    cpu_s: float
    resident_bytes: int
    started_s: float
    open_files: int


def render_metrics(status: Row, services: Iterable[Row], backends: Iterable[Row], process: Process) -> str:
    """The text of one scrape, from the answers of `status`, `services` and `backends ls`."""
    families = [
        *_whole(status),
        *_services(list(services)),
        *_backends(list(backends)),
        *_queues(status["queues"]),
        *_process(process),
    ]
    return "".join(families)


def render_family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> str:
    """HELP, TYPE and a line for each sample; nothing where there is none."""
    lines = [render_sample(name, labels, value) for labels, value in samples]
    if not lines:
        return ""
    shown = text.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {name} {shown}\n# TYPE {name} {kind}\n{''.join(lines)}"


def render_sample(name: str, labels: Mapping[str, object], value: float) -> str:
    """One line."""
    return f"{name}{_labels(labels)} {_number(value)}\n"


def _process(process: Process) -> Iterator[str]:
    """By the names that client libraries give them, so that ready-made dashboards find them."""
    cpu, memory = process.cpu_s, process.resident_bytes
    yield _one("process_cpu_seconds_total", "counter", "CPU time of the process, user and system.", cpu)
    yield _one("process_resident_memory_bytes", "gauge", "Resident memory of the process.", memory)
    yield _one("process_start_time_seconds", "gauge", "When it started, since the epoch.", process.started_s)
    yield _one("process_open_fds", "gauge", "Open file descriptors.", process.open_files)


def _whole(status: Row) -> Iterator[str]:
    info = {key: status[key] for key in ("version", "datapath", "queueing")}
    yield render_family("l4lb_build_info", "gauge", "Version and datapath; always 1.", [(info, 1)])
    yield _one("l4lb_ready", "gauge", "Whether the daemon balances and is not stopping.", status["ready"])
    yield _one("l4lb_workers", "gauge", "Workers.", status["workers"])
    yield _one("l4lb_flows", "gauge", "Remembered flows.", status["flows"])
    yield _one("l4lb_flow_capacity", "gauge", "Flows that can be remembered.", status["flow_capacity"])
    yield render_family(
        "l4lb_packets_total",
        "counter",
        "Packets that user space decided, by reason.",
        [({"reason": reason}, count) for reason, count in status["reasons"].items()],
    )
    for key, name, text in _STATUS_COUNTERS:
        if key in status:
            yield _one(name, "counter", text, status[key])
    yield render_family(
        "l4lb_icmp_errors_total",
        "counter",
        "ICMP errors about flows, by what became of them.",
        [({"reason": reason}, count) for reason, count in status["icmp"].items()],
    )
    for key, name, text in _REASSEMBLY:
        yield _one(name, "counter", text, status["reassembly"][key])


def _services(rows: Sequence[Row]) -> Iterator[str]:
    yield render_family(
        "l4lb_service_state",
        "gauge",
        "1 for the state that the service is in.",
        [({"service": row["service"], "state": row["state"]}, 1) for row in rows],
    )
    yield render_family(
        "l4lb_vip_withdrawn",
        "gauge",
        "1 for a VIP that was taken from its interface, for its services have no quorum.",
        [({"vip": vip}, 1) for vip in dict.fromkeys(vip for row in rows for vip in row["withdrawn"])],
    )
    for key, name, text in _SERVICE_GAUGES:
        yield render_family(name, "gauge", text, [({"service": row["service"]}, row[key]) for row in rows])


def _backends(rows: Sequence[Row]) -> Iterator[str]:
    for unit, word in (("packets", "Packets"), ("bytes", "Bytes")):
        yield render_family(
            f"l4lb_backend_{unit}_total",
            "counter",
            f"{word} to the backend (in) and from it (out, where answers come by here).",
            [
                ({**_owner(row), "direction": direction}, row[f"{unit}_{direction}"])
                for row in rows
                for direction in ("in", "out")
                if row.get(f"{unit}_{direction}") is not None
            ],
        )
    for columns, kind in ((_BACKEND_COUNTERS, "counter"), (_BACKEND_GAUGES, "gauge")):
        for key, name, text in columns:
            samples = [(_owner(row), row[key]) for row in rows if row.get(key) is not None]
            yield render_family(name, kind, text, samples)
    yield render_family(
        "l4lb_backend_state",
        "gauge",
        "1 for the state that the backend is in.",
        [({**_owner(row), "state": row["state"]}, 1) for row in rows if row.get("state")],
    )


def _queues(rows: Sequence[Row]) -> Iterator[str]:
    waiting = [({"queue": row["number"]}, row["waiting"]) for row in rows]
    yield render_family("l4lb_queue_waiting_packets", "gauge", "Packets that wait in the queue.", waiting)
    for key, name, text in _QUEUE_COUNTERS:
        samples = [({"queue": row["number"]}, row[key]) for row in rows if key in row]
        yield render_family(name, "counter", text, samples)
    yield _by_cause("l4lb_queue_lost_packets_total", "Packets that the kernel dropped.", rows, _QUEUE_LOSSES)
    yield _by_cause("l4lb_queue_errors_total", "What went wrong at the queue.", rows, _QUEUE_ERRORS)


def _by_cause(name: str, text: str, rows: Sequence[Row], keys: Iterable[str]) -> str:
    samples = [
        ({"queue": row["number"], "cause": key}, row[key]) for key in keys for row in rows if key in row
    ]
    return render_family(name, "counter", text, samples)


def _owner(row: Row) -> dict[str, object]:
    return {"service": row["service"], "backend": row["backend"]}


def _one(name: str, kind: str, text: str, value: float) -> str:
    return render_family(name, kind, text, [({}, value)])


def _labels(labels: Mapping[str, object]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(str(value))}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    """Whole numbers without an exponent: a float would round what is beyond 2 to the 53."""
    return str(int(value)) if isinstance(value, int) else repr(float(value))
