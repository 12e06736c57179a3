"""A balancer on the lab's gateway, and clients that say who answered them."""

from __future__ import annotations

import collections
import http.client
import itertools
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.lab import Lab, wait_for
from tests.support.scenarios import balancer
from tests.support.scenarios.balancer import Balancer

VIP4 = "203.0.113.10"
VIP6 = "2001:db8:f::10"
SO_NO_CHECK = 11
# Below the ephemeral ports: of those the kernel may give one twice, and a known flow is not scheduled again.
_udp_ports = itertools.cycle(range(21000, 31000))


@contextmanager
def balancing(lab: Lab, config: str) -> Iterator[Balancer]:
    """`l4lb run` with this configuration, stopped as an init system stops it."""
    path = Path(lab.gateway.directory) / "l4lb.yaml"
    path.write_text(config)
    running = balancer.start(lab.gateway, path)
    try:
        yield running
    except BaseException:
        running.process.stop(timeout=20)
        raise
    running.stop()


@contextmanager
def serving(lab: Lab, *, http: tuple[int, ...] = (8080,), udp: tuple[int, ...] = (7,)) -> Iterator[None]:
    """An HTTP server and a UDP echo on every backend, both families, for each of the ports."""
    programs = [("http_server", port, "tcp") for port in http] + [("udp_echo", port, "udp") for port in udp]
    started = []
    try:
        for host in lab.backends:
            for program, port, _ in programs:
                words = ["-m", f"tests.support.{program}", "--name", host.name, "--port", str(port)]
                started.append(host.popen([sys.executable, *words]))
        for host in lab.backends:
            for _, port, protocol in programs:
                host.wait_listening(port, protocol)
        yield
    finally:
        for process in started:
            process.stop()


def get(
    lab: Lab, address: str = VIP4, port: int = 80, *, timeout: float = 5, local: str = "", source: int = 0
) -> str:
    """One HTTP request on a connection of its own; the name of the backend that answered."""
    with lab.client.enter():
        bound = (local or ("::" if ":" in address else ""), source)
        connection = http.client.HTTPConnection(address, port, timeout=timeout, source_address=bound)
        try:
            return request(connection)
        finally:
            connection.close()


def request(connection: http.client.HTTPConnection) -> str:
    """One HTTP request on this connection; the name of the backend that answered."""
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    return answer.headers["X-Backend"]


def ask(
    lab: Lab, address: str = VIP4, port: int = 7, *, payload: bytes = b"ping", no_checksum: bool = False
) -> str:
    """One UDP datagram from a port of its own; the name of the backend that echoed it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with lab.client.enter(), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        if no_checksum:
            sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        sock.bind(("", next(_udp_ports)))
        sock.connect((address, port))  # an answer from any other address is not received
        sock.send(payload)
        name, _, echoed = sock.recv(65536).partition(b":")
        assert echoed == payload
        return name.decode()


def shares(answers: list[str]) -> dict[str, int]:
    """How often each backend answered."""
    return dict(sorted(collections.Counter(answers).items()))


def explained(running: Balancer, client: str, service: str) -> dict:
    """`l4lb explain --json`."""
    return json.loads(running.command("explain", client, service, "--json"))


def to_user_space(running: Balancer) -> int:
    """How many packets were queued since the start."""
    return sum(queue["packets"] for queue in running.status()["queues"])


def wait_flows(running: Balancer, count: int) -> None:
    """Waits until the balancer remembers so many flows."""
    wait_for(lambda: running.status()["flows"] == count, 10, f"{count} flows")
