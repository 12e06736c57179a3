"""The kernel learns established flows: what passes user space, what does not, and that neither is
forgotten."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.fast_packets import row
from tests.integration.gateway import VIP4, VIP6, ask, balancing, get, request, serving, to_user_space
from tests.support.lab import Lab, wait_for
from tests.support.scenarios.balancer import Balancer

pytestmark = pytest.mark.root
CONFIG = """
l4:
  datapath: offload
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: least-connections
      backends: [10.2.0.11:8080, 10.2.0.12:8080, 10.2.0.13:8080]
    - name: web6
      listen: "[2001:db8:f::10]:80/tcp"
      backends: ["[2001:db8:2::11]:8080"]
    - name: echo
      listen: 203.0.113.10:7/udp
      backends: [10.2.0.11:7]
"""
REQUESTS = 200


@pytest.fixture(scope="module")
def running(lab: Lab) -> Iterator[Balancer]:
    with serving(lab), balancing(lab, CONFIG) as running:
        yield running


@contextmanager
def kept(lab: Lab, address: str = VIP4, source: int = 0) -> Iterator[http.client.HTTPConnection]:
    """A connection on which requests can be made."""
    with lab.client.enter():
        local = ("::" if ":" in address else "", source)
        connection = http.client.HTTPConnection(address, 80, timeout=5, source_address=local)
        connection.connect()
    try:
        yield connection
    finally:
        connection.close()


def flows(running: Balancer, *words: str) -> list[dict]:
    return [json.loads(line) for line in running.command("flows", "ls", *words, "--json").splitlines()]


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_requests_on_a_kept_connection_stay_in_the_kernel(lab, running, vip):
    with kept(lab, vip) as connection:
        assert len({request(connection) for _ in range(6)}) == 1
        before = to_user_space(running)
        assert len({request(connection) for _ in range(REQUESTS)}) == 1
        assert to_user_space(running) == before
        (flow,) = [f for f in flows(running, "--state", "established") if f["offloaded"]]
        passed = row(running, flow["service"], flow["backend"])
        # Each request is at least a packet in and a packet out, and all of them are counted.
        assert passed["packets_offloaded"] >= REQUESTS
        assert passed["packets_out"] >= REQUESTS
        assert passed["bytes_in"] > REQUESTS * 40


def test_datagrams_of_a_flow_stay_in_the_kernel_from_the_seventh_on(lab, running):
    with lab.client.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect((VIP4, 7))
        before = to_user_space(running)
        for _ in range(50):
            sock.send(b"ping")
            sock.recv(64)
        assert to_user_space(running) == before + 6
    assert row(running, "echo", "10.2.0.11:7")["packets_in"] >= 50


def test_the_end_of_a_connection_is_seen_and_least_connections_stays_right(lab, running):
    with kept(lab) as first, kept(lab) as second, kept(lab) as third:
        # All three are established at once, so each backend has one.
        assert {request(first), request(second), request(third)} == {"b1", "b2", "b3"}
        assert [r["active"] for r in running.backends() if r["service"] == "web"] == [1, 1, 1]
    wait_for(
        lambda: all(r["active"] == 0 for r in running.backends() if r["service"] == "web"),
        5,
        "the connections to be seen closing",
    )


def test_a_port_that_is_used_again_does_not_meet_what_was_learned(lab, running):
    """Else its packets would go to the backend of the connection before."""
    met = set()
    for _ in range(6):
        with kept(lab, source=45_000) as connection:
            # A reset, so that the port is free at once.
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            name = request(connection)
            assert {request(connection) for _ in range(6)} == {name}
            met.add(name)
    assert len(met) > 1


def test_a_removed_backend_gets_nothing_more_of_what_was_learned(lab, running):
    path = lab.gateway.directory / "l4lb.yaml"
    with lab.client.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect((VIP4, 7))

        def answered_by() -> str:
            sock.send(b"ping")
            return sock.recv(64).partition(b":")[0].decode()

        assert {answered_by() for _ in range(10)} == {"b1"}
        path.write_text(CONFIG.replace("10.2.0.11:7]", "10.2.0.12:7]"))
        running.command("reload")
        try:
            assert {answered_by() for _ in range(5)} == {"b2"}
            assert running.status()["reasons"]["rescheduled"] >= 1
        finally:
            path.write_text(CONFIG)
            running.command("reload")


def test_a_flood_of_syns_teaches_the_kernel_nothing(lab, running):
    before = lab.gateway.run(["nft", "-j", "list", "map", "inet", "l4lb", "learned4"]).stdout
    get(lab)
    ask(lab)
    after = lab.gateway.run(["nft", "-j", "list", "map", "inet", "l4lb", "learned4"]).stdout
    # A request that has ended has been forgotten, and one datagram is not yet a flow.
    assert after.count("timeout") <= before.count("timeout")
