"""Who may have what: lists, limits of one source, and floods that fill nothing."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from tests.bench import senders, spoofed
from tests.integration.gateway import VIP4, ask, balancing, get, serving
from tests.support.lab import Lab

pytestmark = pytest.mark.root
# No backend of two services: an answer of a flow that is not remembered could be from either.
CONFIG = """
l4:
  datapath: {datapath}
  flow_table: {{capacity: 4096}}
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: round-robin
      on_failure: hash
      backends: [10.2.0.11:8080, 10.2.0.12:8080, 10.2.0.13:8080]
    - name: echo
      listen: 203.0.113.10:7/udp
      on_failure: hash
      backends: [10.2.0.11:7]
    - name: few
      listen: 203.0.113.20:80/tcp
      limits: {{flows: 3}}
      backends: [10.2.0.11:9090]
    - name: slow
      listen: 203.0.113.21:7/udp
      limits: {{new_flows: 5}}
      backends: [10.2.0.12:7]
    - name: ours
      listen: 203.0.113.22:80/tcp
      allow: [192.0.2.0/24]
      backends: [10.2.0.11:9090]
    - name: theirs
      listen: 203.0.113.23:80/tcp
      deny: [10.1.0.2/32]
      backends: [10.2.0.11:9090]
"""


RATE = 20_000


@pytest.fixture(scope="module", params=["offload", "mark"])
def running(request, lab: Lab):
    with serving(lab, http=(8080, 9090)), balancing(lab, CONFIG.format(datapath=request.param)) as running:
        yield running


def test_clients_that_are_not_on_the_list_are_dropped_and_counted(lab, running):
    before = running.status()["denied"]
    for vip in ("203.0.113.22", "203.0.113.23"):
        with pytest.raises(TimeoutError):
            get(lab, vip, timeout=1)
    assert running.status()["denied"] > before


def test_a_source_has_no_more_flows_than_it_may(lab, running):
    with ExitStack() as stack:
        for _ in range(3):
            with lab.client.enter():
                stack.enter_context(socket.create_connection(("203.0.113.20", 80), timeout=5))
        with pytest.raises(TimeoutError), lab.client.enter():
            socket.create_connection(("203.0.113.20", 80), timeout=1)
    assert running.status()["reasons"]["limited"] >= 1


def test_a_source_begins_no_more_flows_a_second_than_it_may(lab, running):
    before = running.status()["reasons"]["limited"]
    with lab.client.enter(), ExitStack() as stack:
        for _ in range(40):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.sendto(b"ping", ("203.0.113.21", 7))
    # Forty at once fall into one second, or two.
    assert running.status()["reasons"]["limited"] >= before + 40 - 2 * 5


@pytest.mark.parametrize(("protocol", "port"), [("tcp", 80), ("udp", 7)])
def test_a_flood_from_forged_sources_fills_nothing_and_newcomers_are_served(lab, running, protocol, port):
    for host in lab.backends:
        spoofed.swallow_answers(host)
    with lab.client.enter():
        kept = socket.create_connection((VIP4, 80), timeout=5)
    words = ["-p", str(port), "-r", str(RATE), "-d", "60", *(["-u"] if protocol == "udp" else [])]
    flood = lab.client.popen([senders.build("flood"), *words, VIP4], log=f"flood-{protocol}.log")
    try:
        for _ in range(20):
            assert get(lab, timeout=5) in {"b1", "b2", "b3"}
            assert ask(lab) == "b1"
        kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert kept.recv(4096).startswith(b"HTTP/1.1 200")
    finally:
        flood.stop()
        kept.close()
    status = running.status()
    assert status["flows"] <= status["flow_capacity"]
    assert status["reasons"]["hashed"] > 0
