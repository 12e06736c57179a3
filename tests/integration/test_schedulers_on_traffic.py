"""Every scheduler's distribution, as clients of real servers see it."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.gateway import VIP4, balancing, get, serving, shares
from tests.support.lab import Lab, wait_for
from tests.support.scenarios.balancer import Balancer

pytestmark = pytest.mark.root
CONFIG = """
l4:
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: {scheduler}
      backends:
        - {{address: "10.2.0.11:8080", weight: {weights[0]}}}
        - {{address: "10.2.0.12:8080", weight: {weights[1]}}}
        - {{address: "10.2.0.13:8080", weight: {weights[2]}}}
"""


@pytest.fixture(scope="module")
def servers(lab: Lab):
    with serving(lab, udp=()):
        yield lab


@contextmanager
def scheduling(lab: Lab, scheduler: str, weights: tuple[int, int, int] = (1, 1, 1)) -> Iterator[Balancer]:
    with balancing(lab, CONFIG.format(scheduler=scheduler, weights=weights)) as running:
        yield running


def hold(lab: Lab) -> tuple[str, http.client.HTTPConnection]:
    """A connection that stays open, and the backend it is to."""
    with lab.client.enter():
        connection = http.client.HTTPConnection(VIP4, timeout=5)
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        return answer.headers["X-Backend"], connection


def wait_active(running: Balancer, expected: list[int]) -> None:
    wait_for(
        lambda: [row["active"] for row in running.backends()] == expected,
        10,
        f"{expected} active connections",
    )


def test_round_robin(servers):
    with scheduling(servers, "round-robin", (5, 1, 1)):
        assert shares([get(servers) for _ in range(30)]) == {"b1": 10, "b2": 10, "b3": 10}


def test_weighted_round_robin_is_exact_and_smooth(servers):
    with scheduling(servers, "weighted-round-robin", (5, 1, 1)):
        answers = [get(servers) for _ in range(14)]
        assert shares(answers) == {"b1": 10, "b2": 2, "b3": 2}
        assert answers[:7] == ["b1", "b1", "b2", "b1", "b3", "b1", "b1"]


def test_least_connections_fills_up_the_one_that_was_left(servers):
    with scheduling(servers, "least-connections") as running:
        held = []
        for count in range(1, 13):
            held.append(hold(servers))
            wait_for(lambda n=count: sum(r["active"] for r in running.backends()) == n, 10, "the connection")
        assert shares([name for name, _ in held]) == {"b1": 4, "b2": 4, "b3": 4}
        for name, connection in held:
            if name == "b2":
                connection.close()
        wait_active(running, [4, 0, 4])
        again = []
        for count in range(4):
            again.append(hold(servers))
            wait_active(running, [4, count + 1, 4])
        assert shares([name for name, _ in again]) == {"b2": 4}
        for _, connection in (*held, *again):
            connection.close()


def test_weighted_least_connections_holds_connections_in_proportion(servers):
    with scheduling(servers, "weighted-least-connections", (3, 2, 1)) as running:
        held = []
        for count in range(1, 13):
            held.append(hold(servers))
            wait_for(lambda n=count: sum(r["active"] for r in running.backends()) == n, 10, "the connection")
        assert shares([name for name, _ in held]) == {"b1": 6, "b2": 4, "b3": 2}
        for _, connection in held:
            connection.close()


def test_source_hash_keeps_a_client_with_its_backend(servers):
    addresses = [f"10.1.0.{n}" for n in range(101, 125)]
    for address in addresses:
        servers.client.run(["ip", "addr", "add", f"{address}/24", "dev", "eth0"])
    try:
        with scheduling(servers, "source-hash"):
            chosen = {address: {get(servers, local=address) for _ in range(3)} for address in addresses}
        assert all(len(backends) == 1 for backends in chosen.values())
        assert set.union(*chosen.values()) == {"b1", "b2", "b3"}
    finally:
        for address in addresses:
            servers.client.run(["ip", "addr", "del", f"{address}/24", "dev", "eth0"])


def test_maglev_spreads_connections_by_weight(servers):
    with scheduling(servers, "maglev", (3, 2, 1)):
        seen = shares([get(servers) for _ in range(300)])
    # Binomial: the bounds are five standard deviations wide.
    assert abs(seen["b1"] - 150) < 44
    assert abs(seen["b2"] - 100) < 41
    assert abs(seen["b3"] - 50) < 33


def test_power_of_two_is_nearly_even_and_spares_the_loaded(servers):
    with scheduling(servers, "power-of-two") as running:
        held = []
        for count in range(1, 31):
            held.append(hold(servers))
            wait_for(lambda n=count: sum(r["active"] for r in running.backends()) == n, 10, "the connection")
        seen = shares([name for name, _ in held])
        for _, connection in held:
            connection.close()
    # With two choices the fullest of n bins is above the mean by ln ln n / ln 2 and a constant.
    assert max(seen.values()) - min(seen.values()) <= 6, seen
