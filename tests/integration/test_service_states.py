"""A service with too few backends: what clients meet then, and what operators see."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.gateway import ask, balancing, explained, get, serving, shares
from tests.support.lab import Lab, wait_for
from tests.support.scenarios.balancer import Balancer, start

pytestmark = pytest.mark.root
DATAPATHS = ["offload", "mark", "rewrite", "reference"]
CONFIG = """
l4:
  datapath: {datapath}
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: round-robin
      health: {{type: http, interval: 300ms, timeout: 200ms, rise: 2, fall: 2}}
      quorum: 2
      sorry_server: 10.2.0.13:8080
      backends: [10.2.0.11:8080, 10.2.0.12:8080]
    - name: web6
      listen: "[2001:db8:f::10]:80/tcp"
      forward: masquerade
      sorry_server: "[2001:db8:2::13]:8080"
      backends: ["[2001:db8:2::11]:8080", "[2001:db8:2::12]:8080"]
    - name: echo
      listen: 203.0.113.10:7/udp
      scheduler: round-robin
      sorry_server: 10.2.0.13:7
      backends: [10.2.0.11:7, 10.2.0.12:7]
"""
B1, B2, SORRY = "10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080"
SOON_S = 6.0


@pytest.fixture(params=DATAPATHS)
def running(request, lab: Lab) -> Iterator[Balancer]:
    with balancing(lab, CONFIG.format(datapath=request.param)) as running:
        yield running


def service(running: Balancer, name: str) -> dict:
    rows = map(json.loads, running.command("services", "--json").splitlines())
    return next(row for row in rows if row["service"] == name)


def wait_service(running: Balancer, name: str, state: str) -> None:
    wait_for(lambda: service(running, name)["state"] == state, SOON_S, f"{name} to be {state}")


def test_the_sorry_server_stands_in_below_the_quorum_and_steps_back(lab, web, running):
    assert set(shares([get(lab) for _ in range(4)])) == {"b1", "b2"}
    kept = http.client.HTTPConnection("203.0.113.10", timeout=5)
    with lab.client.enter():
        kept.connect()
    kept.request("GET", "/")
    owner = kept.getresponse()
    name = owner.headers["X-Backend"]
    owner.read()
    other = {"b1": "b2", "b2": "b1"}[name]

    web[other].stop(signal.SIGKILL)
    wait_service(running, "web", "sorry")
    assert shares([get(lab) for _ in range(4)]) == {"b3": 4}
    # Who is up goes on with what it has.
    kept.request("GET", "/")
    assert kept.getresponse().headers["X-Backend"] == name
    kept.close()

    row = service(running, "web")
    assert (row["up"], row["backends"], row["quorum"], row["has_quorum"]) == (1, 2, 2, False)
    assert row["why"] == "1 of 2 backends up, quorum 2, lost"
    assert running.status()["service_states"] == {"up": 2, "degraded": 0, "sorry": 1, "down": 0}
    states = {r["backend"]: r["state"] for r in running.backends() if r["service"] == "web"}
    assert sorted(states.values()) == ["down", "up", "waiting"] and states[SORRY] == "up"
    found = explained(running, "198.51.100.2:40000", "203.0.113.10:80/tcp")
    assert (found["backend"], found["state"].partition(":")[0]) == (SORRY, "sorry")
    metrics = running.command("metrics")
    assert 'l4lb_service_state{service="web",state="sorry"} 1' in metrics
    assert 'l4lb_service_has_quorum{service="web"} 0' in metrics
    assert "service sorry" in running.process.output()

    sorry = http.client.HTTPConnection("203.0.113.10", timeout=5)
    with lab.client.enter():
        sorry.connect()
    sorry.request("GET", "/")
    answer = sorry.getresponse()
    answer.read()
    assert answer.headers["X-Backend"] == "b3"
    web[other] = lab.host(other).popen([sys.executable, *web[other].args[-6:]])
    wait_service(running, "web", "up")
    assert set(shares([get(lab) for _ in range(4)])) == {"b1", "b2"}
    with pytest.raises(ConnectionResetError):
        sorry.request("GET", "/")
        sorry.getresponse()
    sorry.close()


REJECTING = """
l4:
  datapath: {datapath}
  services:
    - name: reject
      listen: [203.0.113.10:80/tcp, 203.0.113.10:7/udp]
      on_no_backend: reject
      forward: {forward}
      backends: [10.2.0.11]
    - name: reject6
      listen: ["[2001:db8:f::10]:80/tcp", "[2001:db8:f::10]:7/udp"]
      on_no_backend: reject
      forward: {forward}
      backends: ["[2001:db8:2::11]"]
    - name: drop
      listen: 203.0.113.20:80/tcp
      backends: [10.2.0.11]
