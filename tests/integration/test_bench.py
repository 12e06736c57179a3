"""The benchmarks work and say what they promise; what they measure is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import ROOT, existing_labs

MEASURE_KEYS = {
    "name",
    "unit",
    "better",
    "ours",
    "peers",
    "ratio",
    "ratio_spread",
    "runs",
    "spread",
    "targets",
    "machine",
}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.bench", *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def measures(name: str) -> dict[str, dict[str, Any]]:
    """The measures of a quick run by their names, each checked for its form."""
    done = bench(name, "--quick", "--json")
    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout)
    assert whole["name"] == name
    for measure in whole["measures"]:
        assert measure.keys() == MEASURE_KEYS
        assert measure["runs"] == 1
        assert measure["peers"].keys() == measure["ratio"].keys()
        assert measure["spread"].keys() == {"ours", *measure["peers"]}
        for peer, value in measure["peers"].items():
            ratio = measure["ratio"][peer]
            assert ratio == (pytest.approx(measure["ours"] / value) if value else None)
        assert {"kernel", "cores", "versions"} <= measure["machine"].keys()
    return {measure["name"]: measure for measure in whole["measures"]}


def test_the_list_names_every_benchmark() -> None:
    done = bench("--list")
    assert done.returncode == 0
    named = [line.split()[0] for line in done.stdout.splitlines()]
    assert named == [
        "decide",
        "heads",
        "packet-path",
        "dsr",
        "connections",
        "bulk",
        "offload",
        "flood",
        "idle",
        "l7",
        "flows",
        "reload",
        "ipvs",
    ]


def test_an_unknown_benchmark_is_a_usage_error() -> None:
    done = bench("no-such-benchmark")
    assert done.returncode == 2
    assert "packet-path" in done.stderr


def test_heads() -> None:
    found = measures("heads")
    assert found["ns_to_parse/browser"]["peers"].keys() == {"httptools"}
    assert all(measure["ours"] > 0 for measure in found.values())


def test_decide() -> None:
    found = measures("decide")
    assert {"ns_a_decision/known_10k_flows", "ns_a_decision/new_10k_flows"} <= found.keys()
    assert all(measure["ours"] > 0 for measure in found.values())
    assert all(measure["peers"].keys() == {"reference"} for measure in found.values())


@pytest.fixture
def no_lab_left() -> Iterator[None]:
    before = existing_labs()
    yield
    made = [prefix for prefix in existing_labs().keys() - before.keys() if prefix.startswith("bench-")]
    # `bench-PID-…`: one whose process runs is somebody else's.
    assert not [prefix for prefix in made if not Path("/proc", prefix.split("-")[1]).exists()]


@pytest.mark.root
@pytest.mark.usefixtures("no_lab_left")
def test_packet_path() -> None:
    found = measures("packet-path")
    for name in ("mark", "mark_2_workers", "rewrite", "reference"):
        measure = found[f"packets_per_s/{name}"]
        assert measure["ours"] > 0
        assert measure["peers"].keys() == {"forwarding", "stateless-nft", "conntrack-dnat", "netfilterqueue"}
        assert all(value > 0 for value in measure["peers"].values())
    assert {"lost_at_60_kpps/mark", "lost_at_60_kpps/rewrite"} <= found.keys()


@pytest.mark.root
@pytest.mark.usefixtures("no_lab_left")
def test_dsr() -> None:
    found = measures("dsr")
    assert found.keys() == {"packets_per_s/offload", "packets_per_s/mark"}
    for measure in found.values():
        assert measure["ours"] > 0
        assert measure["peers"].keys() == {"forwarding", "stateless-nft"}
        assert all(value > 0 for value in measure["peers"].values())
    assert [target["of"] for target in found["packets_per_s/offload"]["targets"]] == ["forwarding"]


@pytest.mark.root
@pytest.mark.usefixtures("no_lab_left")
def test_offload() -> None:
    found = measures("offload")
    for name in ("offload", "mark"):
        for kind in ("new_connections_per_s", "requests_per_s"):
            assert found[f"{kind}/{name}"]["ours"] > 0
            assert found[f"{kind}/{name}"]["peers"].keys() == {"conntrack-dnat", "haproxy"}
        assert found[f"gbit_per_s/{name}"]["ours"] > 0
        assert "direct" in found[f"gbit_per_s/{name}"]["peers"]
        assert found[f"gbit_per_s_at_1_gbit/{name}"]["ours"] > 0
        assert {f"share_at_1_gbit/{name}", f"share_without_traffic/{name}"} <= found.keys()


@pytest.mark.root
@pytest.mark.usefixtures("no_lab_left")
def test_flood() -> None:
    found = measures("flood")
    for name in ("offload", "mark"):
        assert found[f"requests_per_s_undisturbed/{name}"]["ours"] > 0
        # How much is kept is the benchmark's business: on a busy machine it may be nothing.
        assert found[f"kept_in_syn_flood/{name}"]["peers"].keys() == {"forwarding", "haproxy"}
        for kind in ("syns_sent_per_s", "datagrams_sent_per_s"):
            sent = found[f"{kind}/{name}"]
            # The sender never goes beyond its rate for long, however it was held up.
            assert all(0 < value < 110_000 for value in (sent["ours"], *sent["peers"].values()))
        assert found[f"flows_after_flood/{name}"]["ours"] > 0
        assert found[f"memory_growth_mib/{name}"]["peers"].keys() == {"haproxy"}


@pytest.mark.root
@pytest.mark.usefixtures("no_lab_left")
def test_idle() -> None:
    found = measures("idle")
    assert found["first_answer_s"]["ours"] > 0
    assert {
        "idle_share",
        "idle_share/500_passive_backends",
        "idle_share/500_checked_backends",
    } == found.keys() - {"first_answer_s"}


@pytest.mark.root
@pytest.mark.usefixtures("no_lab_left")
def test_flows() -> None:
    found = measures("flows")
    assert found["flows"]["ours"] >= 50_000
    for name in ("answer_by_client", "answer_by_bytes", "command_by_client", "command_by_bytes"):
        assert found[f"first_page_s/{name}"]["ours"] > 0
    assert found["median_while_listing"]["peers"].keys() == {"quiet"}
    assert found["lost_while_listing"]["ours"] == 0


@pytest.mark.root
@pytest.mark.usefixtures("no_lab_left")
def test_reload() -> None:
    found = measures("reload")
    for change in ("nothing", "one_weight", "tenth_of_the_backends"):
        assert found[f"reload_s/{change}"]["ours"] > 0
        assert found[f"slowest/{change}"]["peers"].keys() == {"quiet"}
        assert found[f"lost/{change}"]["ours"] == 0


@pytest.mark.root
@pytest.mark.usefixtures("no_lab_left")
def test_l7() -> None:
    found = measures("l7")
    beside = {name: measure for name, measure in found.items() if "two-workers" not in name}
    for measure in beside.values():
        assert measure["peers"].keys() == {"nginx", "haproxy"}
    # That all of them echoed is a condition of the figure.
    assert [name for name in found if name.startswith("idle_websocket_kib/")]
    assert found["requests_per_s/keep-alive"]["ours"] > 0
