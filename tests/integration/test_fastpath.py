"""Learned flows of direct return skip the gateway's IP stack, and nothing that has to be seen is missed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether

from tests.integration.fast_packets import (
    LEARNED,
    REQUESTS,
    change_link_address,
    echo,
    flow,
    forwarded,
    is_answered,
    learned,
    passed,
    requests_past_the_stack,
    row,
    wait_until_fast,
)
from tests.integration.gateway import VIP4, VIP6, balancing, request, serving, to_user_space
from tests.support import servers
from tests.support.lab import Host, Lab, unique_prefix, wait_for
from tests.support.scenarios import balancer
from tests.support.scenarios.balancer import Balancer

pytestmark = pytest.mark.root
CONFIG = """
l4:
  datapath: offload
  services:
    - name: web
      forward: dsr
      listen: [203.0.113.10:80/tcp]
      backends: [10.2.0.11, 10.2.0.12]
    - name: web6
      forward: dsr
      listen: ["[2001:db8:f::10]:80/tcp"]
      backends: ["[2001:db8:2::11]"]
    - name: echo
      forward: dsr
      listen: [203.0.113.10:7/udp]
      backends: [10.2.0.11]
    - name: echo6
      forward: dsr
      listen: ["[2001:db8:f::10]:7/udp"]
      backends: ["[2001:db8:2::11]"]
    - name: bulk
      forward: dsr
      listen: [203.0.113.10:5201/tcp]
      backends: [10.2.0.13]
