"""A scheduler written in Python, at work on real traffic: what it chooses, and what comes of its failures."""

from __future__ import annotations

import textwrap

import pytest

from tests.integration.gateway import balancing, get, serving
from tests.support.lab import Lab, wait_for

pytestmark = pytest.mark.root
CONFIG = """
l4:
  datapath: {datapath}
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: {{python: "{module}:Chosen"}}
      backends: [10.2.0.11:8080, 10.2.0.12:8080, 10.2.0.13:8080]
"""
SOURCE = """
from l4lb.dataplane.custom import Scheduler

class Chosen(Scheduler):
    def choose(self, flow, backends):
        return flow.client_port % 50_000 % 3 if flow.client_port >= 50_000 else backends.nonsense
"""


@pytest.mark.parametrize(("datapath", "first"), [("reference", 0), ("rewrite", 300), ("offload", 600)])
def test_it_chooses_and_its_failures_are_survived(lab: Lab, monkeypatch, tmp_path, datapath, first):
    """`first` keeps the clients' ports of one run apart from those that another has just closed."""
    module = f"chosen_{datapath}"
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    text = CONFIG.format(datapath=datapath, module=module)
    with serving(lab, udp=()), balancing(lab, text) as running:
        assert [get(lab, source=50_000 + first + number) for number in (0, 1, 2)] == ["b1", "b2", "b3"]
        assert running.status()["scheduler_failures"] == 0
        assert {get(lab, source=40_000 + first + number) for number in range(20)} <= {"b1", "b2", "b3"}
        assert running.status()["scheduler_failures"] == 20
        assert [get(lab, source=50_010 + first + number) for number in (0, 1)] == ["b2", "b3"]
        services = running.command("services")
        assert f"python:{module}:Chosen" in services
        assert "l4lb_scheduler_failures_total 20\n" in running.command("metrics")

        def said() -> str:
            """What this run wrote; the file has that of the others before it."""
            return running.process.output().rpartition("msg=balancing")[2]

        wait_for(lambda: "AttributeError" in said(), 5, "the complaint in the log")
        assert said().count("the scheduler failed") <= 2
