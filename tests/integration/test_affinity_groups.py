"""Services that share affinity, on real connections: a client of both meets one host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.gateway import VIP4, ask, balancing, explained, get, serving
from tests.integration.test_replacement import replace
from tests.support.lab import Lab
from tests.support.scenarios.balancer import Balancer

pytestmark = pytest.mark.root
CONFIG = """
l4:
  datapath: {datapath}
  workers: 2
  services:
    - name: http
      listen: 203.0.113.10:80/tcp
      scheduler: round-robin
      affinity: {{timeout: 10m, group: shop}}
      backends: [10.2.0.11:8080, 10.2.0.12:8080, 10.2.0.13:8080]
    - name: https
      listen: 203.0.113.10:443/tcp+udp
      scheduler: round-robin
      affinity: {{timeout: 10m, group: shop}}
      backends: [10.2.0.13:8443, 10.2.0.12:8443, 10.2.0.11:8443]
"""
HOSTS = {"b1": "10.2.0.11", "b2": "10.2.0.12", "b3": "10.2.0.13"}


@pytest.fixture(scope="module")
def servers(lab: Lab) -> Iterator[Lab]:
    with serving(lab, http=(8080, 8443), udp=(8443,)):
        yield lab


def met(lab: Lab) -> set[str]:
    """The hosts that one client meets in both services, over TCP and UDP."""
    return {get(lab) for _ in range(3)} | {get(lab, port=443) for _ in range(3)} | {ask(lab, port=443)}


def drain(running: Balancer, service: str, host: str, port: int) -> None:
    running.command("backends", "drain", service, f"{HOSTS[host]}:{port}")


@pytest.mark.parametrize("datapath", ["offload", "mark", "rewrite", "reference"])
def test_a_client_meets_one_host_in_both_services(servers: Lab, datapath: str) -> None:
    with balancing(servers, CONFIG.format(datapath=datapath)) as running:
        home = get(servers)
        assert met(servers) == {home}
        said = explained(running, "10.1.0.50:40000", f"{VIP4}:443/tcp")
        assert said["affinity"] == "client-ip/32 for 10m, group shop with http"
        assert "group shop with https" in running.command("explain", "10.1.0.50:40000", f"{VIP4}:80/tcp")
        # Where one service loses it, both go elsewhere, together.
        drain(running, "https", home, 8443)
        other = get(servers, port=443)
        assert other != home
        assert met(servers) == {other}


def test_it_goes_on_after_a_replacement_and_a_reload(servers: Lab) -> None:
    with balancing(servers, CONFIG.format(datapath="mark")) as running:
        home = get(servers, port=443)
        replace(running)
        assert met(servers) == {home}
        before = running.status()["reasons"]["affinity"]
        running.command("reload")
        assert met(servers) == {home}
        assert running.status()["reasons"]["affinity"] == before + 7


def test_backends_come_and_go_in_one_service_at_run_time(servers: Lab) -> None:
    with balancing(servers, CONFIG.format(datapath="mark")) as running:
        home = get(servers, port=443)
        for name in set(HOSTS) - {home}:
            running.command("backends", "remove", "http", f"{HOSTS[name]}:8080")
        assert met(servers) == {home}
        # What is left of `http` is all that both have: who is elsewhere in `https` is remembered nowhere.
        drain(running, "https", home, 8443)
        away = get(servers, port=443)
        assert away != home
        assert get(servers) == home
        running.command("backends", "enable", "https", f"{HOSTS[home]}:8443")
        assert met(servers) == {home}
        for name in set(HOSTS) - {home}:
            running.command("backends", "add", "http", f"{HOSTS[name]}:8080")
        drain(running, "http", home, 8080)
        after = get(servers)
        assert after != home
        assert met(servers) == {after}
