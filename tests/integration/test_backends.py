"""Changing backends while they work: no request fails, no transfer breaks."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.integration.gateway import balancing, get, serving, shares
from tests.integration.under_load import requesting, transferring
from tests.support.lab import Lab, wait_for
from tests.support.scenarios.balancer import PROGRAM, Balancer

pytestmark = pytest.mark.root
CONFIG = """
l4:
  datapath: {datapath}
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: round-robin
      backends: [10.2.0.11:8080, 10.2.0.12:8080]
    - name: bulk
      listen: 203.0.113.10:8001/tcp
      scheduler: source-hash
      backends: [10.2.0.11, 10.2.0.12]
"""
B1, B2, B3 = "10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080"


@pytest.fixture(scope="module", params=["offload", "mark", "rewrite"])
def running(request, lab: Lab) -> Iterator[Balancer]:
    with serving(lab, udp=()), balancing(lab, CONFIG.format(datapath=request.param)) as running:
        yield running


def change(running: Balancer, *words: str) -> dict:
    return json.loads(running.command("backends", *words, "--json"))


def row(running: Balancer, backend: str) -> dict:
    return next(r for r in running.backends() if (r["service"], r["backend"]) == ("web", backend))


def test_every_change_under_load_fails_no_request_and_breaks_no_transfer(lab, running):
    with transferring(lab, 8001, rate="200M"), requesting(lab):
        wait_for(lambda: running.status()["flows"] >= 17, 10, "the load")
        change(running, "add", "web", B3, "--weight", "2")
        change(running, "drain", "web", B1)
        change(running, "weight", "web", B2, "5")
        change(running, "enable", "web", B1)
        change(running, "disable", "web", B2)
        change(running, "weight", "web", B2, "default")
        change(running, "enable", "web", B2)
        running.command("reload")


def test_a_drained_backend_takes_nothing_new_and_is_done_when_its_flows_are(lab, running):
    change(running, "drain", "web", B1)
    try:
        assert shares([get(lab) for _ in range(4)]) == {"b2": 4}
        assert row(running, B1)["state"] == "draining"
        running.command("flows", "flush", "--service", "web", "--backend", B1)
        answer = json.loads(running.command("backends", "drain", "web", B1, "--wait", "--json"))
        assert answer["flows"] == 0
    finally:
        change(running, "enable", "web", B1)
    assert set(shares([get(lab) for _ in range(4)])) == {"b1", "b2"}


def test_drained_state_and_weights_stay_over_a_reload(lab, running):
    change(running, "drain", "web", B1)
    change(running, "weight", "web", B2, "7")
    planned = json.loads(running.command("reload", "--dry-run", "--json"))
    assert (planned["reloaded"], planned["changes"]) == (False, [])
    running.command("reload")
    assert row(running, B1)["state"] == "draining"
    assert row(running, B2)["effective_weight"] == 7
    change(running, "enable", "web", B1)
    change(running, "weight", "web", B2, "default")


def test_an_added_backend_is_there_until_the_next_reload(lab, running):
    change(running, "add", "web", B3)
    assert set(shares([get(lab) for _ in range(6)])) == {"b1", "b2", "b3"}
    running.command("reload")
    assert set(shares([get(lab) for _ in range(6)])) == {"b1", "b2"}


def test_a_removed_backend_gets_nothing(lab, running):
    change(running, "remove", "web", B2)
    assert shares([get(lab) for _ in range(4)]) == {"b1": 4}
    refused = lab.gateway.run([*_program(running), "backends", "remove", "web", B1], check=False)
    assert refused.returncode == 1
    assert "the last backend" in refused.stderr
    running.command("reload")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("drain", "wbe", B1), 1, "there is no service wbe; there are web, bulk"),
        (("drain", "web", "10.2.0.99:8080"), 1, "has no backend 10.2.0.99:8080; it has"),
        (("weight", "web", B1, "heavy"), 2, "'heavy' is neither a whole number nor default"),
        (("add", "web", "[2001:db8::1]:80"), 2, "of another family"),
        (("add", "web", "nowhere"), 2, "nowhere"),
        (("add", "web", B1), 1, "already"),
    ],
)
def test_wrong_wishes_say_what_there_is(lab, running, words, code, said):
    refused = lab.gateway.run([*_program(running), "backends", *words], check=False)
    assert refused.returncode == code, refused.stderr
    assert said in refused.stderr


def _program(running: Balancer) -> list:
    return [PROGRAM, "--socket", running.socket]
