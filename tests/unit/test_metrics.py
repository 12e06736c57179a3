"""Metrics: what is rendered, read by a parser that takes nothing but the format."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest

from l4lb.control.prometheus import Process, render_family, render_metrics

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(rf'({NAME})="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (-?[0-9.e+-]+|NaN|[+-]Inf)")
UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


class Family(NamedTuple):
    kind: str
    samples: dict[frozenset[tuple[str, str]], float]


def parse(text: str) -> dict[str, Family]:
    """The families of an exposition. Every sample stands behind HELP and TYPE of its name, none twice."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    lines = text.splitlines()
    helped = None
    for line in lines:
        if match := re.fullmatch(rf"# HELP ({NAME}) (.+)", line):
            assert match[1] not in families
            helped = match[1]
            continue
        if match := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge)", line):
            assert match[1] == helped
            families[match[1]] = Family(match[2], {})
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        assert match[1] == helped and match[1] in families
        found = LABEL.findall(match[2] or "")
        assert "".join(f'{name}="{value}"' for name, value in found) == (match[2] or "").replace('",', '"')
        labels = frozenset((name, re.sub(r'\\[\\"n]', lambda m: UNESCAPED[m[0]], v)) for name, v in found)
        samples = families[match[1]].samples
        assert labels not in samples
        samples[labels] = float(match[3])
    assert all(family.samples for family in families.values())
    assert all(name.endswith("_total") == (family.kind == "counter") for name, family in families.items())
    return families


def status(**changes: Any) -> dict[str, Any]:
    return {
        "ready": True,
        "version": "0.1.0",
        "datapath": "offload",
        "queueing": "nft",
        "workers": 2,
        "flows": 5,
        "flow_capacity": 64,
        "undecided": 1,
        "fragments": 0,
        "denied": 4,
        "martians": 0,
        "hashed": 0,
        "passed": 0,
        "icmp_excess": 0,
        "untracked_sources": 0,
        "scheduler_failures": 0,
        "reasons": {"flow": 10, "no_backend": 2},
        "icmp": {"to_backend": 3, "no_flow": 1},
        "reassembly": {"fragments": 6, "reassembled": 3, "failed": 0},
        "queues": [
            {"number": 0, "waiting": 1, "dropped_full": 7, "dropped_socket": 0, "packets": 12, "overruns": 1},
            {"number": 1, "waiting": 0, "dropped_full": 0, "dropped_socket": 0},
        ],
        **changes,
    }


def backend(**changes: Any) -> dict[str, Any]:
    return {
        "service": "web",
        "backend": "10.2.0.11:8080",
        "state": "up",
        "weight": 3,
        "effective_weight": 3,
        "flows": 4,
        "active": 2,
        "open": 3,
        "max_connections": None,
        "scheduled": 9,
        "packets_in": 2**60,
        "bytes_in": 640,
        "packets_out": 8,
        "bytes_out": 512,
        "packets_offloaded": 1,
        **changes,
    }


def service(**changes: Any) -> dict[str, Any]:
    return {
        "service": "web",
        "state": "sorry",
        "has_quorum": False,
        "up": 1,
        "quorum": 2,
        "withdrawn": ["203.0.113.10"],
        **changes,
    }


PROCESS = Process(cpu_s=1.25, resident_bytes=4096, started_s=1_700_000_000.5, open_files=9)


def value(families: dict[str, Family], name: str, **labels: str) -> float:
    return families[name].samples[frozenset(labels.items())]


def test_everything_that_is_counted_is_there_under_its_labels():
    text = render_metrics(status(), [service()], [backend()], PROCESS)
    found = parse(text)
    web = {"service": "web", "backend": "10.2.0.11:8080"}
    assert value(found, "l4lb_backend_packets_total", **web, direction="out") == 8
    assert value(found, "l4lb_backend_bytes_total", **web, direction="in") == 640
    assert value(found, "l4lb_backend_new_flows_total", **web) == 9
    assert value(found, "l4lb_backend_flows", **web) == 4
    assert value(found, "l4lb_backend_active_flows", **web) == 2
    assert value(found, "l4lb_backend_weight", **web) == 3
    assert value(found, "l4lb_backend_state", **web, state="up") == 1
    assert value(found, "l4lb_service_state", service="web", state="sorry") == 1
    assert value(found, "l4lb_service_backends_up", service="web") == 1
    assert value(found, "l4lb_service_quorum", service="web") == 2
    assert value(found, "l4lb_vip_withdrawn", vip="203.0.113.10") == 1
    assert value(found, "l4lb_service_has_quorum", service="web") == 0
    assert value(found, "l4lb_packets_total", reason="no_backend") == 2
    assert value(found, "l4lb_icmp_errors_total", reason="to_backend") == 3
    assert value(found, "l4lb_denied_packets_total") == 4
    assert value(found, "l4lb_reassembly_fragments_total") == 6
    assert value(found, "l4lb_queue_lost_packets_total", queue="0", cause="dropped_full") == 7
    assert value(found, "l4lb_queue_errors_total", queue="0", cause="overruns") == 1
    assert value(found, "l4lb_build_info", version="0.1.0", datapath="offload", queueing="nft") == 1
    assert value(found, "process_cpu_seconds_total") == 1.25
    assert value(found, "process_start_time_seconds") == 1_700_000_000.5
    assert f'direction="in"}} {2**60}\n' in text  # a float would round it


def test_what_is_not_known_has_no_sample():
    unseen = backend(packets_out=None, bytes_out=None)
    del unseen["state"]
    found = parse(render_metrics(status(), [service()], [unseen], PROCESS))
    directions = {dict(labels)["direction"] for labels in found["l4lb_backend_packets_total"].samples}
    assert directions == {"in"}
    assert "l4lb_backend_state" not in found


def test_a_daemon_without_traffic_and_backends_has_valid_metrics():
    found = parse(render_metrics(status(reasons={}, icmp={}, queues=[]), [], [], PROCESS))
    assert "l4lb_packets_total" not in found and "l4lb_flows" in found


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a,b", 'x="y"', "ünï", "a}b"])
def test_labels_are_escaped(name):
    found = parse(render_metrics(status(), [service()], [backend(service=name)], PROCESS))
    assert value(found, "l4lb_backend_flows", service=name, backend="10.2.0.11:8080") == 4


def test_help_is_one_line():
    assert render_family("a", "gauge", "b\nc\\d", [({}, 1)]).splitlines()[0] == "# HELP a b\\nc\\\\d"


def test_the_parser_of_the_client_library_reads_it_too():
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")
    families = list(
        parser.text_string_to_metric_families(render_metrics(status(), [service()], [backend()], PROCESS))
    )
    assert sum(len(family.samples) for family in families) > 20