"""
IP_MTU_DISCOVER = 10
BY_FAMILY = [(VIP4, "echo", "10.2.0.11"), (VIP6, "echo6", "2001:db8:2::11")]


@pytest.fixture(scope="module")
def lab(no_lab_because) -> Iterator[Lab]:
    if no_lab_because is not None:
        pytest.skip(no_lab_because)
    with Lab(unique_prefix("test"), shape="past-gateway") as made, serving(made, http=(80,), udp=(7,)):
        for host in made.backends:
            servers.real_server(host, "--vip", VIP4, "--vip", VIP6, "--forward", "dsr", "--apply")
        yield made


def rules(host: Host) -> str:
    return host.run(["nft", "list", "table", "netdev", "l4lb"]).stdout


@pytest.fixture(scope="module")
def running(lab: Lab) -> Iterator[Balancer]:
    with balancing(lab, CONFIG) as running:
        yield running


@pytest.mark.parametrize(("vip", "service"), [(VIP4, "web"), (VIP6, "web6")])
def test_requests_on_a_kept_connection_pass_neither_user_space_nor_the_ip_stack(lab, running, vip, service):
    grown = requests_past_the_stack(lab, running, vip, service)
    assert grown["packets_offloaded"] >= REQUESTS
    assert grown["bytes_in"] > REQUESTS * 40


@pytest.mark.parametrize(("vip", "service", "backend"), BY_FAMILY)
def test_every_datagram_is_counted_once(lab, running, vip, service, backend):
    before, seen, stack = row(running, service, backend), to_user_space(running), forwarded(lab.gateway, vip)
    with flow(lab, vip) as sock:
        assert echo(sock, 50) == {"b1"}
    after = row(running, service, backend)
    assert after["packets_in"] - before["packets_in"] == 50
    header = 48 if ":" in vip else 28
    assert after["bytes_in"] - before["bytes_in"] == 50 * (header + len(b"ping"))
    assert after["packets_offloaded"] - before["packets_offloaded"] == 50 - LEARNED
    assert to_user_space(running) - seen == forwarded(lab.gateway, vip) - stack == LEARNED


def test_a_flow_that_ends_is_forgotten_and_its_port_begins_another(lab, running):
    def known() -> int:
        return [key[1] for key in learned(lab.gateway, "direct_flows4")].count(45000)

    met = set()
    for _ in range(2):
        with lab.client.enter():
            connection = http.client.HTTPConnection(VIP4, 80, timeout=5, source_address=("", 45000))
            met |= {request(connection) for _ in range(2 * LEARNED)}
        assert known() == 1
        # A reset, so that the port is free at once.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
        wait_for(lambda: known() == 0, 5, "the flow to be forgotten")
    assert met <= {"b1", "b2"}


def test_a_large_upload_arrives(lab, running):
    """Super-packets go as they are; the device cuts them up where it has to."""
    server = lab.backends[2].popen(["iperf3", "-s", "-1", "-p", "5201"])
    lab.backends[2].wait_listening(5201)
    before = row(running, "bulk", "10.2.0.13")
    words = ["iperf3", "-J", "-t", "1", "-p", "5201", "-c", VIP4]
    try:
        answer = json.loads(lab.client.run(words, timeout=20).stdout)
    finally:
        server.stop()
    sent = answer["end"]["sum_sent"]["bytes"]
    assert sent > 10_000_000
    assert answer["end"]["sum_received"]["bytes"] > 0.9 * sent
    after = row(running, "bulk", "10.2.0.13")
    assert after["bytes_in"] - before["bytes_in"] > 0.9 * sent
    # Counted in super-packets: only where segmentation was left to the devices are there so few.
    assert after["packets_offloaded"] - before["packets_offloaded"] < sent / 1448 / 2


def test_fragments_and_packets_whose_ttl_runs_out_take_the_ordinary_way(lab, running):
    with flow(lab, VIP4) as sock:
        echo(sock, 2 * LEARNED)
        before = passed(lab.gateway)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 0)  # fragments, please
        sock.send(b"x" * 4000)
        assert len(sock.recv(65536)) == len("b1:") + 4000
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        sock.settimeout(0.5)
        with pytest.raises((TimeoutError, OSError)):
            sock.send(b"too far")
            sock.recv(64)
        assert passed(lab.gateway) == before


def test_frames_with_a_tag_or_for_another_host_are_not_forwarded(lab, running):
    """What a neighbour could send to get at the backends' network past the IP stack."""
    with flow(lab, VIP4) as sock:
        echo(sock, 2 * LEARNED)
        port = sock.getsockname()[1]
        own = lab.gateway.run(["cat", "/sys/class/net/wan0/address"]).stdout.strip()
        before = passed(lab.gateway)
        for address, tag in ((own, None), ("02:00:00:00:99:99", None), (own, 10)):
            layers = Ether(dst=address, src="02:00:00:00:00:01")
            layers = layers / Dot1Q(vlan=tag) if tag else layers
            frame = layers / IP(src="10.1.0.2", dst=VIP4) / UDP(sport=port, dport=7) / b"ping"
            with lab.client.enter(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("eth0", 0))
                raw.send(bytes(frame))
            if (address, tag) == (own, None):
                assert sock.recv(64) == b"b1:ping"
                assert passed(lab.gateway) == before + 1
        assert echo(sock) == {"b1"}
        assert passed(lab.gateway) == before + 2


def test_a_removed_backend_gets_nothing_more(lab, running):
    path = lab.gateway.directory / "l4lb.yaml"
    with flow(lab, VIP4) as sock:
        assert echo(sock, 3 * LEARNED) == {"b1"}
        name, old = "      listen: [203.0.113.10:7/udp]\n", "      backends: [10.2.0.11]\n"
        path.write_text(CONFIG.replace(name + old, name + old.replace("11", "12")))
        running.command("reload")
        try:
            assert echo(sock, 3 * LEARNED) == {"b2"}
            stack = forwarded(lab.gateway, VIP4)
            assert echo(sock, LEARNED) == {"b2"}
            assert forwarded(lab.gateway, VIP4) == stack
        finally:
            path.write_text(CONFIG)
            running.command("reload")


def test_flushed_flows_come_to_user_space_again(lab, running):
    with flow(lab, VIP4) as sock:
        echo(sock, 2 * LEARNED)
        seen = to_user_space(running)
        running.command("flows", "flush", "--service", "echo")
        assert echo(sock, 2 * LEARNED) == {"b1"}
        assert to_user_space(running) == seen + LEARNED


