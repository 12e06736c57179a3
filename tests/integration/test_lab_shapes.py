"""The labs' other shapes carry packets where they should, and only there."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import servers
from tests.support.lab import ROOT, Host, Lab, existing_labs, unique_prefix, wait_for
from tests.support.lab.lab import STATE
from tests.support.lab.namespace import DIRECTORY
from tests.support.scenarios import traffic

pytestmark = pytest.mark.root

VIP4, VIP6 = "203.0.113.99", "2001:db8:f::99"
# linux/in.h and linux/in6.h
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24
DISCOVER = {
    4: (socket.AF_INET, socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU, 28),
    6: (socket.AF_INET6, socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU, 48),
}


@contextlib.contextmanager
def shaped(shape: str, small_mtu: str = "none", backends: int = 1) -> Iterator[Lab]:
    """A lab of that shape, with an echo server on every backend and its peer."""
    with Lab(unique_prefix("shape"), backends, shape=shape, small_mtu=small_mtu) as lab:
        started = [servers.start_echo(host) for host in lab.backends]
        for server in started:
            server.wait_ready()
        yield lab


def echoes(client: Host, address: str) -> bool:
    """Whether a datagram to the address is answered from it within a moment."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with client.enter(), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.3)
        try:
            sock.connect((address, servers.ECHO_PORT))
            sock.send(b"?")
            return sock.recv(100).endswith(b":?")
        except OSError:
            return False


def reachable(client: Host, address: str) -> None:
    """Waits until it is: the first datagrams may wait for neighbours to be found."""
    wait_for(lambda: echoes(client, address), 5, f"{address} to answer {client.name}")


def give_vips_to(host: Host, lab: Lab) -> None:
    """The host gets the VIPs, and the gateway routes them there."""
    for vip, length, via in ((VIP4, 32, host.v4), (VIP6, 128, host.v6)):
        host.run(["ip", "addr", "add", f"{vip}/{length}", "dev", "lo"])
        lab.gateway.run(["ip", "route", "add", f"{vip}/{length}", "via", via])


def path_mtu(source: Host, target: str) -> int:
    """What a host has learnt about the path, after sending what it thought would fit."""
    family, level, discover, mtu, headers = DISCOVER[6 if ":" in target else 4]
    with source.enter(), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(level, discover, IP_PMTUDISC_DO)
        sock.connect((target, servers.ECHO_PORT))

        def sends_less() -> bool:
            size: int = sock.getsockopt(level, mtu)
            with contextlib.suppress(ConnectionError):
                try:
                    sock.send(bytes(size - headers))
                except OSError as error:
                    if error.errno != errno.EMSGSIZE:
                        raise
            return size < 1500

        with contextlib.suppress(Exception):
            wait_for(sends_less, 3, "the path's MTU")
        return sock.getsockopt(level, mtu)


def test_past_the_gateway_answers_do_not_need_it() -> None:
    with shaped("past-gateway") as lab:
        give_vips_to(lab.host("b1"), lab)
        block = "table inet block { chain f { type filter hook forward priority 0; iif lan0 drop; }; }"
        lab.gateway.run(["nft", block])
        for vip in (VIP4, VIP6):
            reachable(lab.client, vip)
        lab.gateway.run(
            ["nft", "table inet block { chain g { type filter hook forward priority 0; drop; }; }"]
        )
        for vip in (VIP4, VIP6):
            assert not echoes(lab.client, vip), "requests go by the gateway"


def test_an_answer_comes_from_the_address_that_was_asked_over_tcp_too() -> None:
    with shaped("past-gateway") as lab:
        give_vips_to(lab.host("b1"), lab)
        servers.start_http(lab.host("b1")).wait_ready()
        for vip in (VIP4, VIP6):
            tally = traffic.send_requests(lab.client, vip, servers.HTTP_PORT, 3)
            assert (tally.answered, tally.errors) == ({"b1": 3}, [])


