"""Failover, overflow and one-packet scheduling, as clients of real servers see them."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.integration.gateway import VIP4, balancing, get, serving
from tests.integration.holding import close_all, hold, opened
from tests.support.lab import Lab, wait_for

pytestmark = pytest.mark.root
CONFIG = """
l4:
  datapath: {datapath}
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: {scheduler}
      backends: [{backends}]
    - name: echo
      listen: 203.0.113.10:7/udp
      scheduler: round-robin
      one_packet: true
      backends: [10.2.0.11:7, 10.2.0.12:7, 10.2.0.13:7]
"""
ALL = ("10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080")


@pytest.fixture(scope="module")
def servers(lab: Lab) -> Iterator[Lab]:
    with serving(lab):
        yield lab


@pytest.mark.parametrize("datapath", ["rewrite", "mark", "offload"])
def test_failover_takes_the_next_and_comes_back(servers, datapath):
    text = CONFIG.format(datapath=datapath, scheduler="failover", backends=", ".join(ALL))
    with balancing(servers, text) as running:
        assert {get(servers) for _ in range(5)} == {"b1"}
        running.command("backends", "drain", "web", ALL[0])
        assert {get(servers) for _ in range(5)} == {"b2"}
        running.command("backends", "enable", "web", ALL[0])
        assert {get(servers) for _ in range(5)} == {"b1"}


def test_overflow_goes_on_to_the_next_when_one_is_full(servers):
    backends = f"{{address: {ALL[0]}, weight: 2}}, {{address: {ALL[1]}, max_connections: 1}}"
    with balancing(
        servers,
        CONFIG.format(
            datapath="auto", scheduler="overflow", backends=f"{backends}, {{address: {ALL[2]}, weight: 9}}"
        ),
    ) as running:
        held = [hold(servers) for _ in range(5)]
        assert [name for name, _ in held] == ["b1", "b1", "b2", "b3", "b3"]
        held.pop(0)[1].close()
        wait_for(lambda: opened(running, "web")[ALL[0]] == 1, 5, "the connection to be seen closing")
        assert get(servers) == "b1"
        close_all(held)


@pytest.mark.parametrize("datapath", ["rewrite", "mark", "offload"])
def test_every_datagram_of_one_packet_goes_elsewhere_and_is_answered_from_the_vip(servers, datapath):
    text = CONFIG.format(datapath=datapath, scheduler="maglev", backends=", ".join(ALL))
    with balancing(servers, text) as running:
        answers = []
        with servers.client.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect((VIP4, 7))  # an answer from any other address is not received
            for _ in range(12):
                sock.send(b"ping")
                answers.append(sock.recv(64).partition(b":")[0].decode())
        assert Counter(answers) == {"b1": 4, "b2": 4, "b3": 4}
        assert running.status()["flows"] == 0
