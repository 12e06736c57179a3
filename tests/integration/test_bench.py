"""The benchmarks work and say what they promise; what they measure is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
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
    assert named == ["decide", "packet-path", "connections", "bulk", "idle"]


def test_an_unknown_benchmark_is_a_usage_error() -> None:
    done = bench("no-such-benchmark")
    assert done.returncode == 2
    assert "packet-path" in done.stderr


def test_decide() -> None:
    found = measures("decide")
    assert {"ns_a_decision/known_10k_flows", "ns_a_decision/new_10k_flows"} <= found.keys()
    assert all(measure["ours"] > 0 for measure in found.values())
    assert all(measure["peers"].keys() == {"reference"} for measure in found.values())


@pytest.mark.root
def test_packet_path() -> None:
    before = existing_labs()
    found = measures("packet-path")
    for name in ("mark", "mark_2_workers", "rewrite", "reference"):
        measure = found[f"packets_per_s/{name}"]
        assert measure["ours"] > 0
        assert measure["peers"].keys() == {"forwarding", "stateless-nft", "conntrack-dnat", "netfilterqueue"}
        assert all(value > 0 for value in measure["peers"].values())
    assert {"lost_at_60_kpps/mark", "lost_at_60_kpps/rewrite"} <= found.keys()
    assert not [prefix for prefix in existing_labs().keys() - before.keys() if prefix.startswith("bench-")]