"""


@pytest.mark.parametrize(
    ("datapath", "forward"), [*((path, "nat") for path in DATAPATHS), ("offload", "dsr"), ("mark", "ipip")]
)
def test_who_cannot_be_served_is_told_at_once(lab, datapath, forward):
    with balancing(lab, REJECTING.format(datapath=datapath, forward=forward)) as running:
        for name, backend in (("reject", "10.2.0.11"), ("reject6", "2001:db8:2::11"), ("drop", "10.2.0.11")):
            running.command("backends", "disable", name, backend)
        for address in ("203.0.113.10", "2001:db8:f::10"):
            with lab.client.enter():
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((address, 80), timeout=5)
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                with socket.socket(family, socket.SOCK_DGRAM) as sock:
                    sock.settimeout(5)
                    sock.connect((address, 7))
                    sock.send(b"ping")
                    with pytest.raises(ConnectionRefusedError):
                        sock.recv(100)
        with lab.client.enter(), pytest.raises(TimeoutError):
            socket.create_connection(("203.0.113.20", 80), timeout=0.5)
        assert service(running, "reject")["state"] == "down"
        reasons = running.status()["reasons"]
        assert reasons["rejected"] == 4
        assert reasons["no_backend"] >= 1
        assert explained(running, "198.51.100.2:40000", "203.0.113.10:80/tcp")["reason"] == "rejected"


MAINTAINED = """
l4:
  datapath: {datapath}
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: round-robin
      health: {{type: http, interval: 300ms, timeout: 200ms, rise: 2, fall: 2}}
      backends: [10.2.0.11:8080, {{address: "10.2.0.12:8080", maintenance: {maintenance}}}]
"""


@pytest.mark.parametrize("datapath", ["offload", "rewrite"])
def test_maintenance_begins_at_once_and_ends_with_checks(lab, web, datapath):
    def state(backend: str) -> str:
        return next(row["state"] for row in running.backends() if row["backend"] == backend)

    path = Path(lab.gateway.directory) / "l4lb.yaml"
    with balancing(lab, MAINTAINED.format(datapath=datapath, maintenance="true")) as running:
        assert state(B2) == "maintenance"
        assert shares([get(lab) for _ in range(4)]) == {"b1": 4}
        web["b2"].stop(signal.SIGKILL)
        path.write_text(MAINTAINED.format(datapath=datapath, maintenance="false"))
        assert "comes out of maintenance" in running.command("reload")
        assert state(B2) == "down"  # nobody has found it up yet
        assert shares([get(lab) for _ in range(4)]) == {"b1": 4}
        web["b2"] = lab.host("b2").popen([sys.executable, *web["b2"].args[-6:]])
        wait_for(lambda: state(B2) == "up", SOON_S, "checks to find it up")
        assert set(shares([get(lab) for _ in range(4)])) == {"b1", "b2"}

        with ExitStack() as stack:
            with lab.client.enter():
                made = [socket.create_connection(("203.0.113.10", 80), timeout=5) for _ in range(4)]
            socks = [stack.enter_context(sock) for sock in made]
            assert ends(socks) == ["answered"] * 4
            running.command("backends", "disable", "web", B2, "--maintenance")
            assert ends(socks) == ["answered"] * 4
            running.command("backends", "disable", "web", B2, "--maintenance", "--end-flows")
            assert sorted(ends(socks)) == ["answered"] * 2 + ["reset"] * 2
        running.command("backends", "enable", "web", B2)
        wait_for(lambda: state(B2) == "up", SOON_S, "checks to find it up")


def ends(socks: list[socket.socket]) -> list[str]:
    """What becomes of one more request on each connection."""
    found = []
    for sock in socks:
        try:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            found.append("answered" if sock.recv(4096) else "closed")
        except ConnectionResetError:
            found.append("reset")
    return found


WITHDRAWING = """
l4:
  datapath: {datapath}
  services:
    - name: web
      listen: [203.0.113.10:80/tcp, "203.0.113.11:80/tcp"]
      quorum: 2
      withdraw_vip: true
      backends: [10.2.0.11:8080, 10.2.0.12:8080]
    - name: web6
      listen: "[2001:db8:f::10]:80/tcp"
      withdraw_vip: true
      backends: ["[2001:db8:2::11]:8080"]
    - name: other
      listen: 203.0.113.11:81/tcp
      withdraw_vip: true
      backends: [10.2.0.11:8080]