def test_on_one_arm_the_gateway_tells_the_client_of_the_shorter_way() -> None:
    with shaped("one-armed") as lab:
        backend = lab.host("b1")
        give_vips_to(backend, lab)
        reachable(lab.client, VIP4)
        reachable(lab.client, VIP6)

        def redirected() -> bool:
            echoes(lab.client, VIP4)
            return f"via {backend.v4}" in lab.client.run(["ip", "route", "get", VIP4]).stdout

        wait_for(redirected, 5, "the client to follow a redirect")


def test_on_one_arm_redirects_leak_over_ipv6_too() -> None:
    # The client routes by the gateway's global address and does not follow them (RFC 4861, section 8.1).
    with shaped("one-armed") as lab:
        backend = lab.host("b1")
        lab.client.run(["ip", "route", "add", f"{backend.v6}/128", "via", "2001:db8:2::1"])
        heard = "table inet heard { counter redirects { }; chain i { type filter hook input priority 0;"
        lab.client.run(["nft", f"{heard} icmpv6 type nd-redirect counter name redirects; }}; }}"])

        def told() -> bool:
            echoes(lab.client, backend.v6)
            return "packets 0 " not in lab.client.run(["nft", "list", "counters"]).stdout

        wait_for(told, 5, "a redirect")


def test_backends_with_their_own_router_answer_their_segment_alone() -> None:
    with shaped("own-router") as lab:
        for address in (lab.host("b1").v4, lab.host("b1").v6):
            reachable(lab.gateway, address)
            reachable(lab.host("peer"), address)
            assert not echoes(lab.client, address)
        lab.gateway.run(["ip", "addr", "add", f"{VIP4}/32", "dev", "lo"])
        servers.start_echo(lab.gateway).wait_ready()
        reachable(lab.host("peer"), VIP4)
        reachable(lab.client, VIP4)


@pytest.mark.parametrize("shape", ["through-gateway", "past-gateway"])
def test_small_links_are_found_out_in_both_directions(shape: str) -> None:
    with shaped(shape, "both") as lab:
        for vip in (f"{VIP4}/32", f"{VIP6}/128"):
            lab.gateway.run(["ip", "addr", "add", vip, "dev", "lo"])
        for host in (lab.gateway, lab.client):
            servers.start_echo(host).wait_ready()
        backend = lab.host("b1")
        paths = [(lab.client, VIP4), (lab.client, VIP6)]
        paths += [(lab.gateway, address) for h in (lab.client, backend) for address in (h.v4, h.v6)]
        paths += [(backend, "10.3.0.1"), (backend, "2001:db8:3::1")]
        for source, target in paths:
            reachable(source, target)
            assert path_mtu(source, target) == 1400, (source, target)


def test_routers_send_icmp_to_any_outside_of_a_tunnel() -> None:
    with shaped("past-gateway", "backends") as lab:
        for router in ("hop3", "hop4"):
            for source in ("198.18.7.7", "100::7"):
                shown = lab.host(router).run(["ip", "route", "get", source]).stdout
                assert "via 10.3.0.1" in shown or "via 10.4.0.1" in shown or "via 2001:db8:" in shown


def test_a_shape_is_found_again_and_all_of_it_removed_after_a_kill() -> None:
    prefix = unique_prefix("shape")
    program = (
        "import signal, sys\n"
        "from tests.support.lab import Lab\n"
        "Lab(sys.argv[1], 1, shape='past-gateway', small_mtu='both').up()\n"
        "print('up', flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, prefix],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        run.send_signal(signal.SIGKILL)
    assert {"hop1", "hop2", "hop3", "hop4"} < set(existing_labs()[prefix])
    left = Lab.attach(prefix)
    assert (left.shape, left.small_mtu) == ("past-gateway", "both")
    assert left.client.interfaces == ("eth0", "eth1")
    Lab(prefix).down()
    assert not (STATE / prefix).exists()
    assert [path.name for path in DIRECTORY.iterdir() if path.name.startswith(f"{prefix}-")] == []
