"""What becomes of new flows while the daemon is away: `on_failure`, after a kill, in the kernel alone."""

from __future__ import annotations

import http.client
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.integration.gateway import VIP4, VIP6, ask, get, request, serving
from tests.support.lab import Lab, unique_prefix
from tests.support.scenarios import balancer

pytestmark = pytest.mark.root
CONFIG = """
l4:
  datapath: {datapath}
  services:
    - name: hashed
      listen: [203.0.113.10:80/tcp, 203.0.113.10:7/udp]
      on_failure: hash
      backends: [10.2.0.11, {{address: 10.2.0.12, weight: 2}}]
    - name: hashed6
      listen: "[2001:db8:f::10]:80/tcp"
      on_failure: hash
      backends: ["[2001:db8:2::11]:8080", "[2001:db8:2::12]:8080"]
    - name: passed
      listen: 203.0.113.10:8080/tcp
      on_failure: pass
      backends: [10.2.0.12]
    - name: dropped
      listen: 203.0.113.10:9090/tcp
      backends: [10.2.0.11, 10.2.0.12]
"""


@pytest.fixture(scope="module", params=["offload", "mark", "rewrite"])
def killed(request, no_lab_because):
    """A lab whose gateway has the rules of a daemon that is no more."""
    with Lab(unique_prefix("test"), 2) as lab, serving(lab, http=(80, 8080, 9090), udp=(7,)):
        path = Path(lab.gateway.directory) / "l4lb.yaml"
        path.write_text(CONFIG.format(datapath=request.param))
        running = balancer.start(lab.gateway, path)
        assert {get(lab, VIP4) for _ in range(20)} == {"b1", "b2"}
        os.kill(running.status()["pid"], signal.SIGKILL)
        running.process.wait(10)
        yield lab
        running.command("down")


def test_hash_goes_on_balancing(killed):
    met = [get(killed, VIP4) for _ in range(60)]
    assert set(met) == {"b1", "b2"}
    assert 20 <= met.count("b2") <= 55
    assert {get(killed, VIP6) for _ in range(30)} == {"b1", "b2"}
    assert {ask(killed, VIP4) for _ in range(30)} == {"b1", "b2"}
    counted = killed.gateway.run(["nft", "list", "counter", "inet", "l4lb", "hashed"]).stdout
    assert "packets 0" not in counted


def test_pass_leaves_the_packet_to_the_host(killed):
    with pytest.raises(ConnectionRefusedError):
        get(killed, VIP4, 8080, timeout=2)
    program = ["-m", "tests.support.http_server", "--name", "gateway", "--port", "8080"]
    fallback = killed.gateway.popen([sys.executable, *program])
    try:
        killed.gateway.wait_listening(8080)
        assert get(killed, VIP4, 8080) == "gateway"
    finally:
        fallback.stop()


def test_a_running_connection_goes_on_without_the_daemon_and_with_the_next(killed):
    """The kernel's hash and the balancer's are one: each finds the backend that the other chose."""
    path = Path(killed.gateway.directory) / "l4lb.yaml"
    with killed.client.enter():
        connections = [http.client.HTTPConnection(VIP4, 80, timeout=5) for _ in range(12)]
        names = [request(connection) for connection in connections]
    assert set(names) == {"b1", "b2"}
    # Begun without a daemon; now one is there, which knows none of them.
    running = balancer.start(killed.gateway, path)
    assert [request(connection) for connection in connections] == names
    os.kill(running.status()["pid"], signal.SIGKILL)
    running.process.wait(10)
    assert [request(connection) for connection in connections] == names
    for connection in connections:
        connection.close()


def test_drop_is_silent_and_counted(killed):
    with pytest.raises(TimeoutError):
        get(killed, VIP4, 9090, timeout=1)
    counted = killed.gateway.run(["nft", "list", "counter", "inet", "l4lb", "undecided"]).stdout
    assert "packets 0" not in counted
