"""Learned flows of NAT skip the gateway's IP stack in both directions."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator

import pytest

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
from tests.integration.gateway import (
    SO_NO_CHECK,
    VIP4,
    VIP6,
    balancing,
    request,
    serving,
    to_user_space,
)
from tests.support.lab import Lab, unique_prefix, wait_for
from tests.support.scenarios.balancer import Balancer

pytestmark = pytest.mark.root
CONFIG = """
l4:
  datapath: offload
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      backends: [10.2.0.11:8080]
    - name: web6
      listen: "[2001:db8:f::10]:80/tcp"
      backends: ["[2001:db8:2::11]:8080"]
    - name: echo
      listen: 203.0.113.10:7/udp
      backends: [10.2.0.11:1007]
    - name: echo6
      listen: "[2001:db8:f::10]:7/udp"
      backends: ["[2001:db8:2::11]:1007"]
    - {name: shared, listen: 203.0.113.11:7/udp, backends: [10.2.0.12:1007]}
    - {name: two, listen: [203.0.113.12:7/udp, 203.0.113.12:9/udp], backends: [10.2.0.12:1007]}
    - {name: kept, listen: 203.0.113.13:1007/udp, backends: [10.2.0.13]}
    - {name: bulk, listen: 203.0.113.10:5201/tcp, backends: [10.2.0.13:5202]}
"""
BY_FAMILY = [(VIP4, "echo", "10.2.0.11:1007"), (VIP6, "echo6", "[2001:db8:2::11]:1007")]


@pytest.fixture(scope="module", params=["offloads", "plain"])
def lab(request, no_lab_because) -> Iterator[Lab]:
    """With the devices' checksums and segmentation, and with every checksum in the packet."""
    if no_lab_because is not None:
        pytest.skip(no_lab_because)
    offloads = request.param == "offloads"
    with Lab(unique_prefix("test"), offloads=offloads) as made, serving(made, udp=(1007,)):
        yield made


@pytest.fixture(scope="module")
def running(lab: Lab) -> Iterator[Balancer]:
    with balancing(lab, CONFIG) as running:
        yield running


@pytest.mark.parametrize(("vip", "service"), [(VIP4, "web"), (VIP6, "web6")])
def test_requests_and_answers_pass_neither_user_space_nor_the_ip_stack(lab, running, vip, service):
    grown = requests_past_the_stack(lab, running, vip, service)
    assert grown["packets_offloaded"] >= REQUESTS
    assert grown["packets_out"] >= REQUESTS
    assert grown["bytes_in"] > REQUESTS * 40
    assert grown["bytes_out"] > REQUESTS * 40


@pytest.mark.parametrize(("vip", "service", "backend"), BY_FAMILY)
def test_every_datagram_is_counted_once(lab, running, vip, service, backend):
    before, seen, stack = row(running, service, backend), to_user_space(running), forwarded(lab.gateway, vip)
    with flow(lab, vip) as sock:
        assert echo(sock, 50) == {"b1"}
    after = row(running, service, backend)
    header = 48 if ":" in vip else 28
    for way, payload in (("in", b"ping"), ("out", b"b1:ping")):
        assert after[f"packets_{way}"] - before[f"packets_{way}"] == 50
        assert after[f"bytes_{way}"] - before[f"bytes_{way}"] == 50 * (header + len(payload))
    assert after["packets_offloaded"] - before["packets_offloaded"] == 50 - LEARNED
    assert to_user_space(running) - seen == LEARNED
    # The answer that follows the learned request teaches its own way.
    assert forwarded(lab.gateway, vip) - stack == 2 * LEARNED


def test_a_connection_that_ends_is_forgotten_in_both_directions(lab, running):
    def known(flows: str) -> int:
        return [key[1] for key in learned(lab.gateway, flows)].count(45000)

    with lab.client.enter():
        connection = http.client.HTTPConnection(VIP4, 80, timeout=5, source_address=("", 45000))
        for _ in range(2 * LEARNED):
            request(connection)
        assert (known("request_flows4"), known("answer_flows4")) == (1, 1)
        connection.close()
    wait_for(lambda: not known("request_flows4") and not known("answer_flows4"), 5, "both to be forgotten")


def test_services_that_share_a_backend_answer_from_their_own_address(lab, running):
    """Only their requests are learned: of whose address an answer is, user space says."""
    with flow(lab, "203.0.113.11") as one, flow(lab, "203.0.113.12") as other:
        for sock in (one, other):  # connected: an answer from elsewhere would not arrive
            assert echo(sock, 3 * LEARNED) == {"b2"}
        before = passed(lab.gateway)
        assert echo(one, LEARNED) == echo(other, LEARNED) == {"b2"}
        assert passed(lab.gateway) == before + LEARNED


@pytest.mark.parametrize("port", [7, 9])
def test_a_service_with_two_ports_takes_the_ordinary_way(lab, running, port):
    with flow(lab, "203.0.113.12", port) as sock:
        assert echo(sock, 2 * LEARNED) == {"b2"}
        before = passed(lab.gateway)
        assert echo(sock, LEARNED) == {"b2"}
        assert passed(lab.gateway) == before


