"""Every cell of mode by datapath by protocol by family, on real traffic between real programs.

Each mode has the network that it is for: NAT a gateway on the backends' way back, direct return and tunnels
a way past it, masquerade backends that have no route to the client at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.integration.gateway import VIP4, VIP6, ask, balancing, get, serving, shares
from tests.support import servers
from tests.support.lab import Lab, unique_prefix
from tests.support.scenarios.balancer import Balancer

pytestmark = pytest.mark.root
SHAPES = {
    "nat": "through-gateway",
    "masquerade": "own-router",
    "dsr": "past-gateway",
    "ipip": "past-gateway",
    "gue": "past-gateway",
}
ITSELF = ("dsr", "ipip", "gue")
DATAPATHS = ("offload", "mark", "rewrite", "reference")
SERVICE = """
    - name: {name}
      forward: {mode}
      listen: "{listen}"
      scheduler: round-robin
      backends: [{backends}]
"""
EVENLY = {"b1": 2, "b2": 2, "b3": 2}


def config(mode: str, datapath: str, *, mixed: bool = False, backends: int = 3) -> str:
    """A web and an echo service of each family, by `mode`; `mixed` gives each the backends of the other
    family."""
    text = f"l4:\n  datapath: {datapath}\n  services:\n"
    for name, port, own in (("web", "80/tcp", ":8080"), ("echo", "7/udp", ":7")):
        for family, vip in ((4, VIP4), (6, f"[{VIP6}]")):
            to_ipv6 = (family == 6) != mixed
            suffix = "" if mode in ITSELF else own
            hosts = [f"[2001:db8:2::{n}]" if to_ipv6 else f"10.2.0.{n}" for n in (11, 12, 13)[:backends]]
            listed = ", ".join(f'"{host}{suffix}"' for host in hosts)
            text += SERVICE.format(name=f"{name}{family}", mode=mode, listen=f"{vip}:{port}", backends=listed)
    return text


@contextmanager
def prepared(mode: str, backends: int = 3, small_mtu: str = "none") -> Iterator[Lab]:
    """A lab of the mode's shape with servers, its backends made ready for the mode."""
    with ExitStack() as stack:
        lab = stack.enter_context(
            Lab(unique_prefix("test"), backends, shape=SHAPES[mode], small_mtu=small_mtu)
        )
        stack.enter_context(serving(lab, http=(80, 8080), udp=(7,)))
        for host in lab.backends if mode in ITSELF else ():
            if mode != "dsr":
                servers.start_decapsulator(host).wait_ready()
            servers.real_server(host, *real_server_words(mode))
        yield lab


def real_server_words(mode: str) -> list[str]:
    """What makes a backend ready for a mode."""
    device = [] if mode == "dsr" else ["--tunnel-device", servers.DECAPSULATOR_DEVICE]
    return ["--vip", VIP4, "--vip", VIP6, "--forward", mode, "--apply", *device]


@pytest.fixture(scope="module", params=SHAPES)
def ready(request, no_lab_because) -> Iterator[tuple[str, Lab]]:
    """A lab for each mode."""
    with prepared(request.param) as lab:
        yield request.param, lab


@pytest.fixture(scope="module", params=DATAPATHS)
def running(request, ready) -> Iterator[tuple[str, Lab, Balancer]]:
    """A balancer by that mode, on one datapath."""
    mode, lab = ready
    with balancing(lab, config(mode, request.param)) as running:
        assert running.status()["datapath"] == request.param
        yield mode, lab, running


def test_tcp_and_udp_over_both_families_reach_each_backend_in_turn(running):
    mode, lab, l4lb = running
    for vip in (VIP4, VIP6):
        assert shares([get(lab, vip) for _ in range(6)]) == EVENLY, vip
        assert shares([ask(lab, vip, 7) for _ in range(6)]) == EVENLY, vip
    status = l4lb.status()
    assert status["undecided"] == 0
    for queue in status["queues"]:
        assert queue.get("send_failed", 0) == queue.get("verdict_errors", 0) == 0
    for row in l4lb.backends():
        assert row["scheduled"] == 2
        # A request has at least SYN, ACK, the request and FIN; a datagram is one packet.
        assert row["packets_in"] >= (2 * 4 if row["service"].startswith("web") else 2)
        if mode in ITSELF:
            assert row["packets_out"] is None
        else:
            assert row["packets_out"] >= 2


def test_large_pages_arrive_whole(running):
    _, lab, _ = running
    for vip in (f"http://{VIP4}", f"http://[{VIP6}]"):
        page = lab.client.run(["curl", "-sS", "-m", "10", f"{vip}/bytes/1000000"], timeout=20)
        assert len(page.stdout) == 1_000_000


def test_masqueraded_flows_show_their_source(running):
    mode, lab, l4lb = running
    get(lab)
    sources = {row["source"] for row in l4lb.flows("web4")}
    if mode != "masquerade":
        assert sources == {None}
        return
    for source in sources:
        address, _, port = source.rpartition(":")
        assert address == "10.2.0.1"
        assert 1024 <= int(port) <= 32767
