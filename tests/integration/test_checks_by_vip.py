"""Checks through the VIP: a backend that answers clients itself has to be ready for them, not only there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.gateway import VIP4, VIP6, balancing, get, to_user_space
from tests.integration.test_modes import prepared, real_server_words
from tests.support import servers
from tests.support.lab import Lab, wait_for
from tests.support.scenarios.balancer import Balancer

pytestmark = pytest.mark.root
SOON_S = 10.0
TIMES = "interval: 300ms, timeout: 250ms, rise: 1, fall: 2"
CHECKS = {
    "tcp": "type: tcp, port: 8080",
    "http": "type: http, port: 8080, expect: {body: b}",
    "syn": "type: syn, port: 8080",
    "udp": "type: udp, port: 7, payload: hello, expect: {match: 'b[12]:hello'}",
    "itself": "type: tcp, port: 8080, via: backend",
    "closed": "type: tcp, port: 8081",
}
SERVICE = """
    - name: {name}
      forward: {mode}
      listen: "{listen}"
      health: {{{health}, {times}}}
      backends: [{backends}]
"""


def config(datapath: str, mode: str) -> str:
    """A service for each check and family. They listen from port 80 on."""
    text = f"l4:\n  datapath: {datapath}\n  services:\n"
    for family, vip, backend in ((4, VIP4, "10.2.0.{}"), (6, f"[{VIP6}]", "[2001:db8:2::{}]")):
        backends = ", ".join(f'"{backend.format(n)}"' for n in (11, 12))
        for port, (name, health) in enumerate(CHECKS.items(), 80):
            text += SERVICE.format(
                name=f"{name}{family}",
                mode=mode,
                listen=f"{vip}:{port}/tcp",
                health=health,
                times=TIMES,
                backends=backends,
            )
    return text


@pytest.fixture(scope="module", params=["dsr", "ipip", "gue"])
def ready(request, no_lab_because) -> Iterator[tuple[Lab, str]]:
    """A lab, and the mode that its backends are ready for."""
    with prepared(request.param, backends=2) as lab:
        yield lab, request.param


@pytest.fixture(params=["offload", "rewrite"])
def running(request, ready) -> Iterator[Balancer]:
    lab, mode = ready
    with balancing(lab, config(request.param, mode)) as running:
        yield running


@contextmanager
def undone(lab: Lab, mode: str) -> Iterator[None]:
    """b1 is not ready for its mode any more."""
    b1 = lab.host("b1")
    servers.real_server(b1, "--undo")
    try:
        yield
    finally:
        servers.real_server(b1, *real_server_words(mode))


def of_host(running: Balancer, host: str, what: str) -> dict[str, str]:
    """By service, something of the backends on a host."""
    number = f"1{host[1:]}"
    return {r["service"]: r[what] for r in running.backends() if r["backend"].strip("[]").endswith(number)}


def of_all(through_vip: str, closed: str = "down") -> dict[str, str]:
    """What a backend is where all checks through the VIP say the same."""
    special = {"itself": "up", "closed": closed}
    return {f"{name}{family}": special.get(name, through_vip) for name in CHECKS for family in (4, 6)}


def wait_states(running: Balancer, host: str, wanted: dict[str, str]) -> None:
    wait_for(lambda: of_host(running, host, "state") == wanted, SOON_S, f"{host} to be {wanted}")


def test_a_backend_without_the_vip_is_down_and_its_own_address_up(ready, running):
    lab, mode = ready
    wait_states(running, "b1", of_all("up"))
    before = running.status()["reasons"]
    with undone(lab, mode):
        wait_states(running, "b1", of_all("down"))
        wait_states(running, "b2", of_all("up"))
        # Checks do not come to the workers, and are no flows.
        status = running.status()
        assert (status["flows"], status["reasons"], to_user_space(running)) == (0, before, 0)
        why = of_host(running, "b1", "why")
        assert why["tcp4"] == why["tcp6"] == "no answer in 0.25 s"
        assert why["closed4"] == why["closed6"] == "connection refused"
        assert {get(lab, vip) for vip in (VIP4, VIP6) for _ in range(4)} == {"b2"}
    wait_states(running, "b1", of_all("up"))


WITHDRAWING = """l4:
  datapath: {datapath}
  services:
    - {{name: web4, forward: {mode}, listen: "203.0.113.10:80/tcp", backends: [10.2.0.11, 10.2.0.12], {more}}}
    - {{name: web6, forward: {mode}, listen: "[2001:db8:f::10]:80/tcp",
        backends: ["[2001:db8:2::11]", "[2001:db8:2::12]"], {more}}}
"""


@pytest.mark.parametrize("datapath", ["offload", "rewrite"])
def test_checks_find_backends_up_while_the_vip_is_withdrawn(ready, datapath):
    """The gateway then has no such address, and what comes from it is nobody's."""
    lab, mode = ready

    def held() -> int:
        shown = lab.gateway.run(["ip", "-o", "addr", "show", "dev", "lo"]).stdout
        return shown.count(f" {VIP4}/") + shown.count(f" {VIP6}/")

    more = f"quorum: 2, withdraw_vip: true, health: {{type: tcp, port: 8080, {TIMES}}}"
    with balancing(lab, WITHDRAWING.format(datapath=datapath, mode=mode, more=more)) as running:
        wait_states(running, "b1", {"web4": "up", "web6": "up"})
        assert held() == 2
        with undone(lab, mode):
            wait_for(lambda: held() == 0, SOON_S, "both VIPs to be withdrawn")
            wait_states(running, "b1", {"web4": "down", "web6": "down"})
            wait_states(running, "b2", {"web4": "up", "web6": "up"})
            assert {get(lab, vip) for vip in (VIP4, VIP6)} == {"b2"}
        wait_states(running, "b1", {"web4": "up", "web6": "up"})
        wait_for(lambda: held() == 2, SOON_S, "both VIPs to be back")