def test_a_port_that_stays_the_same_is_learned_too(lab, running):
    with flow(lab, "203.0.113.13", 1007) as sock:
        assert echo(sock, 2 * LEARNED) == {"b3"}
        stack = forwarded(lab.gateway, VIP4)
        assert echo(sock, LEARNED) == {"b3"}
        assert forwarded(lab.gateway, VIP4) == stack


def test_datagrams_without_a_checksum_take_the_ordinary_way_and_have_none_behind_it(lab, running):
    with flow(lab, VIP4) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        before = passed(lab.gateway)
        assert echo(sock, 3 * LEARNED) == {"b1"}
        assert passed(lab.gateway) == before


def test_a_direct_connection_to_a_backend_is_left_alone(lab, running):
    with lab.client.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(("10.2.0.11", 1007))
        before = passed(lab.gateway)
        assert echo(sock, 3 * LEARNED) == {"b1"}
        assert passed(lab.gateway) == before
        assert sock.getsockname()[1] not in [key[1] for key in learned(lab.gateway, "answer_flows4")]


@pytest.mark.parametrize("reverse", [False, True], ids=["upload", "download"])
def test_large_transfers_arrive(lab, running, reverse):
    server = lab.backends[2].popen(["iperf3", "-s", "-1", "-p", "5202"])
    lab.backends[2].wait_listening(5202)
    before = row(running, "bulk", "10.2.0.13:5202")
    words = ["iperf3", "-J", "-t", "1", "-p", "5201", "-c", VIP4, *(["-R"] if reverse else [])]
    try:
        answer = json.loads(lab.client.run(words, timeout=20).stdout)
    finally:
        server.stop()
    sent = answer["end"]["sum_sent"]["bytes"]
    assert sent > 10_000_000
    assert answer["end"]["sum_received"]["bytes"] > 0.9 * sent
    after = row(running, "bulk", "10.2.0.13:5202")
    way = "bytes_out" if reverse else "bytes_in"
    assert after[way] - before[way] > 0.9 * sent


@pytest.mark.parametrize(("vip", "service", "backend"), BY_FAMILY)
def test_a_client_with_another_link_layer_address_gets_its_answers(lab, running, vip, service, backend):
    routes = [lab.client.run(["ip", family, "-j", "route"]).stdout for family in ("-4", "-6")]
    with flow(lab, vip) as sock:
        assert echo(sock, 2 * LEARNED) == {"b1"}
        change_link_address(lab.client)
        wait_for(lambda: is_answered(sock), 10, "an answer at the new address")
        wait_until_fast(lab.gateway, vip, sock)
    assert routes == [lab.client.run(["ip", family, "-j", "route"]).stdout for family in ("-4", "-6")]


def test_a_route_that_changes_is_followed(lab, running):
    """A flow that has been learned does not go on where its packets no longer would."""
    with flow(lab, VIP4) as sock:
        assert echo(sock, 2 * LEARNED) == {"b1"}
        before = passed(lab.gateway)
        lab.gateway.run(["ip", "route", "add", "blackhole", "10.2.0.11/32"])
        try:
            port = sock.getsockname()[1]
            wait_for(
                lambda: port not in [key[1] for key in learned(lab.gateway, "request_flows4")],
                5,
                "the flow to be forgotten",
            )
            sock.settimeout(0.3)
            with pytest.raises((TimeoutError, OSError)):
                echo(sock)
            assert passed(lab.gateway) == before
        finally:
            lab.gateway.run(["ip", "route", "del", "blackhole", "10.2.0.11/32"])
        sock.settimeout(5)
        wait_until_fast(lab.gateway, VIP4, sock)


def test_a_family_that_comes_later_is_learned_too(lab, running):
    path = lab.gateway.directory / "l4lb.yaml"
    services = CONFIG.split("    - ")
    path.write_text("    - ".join(one for one in services if "2001:db8" not in one))
    running.command("reload")
    try:
        with flow(lab, VIP4) as sock:
            wait_until_fast(lab.gateway, VIP4, sock)
    finally:
        path.write_text(CONFIG)
        running.command("reload")
    for vip in (VIP4, VIP6):
        with flow(lab, vip) as sock:
            wait_until_fast(lab.gateway, vip, sock)


def test_marks_do_not_leave_the_host(lab, running):
    """Packets that are to be learned keep theirs until they are; another queue, or a tunnel, would see it."""
    hook = 'chain out { type filter hook egress device "%s" priority 0; policy accept; '
    rules = (
        f"table netdev seen {{\ncounter marked {{ }}\n{hook}\nmeta mark != 0 counter name marked\n}}\n}}\n"
    )
    for device in ("lan0", "wan0"):
        lab.gateway.run(["nft", "-f", "-"], input=rules.replace("%s", device))
        try:
            with flow(lab, VIP4) as sock:
                assert echo(sock, 3 * LEARNED) == {"b1"}
            shown = json.loads(lab.gateway.run(["nft", "-j", "list", "counters", "netdev"]).stdout)[
                "nftables"
            ]
            assert [entry["counter"]["packets"] for entry in shown if "counter" in entry] == [0]
        finally:
            lab.gateway.run(["nft", "delete", "table", "netdev", "seen"])