@pytest.mark.parametrize(("vip", "service", "backend"), BY_FAMILY)
def test_a_backend_with_another_link_layer_address_is_followed(lab, running, vip, service, backend):
    with flow(lab, vip) as sock:
        assert echo(sock, 2 * LEARNED) == {"b1"}
        before = row(running, service, backend)["packets_offloaded"]
        change_link_address(lab.backends[0])
        wait_for(lambda: is_answered(sock), 10, "an answer from the new address")
        wait_until_fast(lab.gateway, vip, sock)
        assert row(running, service, backend)["packets_offloaded"] > before


def test_flows_to_a_neighbour_that_is_lost_are_forgotten(lab, running):
    """The ordinary way then finds the neighbour again, or says that it cannot."""
    with flow(lab, VIP4) as sock:
        wait_until_fast(lab.gateway, VIP4, sock)
        port = sock.getsockname()[1]

        def known() -> bool:
            return port in [key[1] for key in learned(lab.gateway, "direct_flows4")]

        assert known()
        lab.gateway.run(["ip", "neigh", "del", "10.2.0.11", "dev", "lan0"])
        wait_for(lambda: not known(), 10, "the flow to be forgotten")
        wait_until_fast(lab.gateway, VIP4, sock)
        assert known()


def test_by_a_device_with_a_larger_mtu_only_small_packets_come(lab, running):
    ends = [(lab.client, "eth0"), (lab.gateway, "wan0")]
    with flow(lab, VIP4) as sock:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 0)  # the gateway may cut them up
        for host, device in ends:
            host.run(["ip", "link", "set", device, "mtu", "9000"])
        try:
            wait_for(lambda: "meta length <= 1500" in rules(lab.gateway), 5, "the change to be seen")
            wait_until_fast(lab.gateway, VIP4, sock)
            before = passed(lab.gateway)
            for _ in range(LEARNED):
                sock.send(b"x" * 4000)
                assert len(sock.recv(65536)) == len("b1:") + 4000
            assert passed(lab.gateway) == before
        finally:
            for host, device in ends:
                host.run(["ip", "link", "set", device, "mtu", "1500"])
        wait_for(lambda: "meta length <= 1500" not in rules(lab.gateway), 5, "the change to be seen")


def test_the_rules_can_be_listed(lab, running):
    listed = lab.gateway.run(["nft", "list", "ruleset"])
    assert "table netdev l4lb" in listed.stdout
    assert "rror" not in listed.stderr


def test_a_replaced_program_goes_on_with_the_same_flows(lab, running):
    with flow(lab, VIP4) as sock:
        echo(sock, 2 * LEARNED)
        before = row(running, "echo", "10.2.0.11")["packets_offloaded"]
        said = running.process.output().count("msg=replaced")
        os.kill(running.process.pid, signal.SIGUSR2)
        wait_for(lambda: running.process.output().count("msg=replaced") > said, 20, "the replacement")
        wait_for(lambda: running.socket.exists(), 10, "the admin socket")
        seen, stack = to_user_space(running), forwarded(lab.gateway, VIP4)
        assert echo(sock, LEARNED) == {"b1"}
        # The kernel has learned the way anew, from the first of them.
        assert forwarded(lab.gateway, VIP4) == stack + 1
        assert to_user_space(running) == seen
        assert row(running, "echo", "10.2.0.11")["packets_offloaded"] == before + LEARNED


def test_nothing_is_left_at_the_end_nor_by_a_kill_and_down(lab, running):
    tables = lab.gateway.run(["nft", "list", "tables"]).stdout.split("\n")
    assert {"table inet l4lb", "table netdev l4lb"} <= set(tables)
    running.stop()
    assert lab.gateway.run(["nft", "list", "tables"]).stdout == ""
    path = lab.gateway.directory / "l4lb.yaml"
    killed = balancer.start(lab.gateway, path)
    os.kill(killed.status()["pid"], signal.SIGKILL)
    killed.process.wait(10)
    assert "would delete table netdev l4lb" in killed.command("down", "--dry-run")
    assert "deleted table netdev l4lb" in killed.command("down")
    assert lab.gateway.run(["nft", "list", "tables"]).stdout == ""