"""
VIPS = {"203.0.113.10", "203.0.113.11", "2001:db8:f::10"}


def addresses(lab: Lab) -> set[str]:
    """Those of the gateway's lo that are not its own."""
    shown = lab.gateway.run(["ip", "-o", "addr", "show", "dev", "lo"]).stdout
    return {line.split()[3].partition("/")[0] for line in shown.splitlines()} - {"127.0.0.1", "::1"}


@pytest.mark.parametrize("datapath", ["offload", "rewrite"])
def test_a_vip_is_withdrawn_below_the_quorum_and_comes_back(lab, datapath):
    before = addresses(lab)
    with serving(lab), balancing(lab, WITHDRAWING.format(datapath=datapath)) as running:

        def said() -> str:
            return running.process.output().rpartition("start_ms=")[2]  # of this run alone

        assert addresses(lab) - before == VIPS
        kept = http.client.HTTPConnection("203.0.113.10", timeout=5)
        with lab.client.enter():
            kept.connect()
        running.command("backends", "drain", "web", B1)
        # 203.0.113.11 is another service's as well, and that one is whole.
        assert addresses(lab) - before == {"203.0.113.11", "2001:db8:f::10"}
        assert service(running, "web")["withdrawn"] == ["203.0.113.10"]
        assert 'l4lb_vip_withdrawn{vip="203.0.113.10"} 1' in running.command("metrics")
        running.command("backends", "disable", "web6", "[2001:db8:2::11]:8080")
        assert addresses(lab) - before == {"203.0.113.11"}
        running.command("reload")
        assert addresses(lab) - before == {"203.0.113.11"}
        kept.request("GET", "/")  # flows go on, and what still comes is served
        assert kept.getresponse().status == 200
        kept.close()
        assert get(lab) == "b2"
        running.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: said().count("msg=ready") == 2, 20, "the new program")
        assert addresses(lab) - before == {"203.0.113.11"}
        running.command("backends", "enable", "web6", "[2001:db8:2::11]:8080")
        running.command("backends", "enable", "web", B1)
        assert addresses(lab) - before == VIPS
        assert said().count('msg="vip withdrawn"') == 2 and said().count('msg="vip is back"') == 2
    assert addresses(lab) == before


def test_a_killed_run_with_a_withdrawn_vip_leaves_nothing(lab):
    before = addresses(lab)
    path = Path(lab.gateway.directory) / "l4lb.yaml"
    path.write_text(WITHDRAWING.format(datapath="mark"))
    running = start(lab.gateway, path)
    running.command("backends", "drain", "web", B1)
    running.process.stop(signal.SIGKILL)
    assert addresses(lab) - before == {"203.0.113.11", "2001:db8:f::10"}
    running.command("down")
    assert addresses(lab) == before
    assert not running.socket.with_suffix(".journal").exists()


def test_an_address_of_the_operators_own_stays(lab):
    lab.gateway.run(["ip", "addr", "add", "203.0.113.10/32", "dev", "lo"])
    try:
        with balancing(lab, WITHDRAWING.format(datapath="mark")) as running:
            running.command("backends", "drain", "web", B1)
            assert "203.0.113.10" in addresses(lab)
        assert "203.0.113.10" in addresses(lab)
    finally:
        lab.gateway.run(["ip", "addr", "del", "203.0.113.10/32", "dev", "lo"])


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_udp_and_ipv6_go_to_the_sorry_server_and_come_back(lab, datapath):
    with serving(lab), balancing(lab, CONFIG.format(datapath=datapath)) as running:
        for name, backends in (("echo", ("10.2.0.11:7", "10.2.0.12:7")),
                               ("web6", ("[2001:db8:2::11]:8080", "[2001:db8:2::12]:8080"))):  # fmt: skip
            for backend in backends:
                running.command("backends", "drain", name, backend)
        with lab.client.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect(("203.0.113.10", 7))
            for _ in range(8):  # enough to be learned
                sock.send(b"ping")
                assert sock.recv(100) == b"b3:ping"
            assert get(lab, "2001:db8:f::10") == "b3"
            running.command("backends", "enable", "echo", "10.2.0.11:7")
            sock.send(b"ping")  # the same flow does not stay with the apology
            assert sock.recv(100) == b"b1:ping"
        assert service(running, "web6")["state"] == "sorry"
        assert ask(lab) == "b1"
