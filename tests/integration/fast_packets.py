"""What the kernel has learned and forwarded by itself, and flows that make it."""

from __future__ import annotations

import http.client
import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.gateway import request, to_user_space
from tests.support.lab import Host, Lab, wait_for
from tests.support.scenarios.balancer import Balancer

LEARNED = 6
"""Packets of a flow until it is learned."""
REQUESTS = 100


def _elements(host: Host, kind: str, name: str) -> list:
    shown = json.loads(host.run(["nft", "-j", "list", kind, "netdev", "l4lb", name]).stdout)["nftables"]
    (found,) = [entry[kind] for entry in shown if kind in entry]
    return found.get("elem", [])


def learned(host: Host, flows: str) -> list[list]:
    """The keys of a map of flows: the client's address and port, the other's, the protocol."""
    return [key["elem"]["val"]["concat"] for key, _ in _elements(host, "map", flows)]


def passed(host: Host) -> int:
    """Packets of clients that took the fast path."""
    direct = _elements(host, "set", "passed")
    natted = [key for name in ("passed_in4", "passed_in6") for key, _ in _elements(host, "map", name)]
    return sum(element["elem"]["counter"]["packets"] for element in [*direct, *natted])


def forwarded(host: Host, address: str) -> int:
    """Packets that the IP stack has forwarded."""
    with host.enter():
        if ":" in address:
            lines = Path("/proc/thread-self/net/snmp6").read_text().splitlines()
            return int(dict(line.split() for line in lines)["Ip6OutForwDatagrams"])
        names, values = [
            line.split()
            for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
            if line.startswith("Ip:")
        ]
        return int(dict(zip(names, values, strict=True))["ForwDatagrams"])


def row(running: Balancer, service: str, backend: str) -> dict:
    """What `backends ls` says of one."""
    return next(r for r in running.backends() if (r["service"], r["backend"]) == (service, backend))


def requests_past_the_stack(lab: Lab, running: Balancer, vip: str, service: str) -> Counter[str]:
    """Makes `REQUESTS` on a connection that has been learned, which neither user space nor the IP stack sees;
    by how much the numbers of the service's backends have grown, all together."""
    with lab.client.enter():
        connection = http.client.HTTPConnection(vip, 80, timeout=5)
        name = {request(connection) for _ in range(LEARNED)}
    stack, seen = forwarded(lab.gateway, vip), to_user_space(running)
    before = _sums(running, service)
    assert {request(connection) for _ in range(REQUESTS)} == name
    assert forwarded(lab.gateway, vip) == stack
    assert to_user_space(running) == seen
    after = _sums(running, service)
    connection.close()
    return after - before


def _sums(running: Balancer, service: str) -> Counter[str]:
    rows = [row for row in running.backends() if row["service"] == service]
    kinds = ("packets_offloaded", "packets_out", "bytes_in", "bytes_out")
    return Counter({kind: sum(row[kind] or 0 for row in rows) for kind in kinds})


def is_answered(sock: socket.socket) -> bool:
    """Whether the echo service answers at once."""
    sock.settimeout(0.2)
    try:
        return bool(echo(sock))
    except TimeoutError:
        return False
    finally:
        sock.settimeout(5)


def change_link_address(host: Host) -> None:
    """Gives a host's leg another link-layer address, which it announces. Otherwise that is found out when the
    neighbour is next probed, as without a fast path."""
    host.run(["sysctl", "-qw", "net.ipv4.conf.eth0.arp_notify=1", "net.ipv6.conf.eth0.ndisc_notify=1"])
    old = json.loads(host.run(["ip", "-j", "link", "show", "eth0"]).stdout)[0]["address"]
    host.run(["ip", "link", "set", "eth0", "address", old[:-2] + f"{int(old[-2:], 16) ^ 1:02x}"])


def wait_until_fast(host: Host, address: str, sock: socket.socket) -> None:
    """Waits until the packets of a flow skip the IP stack, after something has changed on the host: of what
    the kernel says then in several messages, each may make flows be learned anew."""

    def is_fast() -> bool:
        before = forwarded(host, address)
        echo(sock, LEARNED)
        return forwarded(host, address) == before

    wait_for(is_fast, 10, "packets to skip the IP stack")


@contextmanager
def flow(lab: Lab, address: str, port: int = 7) -> Iterator[socket.socket]:
    """A UDP flow to the echo service."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with lab.client.enter(), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect((address, port))
        yield sock


def echo(sock: socket.socket, times: int = 1) -> set[str]:
    """Sends datagrams one after another; who answered."""
    found = set()
    for _ in range(times):
        sock.send(b"ping")
        found.add(sock.recv(64).partition(b":")[0].decode())
    return found
