"""Limits of backends on real connections, in every datapath: who is full, what spills over, what ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.gateway import VIP4, balancing, explained, get, serving
from tests.integration.holding import ask_again, close_all, hold, opened
from tests.support.lab import Lab, wait_for
from tests.support.scenarios.balancer import Balancer

pytestmark = pytest.mark.root
LIMITS = {"10.2.0.11:8080": 2, "10.2.0.12:8080": 2, "10.2.0.13:8080": 1}
NAMES = {"10.2.0.11:8080": "b1", "10.2.0.12:8080": "b2", "10.2.0.13:8080": "b3"}
CONFIG = """
l4:
  datapath: {datapath}
  workers: 2
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: {scheduler}
      {more}
      max_connections: 2
      backends:
        - 10.2.0.11:8080
        - 10.2.0.12:8080
        - {{address: "10.2.0.13:8080", max_connections: 1}}
"""


@pytest.fixture(scope="module")
def servers(lab: Lab) -> Iterator[Lab]:
    with serving(lab, udp=()):
        yield lab


@contextmanager
def limiting(lab: Lab, datapath: str, scheduler: str, more: str = "") -> Iterator[Balancer]:
    with balancing(lab, CONFIG.format(datapath=datapath, scheduler=scheduler, more=more)) as running:
        yield running


def turned_away(running: Balancer) -> int:
    return running.status()["reasons"]["backends_full"]


@pytest.mark.parametrize("datapath", ["rewrite", "mark", "offload"])
@pytest.mark.parametrize("scheduler", ["round-robin", "maglev"])
def test_a_full_backend_gets_no_more_until_a_connection_ends(servers, datapath, scheduler):
    with limiting(servers, datapath, scheduler) as running:
        held = [hold(servers) for _ in range(5)]
        assert Counter(name for name, _ in held) == {"b1": 2, "b2": 2, "b3": 1}
        assert opened(running, "web") == LIMITS
        assert all(row["full"] and row["max_connections"] == row["open"] for row in running.backends())
        assert explained(running, "10.1.0.50:40000", f"{VIP4}:80/tcp")["reason"] == "backends_full"
        assert turned_away(running) == 0
        with pytest.raises(TimeoutError):
            get(servers, timeout=0.5)
        assert turned_away(running) >= 1
        for name, connection in held:
            assert ask_again(connection) == name
        name, connection = held.pop(2)
        connection.close()
        freed = _backend(name)
        wait_for(
            lambda: opened(running, "web")[freed] == LIMITS[freed] - 1, 5, "the connection to be seen closing"
        )
        held.append(hold(servers))
        assert held[-1][0] == name
        assert opened(running, "web") == LIMITS
        metrics = running.command("metrics")
        assert 'l4lb_backend_open_flows{service="web",backend="10.2.0.13:8080"} 1\n' in metrics
        assert 'l4lb_backend_max_connections{service="web",backend="10.2.0.13:8080"} 1\n' in metrics
        close_all(held)
        wait_for(lambda: set(opened(running, "web").values()) == {0}, 5, "all to be seen closing")


def test_affinity_gives_way_and_comes_back(servers):
    with limiting(servers, "auto", "round-robin", "affinity: client-ip") as running:
        held = [hold(servers) for _ in range(3)]
        home = held[0][0]
        assert [name for name, _ in held].count(home) == LIMITS[_backend(home)]
        for name, connection in held:
            if name == home:
                connection.close()
        wait_for(lambda: opened(running, "web")[_backend(home)] == 0, 5, "the connections to be seen closing")
        assert get(servers) == home
        close_all(held)


def _backend(name: str) -> str:
    return next(backend for backend, known in NAMES.items() if known == name)
