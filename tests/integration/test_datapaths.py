"""One table of cases over each datapath: real clients, real servers, the installed program."""

from __future__ import annotations

import json
import os
import socket

import pytest

from tests.integration.gateway import VIP4, VIP6, ask, balancing, get, serving, shares
from tests.support.lab import Lab

pytestmark = pytest.mark.root
UDP_SEGMENT = 103
DATAPATHS = ("mark", "rewrite", "reference")
CONFIG = """
l4:
  datapath: {datapath}
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: round-robin
      backends: [10.2.0.11:8080, 10.2.0.12:8080, 10.2.0.13:8080]
    - name: web6
      listen: "[2001:db8:f::10]:80/tcp"
      scheduler: round-robin
      backends: ["[2001:db8:2::11]:8080", "[2001:db8:2::12]:8080", "[2001:db8:2::13]:8080"]
    - name: echo
      listen: 203.0.113.10:9007/udp
      scheduler: round-robin
      backends: [10.2.0.11:7, 10.2.0.12:7, 10.2.0.13:7]
    - name: echo6
      listen: "[2001:db8:f::10]:9007/udp"
      scheduler: round-robin
      backends: ["[2001:db8:2::11]:7", "[2001:db8:2::12]:7", "[2001:db8:2::13]:7"]
    - name: range
      listen: 203.0.113.20:8000-8100/tcp
      scheduler: round-robin
      backends: [10.2.0.11, 10.2.0.12, 10.2.0.13]
    - name: any
      listen: 203.0.113.30:any/udp
      scheduler: round-robin
      backends: [10.2.0.11, 10.2.0.12, 10.2.0.13]
    - name: bulk
      listen: 203.0.113.50:8001/tcp
      scheduler: source-hash
      backends: [10.2.0.11, 10.2.0.12, 10.2.0.13]
    - name: shared
      listen: 203.0.113.40:80/tcp
      scheduler: round-robin
      backends: [10.2.0.11:9090, 10.2.0.12:9090]
    - name: shared-too
      listen: [203.0.113.41:80/tcp, 203.0.113.40:81/tcp]
      scheduler: round-robin
      backends: [10.2.0.11:9090, 10.2.0.12:9090]
"""
EVENLY = {"b1": 3, "b2": 3, "b3": 3}


@pytest.fixture(scope="module", params=DATAPATHS)
def running(request, lab: Lab):
    config = CONFIG.format(datapath=request.param)
    with serving(lab, http=(8080, 9090, 8042), udp=(7, 5300)), balancing(lab, config) as balancer:
        assert balancer.status()["datapath"] == request.param
        yield balancer


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_tcp_goes_round_the_backends(lab, running, vip):
    assert shares([get(lab, vip) for _ in range(9)]) == EVENLY


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_udp_goes_round_the_backends(lab, running, vip):
    assert shares([ask(lab, vip, 9007) for _ in range(9)]) == EVENLY


def test_udp_without_a_checksum_keeps_none(lab, running):
    assert shares([ask(lab, VIP4, 9007, no_checksum=True) for _ in range(9)]) == EVENLY


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_datagrams_that_are_segmented_late_arrive_one_by_one(lab, running, vip):
    """A UDP super-packet (UDP_SEGMENT) is one packet up to the backend's device, then five with checksums."""
    family = socket.AF_INET6 if ":" in vip else socket.AF_INET
    with lab.client.enter(), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        sock.connect((vip, 9007))
        parts = [bytes([65 + n]) * 1000 for n in range(5)]
        sock.send(b"".join(parts))
        echoed = sorted(sock.recv(65536).partition(b":")[2] for _ in parts)
    assert echoed == parts


def test_a_range_of_ports_keeps_the_port(lab, running):
    assert shares([get(lab, "203.0.113.20", 8042) for _ in range(9)]) == EVENLY


def test_any_port_keeps_the_port(lab, running):
    assert shares([ask(lab, "203.0.113.30", 5300) for _ in range(9)]) == EVENLY


@pytest.mark.parametrize(("vip", "port"), [("203.0.113.40", 80), ("203.0.113.41", 80), ("203.0.113.40", 81)])
def test_backends_of_several_services_answer_as_the_one_that_was_asked(lab, running, vip, port):
    assert shares([get(lab, vip, port) for _ in range(4)]) == {"b1": 2, "b2": 2}


def test_a_backend_can_be_reached_directly_past_the_balancer(lab, running):
    assert get(lab, "10.2.0.12", 8080) == "b2"
    assert ask(lab, "10.2.0.13", 7) == "b3"


def test_a_datagram_of_a_large_mtu_passes_whole(lab, running):
    assert ask(lab, VIP4, 9007, payload=os.urandom(1400)) in EVENLY


def test_the_server_sees_the_clients_own_address(lab, running):
    with lab.client.enter(), socket.create_connection((VIP4, 80), timeout=5) as sock:
        rows = [json.loads(line) for line in running.command("flows", "ls", "--json").splitlines()]
        mine = [row for row in rows if row["client"] == f"10.1.0.2:{sock.getsockname()[1]}"]
        assert len(mine) == 1
        name = {"10.2.0.11:8080": "b1", "10.2.0.12:8080": "b2", "10.2.0.13:8080": "b3"}[mine[0]["backend"]]
        seen = lab.host(name).run(["ss", "-Htn", "state", "established", "sport", "=", ":8080"]).stdout
        assert f"10.1.0.2:{sock.getsockname()[1]}" in seen


@pytest.mark.parametrize("direction", [(), ("-R",)], ids=["up", "down"])
def test_bulk_transfers_run_at_the_speed_of_super_packets(lab, running, direction):
    if running.status()["datapath"] == "reference":
        pytest.skip("the reference is thousands of packets a second: not for bulk")
    servers = [host.popen(["iperf3", "-s", "-p", "8001"]) for host in lab.backends]
    try:
        for host in lab.backends:
            host.wait_listening(8001)
        # A control connection and a data connection: source-hash sends both to one server.
        command = ["iperf3", "-c", "203.0.113.50", "-p", "8001", "-t", "1", "-J", *direction]
        answer = json.loads(lab.client.run(command, check=False, timeout=30).stdout)
        assert "error" not in answer, answer.get("error")
        assert answer["end"]["sum_received"]["bytes"] > 20_000_000
    finally:
        for server in servers:
            server.stop()


def test_nothing_was_dropped_without_a_decision(running):
    status = running.status()
    assert status["undecided"] == 0
    for queue in status["queues"]:
        assert queue.get("verdict_errors", 0) == 0
        assert (queue["dropped_full"], queue["dropped_socket"]) == (0, 0)
    if status["datapath"] != "mark":
        assert status["reasons"]["reply"] > 0
