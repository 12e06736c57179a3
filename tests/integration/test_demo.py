"""`./scripts/demo` as a reader of the README runs it."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest

from tests.support.lab import ROOT, existing_labs
from tests.support.scenarios.__main__ import DATAPATHS

pytestmark = [pytest.mark.root, pytest.mark.slow]


def demo(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        ["./scripts/demo", "--json", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_nat_spreads_by_weight_and_all_counts_agree(datapath: str) -> None:
    code, shown = demo("--datapath", datapath)
    if code == 3:
        pytest.skip(shown["why"])
    assert (code, shown["ok"], shown["why"]) == (0, True, None)
    assert (shown["requests"], shown["failed"], shown["datagrams"], shown["lost"]) == (300, 0, 300, 0)
    assert {name: (b["weight"], b["datagrams"]) for name, b in shown["backends"].items()} == {
        "b1": (3, 100),
        "b2": (2, 100),
        "b3": (1, 100),
    }
    assert sum(backend["requests"] for backend in shown["backends"].values()) == 300


def test_a_terminated_demo_removes_its_lab() -> None:
    with subprocess.Popen(
        ["./scripts/demo"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        assert run.stdout is not None
        prefix = None
        for line in run.stdout:
            if "making the lab" in line:
                prefix = line.split("making the lab ")[1].split(":")[0]
            if "starting l4lb" in line:
                run.send_signal(signal.SIGTERM)
                break
        rest = run.stdout.read()
    assert "interrupted by SIGTERM" in rest
    assert run.returncode == 128 + signal.SIGTERM
    assert prefix is not None
    assert prefix not in existing_labs()
