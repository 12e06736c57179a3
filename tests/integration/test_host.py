"""What the balancer does to its host, and that all of it is undone: after an end, and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.gateway import VIP4, balancing, get, serving
from tests.integration.under_load import requesting
from tests.support.lab import Host, Lab, wait_for
from tests.support.scenarios import balancer
from tests.support.scenarios.balancer import PROGRAM

pytestmark = pytest.mark.root
CONFIG = """
l4:
  services:
    - name: web
      listen: [203.0.113.10:80/tcp, 203.0.113.11:80/tcp]
      backends: [10.2.0.11:8080, 10.2.0.12:8080, 10.2.0.13:8080]
    - name: web6
      listen: "[2001:db8:f::10]:80/tcp"
      backends: ["[2001:db8:2::11]:8080"]
"""
OTHERS = """
table inet operator {
  set kept { type ipv4_addr; elements = { 192.0.2.1 } }
  chain input { type filter hook input priority 0; policy accept; ip saddr @kept counter drop; }
}
"""


def snapshot(host: Host) -> dict[str, str]:
    """All that l4lb could have changed, as the host's own tools show it."""
    commands = {
        "nft": ["nft", "list", "ruleset"],
        "iptables": ["iptables-save"],
        "ip6tables": ["ip6tables-save"],
        "addresses": ["ip", "-o", "-br", "addr"],
        "rules": ["ip", "rule"],
        "routes": ["ip", "route", "show", "table", "all"],
        "routes6": ["ip", "-6", "route", "show", "table", "all"],
        "sysctls": [
            "sysctl",
            "-e",
            "net.ipv4.ip_forward",
            "net.ipv6.conf.all.forwarding",
            "net.ipv4.conf.all",
        ],
    }
    return {name: host.run(command).stdout for name, command in commands.items()}


@pytest.fixture
def gateway(lab: Lab):
    """The gateway with rules of an operator's own, and forwarding off."""
    lab.gateway.run(["nft", "-f", "-"], input=OTHERS)
    lab.gateway.run(["sysctl", "-q", "-w", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0"])
    yield lab.gateway
    lab.gateway.run(["nft", "flush", "ruleset"])
    lab.gateway.run(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])


def test_an_ordinary_end_leaves_the_host_as_it_was(lab, gateway):
    before = snapshot(gateway)
    with balancing(lab, CONFIG):
        during = snapshot(gateway)
        assert "table inet l4lb" in during["nft"]
        assert "table inet operator" in during["nft"]
        assert "203.0.113.11/32" in during["addresses"]
        assert "net.ipv4.ip_forward = 1" in during["sysctls"]
    assert snapshot(gateway) == before


def test_down_after_a_kill_leaves_no_trace(lab, gateway):
    before = snapshot(gateway)
    path = Path(gateway.directory) / "l4lb.yaml"
    path.write_text(CONFIG)
    running = balancer.start(gateway, path)
    os.kill(running.status()["pid"], signal.SIGKILL)
    running.process.wait(10)
    assert "table inet l4lb" in snapshot(gateway)["nft"]

    planned = running.command("down", "--dry-run")
    assert "table inet l4lb" in planned and "203.0.113.10/32" in planned and "net.ipv4.ip_forward" in planned
    assert "table inet l4lb" in snapshot(gateway)["nft"]

    running.command("down")
    assert snapshot(gateway) == before
    assert running.command("down") == ""


def test_run_takes_over_after_a_kill_and_puts_back_what_was_before_the_first(lab, gateway):
    before = snapshot(gateway)
    path = Path(gateway.directory) / "l4lb.yaml"
    path.write_text(CONFIG)
    first = balancer.start(gateway, path)
    os.kill(first.status()["pid"], signal.SIGKILL)
    first.process.wait(10)
    # The second configuration lacks a VIP of the first: that one has to go when it takes over.
    with serving(lab, udp=()), balancing(lab, CONFIG.replace(", 203.0.113.11:80/tcp", "")):
        assert "203.0.113.11" not in snapshot(gateway)["addresses"]
        assert get(lab, VIP4) in {"b1", "b2", "b3"}
    assert snapshot(gateway) == before


def test_connections_outlive_a_killed_daemon(lab, gateway):
    """Maglev finds the backend of a running connection again, though its flow was forgotten."""
    path = Path(gateway.directory) / "l4lb.yaml"
    path.write_text(CONFIG)
    with serving(lab, udp=()):
        killed = balancer.start(gateway, path)
        with ExitStack() as afterwards, requesting(lab):
            wait_for(lambda: killed.status()["flows"] >= 16, 10, "traffic")
            os.kill(killed.status()["pid"], signal.SIGKILL)
            killed.process.wait(10)
            again = afterwards.enter_context(balancing(lab, CONFIG))
            wait_for(lambda: again.status()["reasons"]["scheduled"] >= 16, 20, "the connections")


def test_down_ends_a_daemon_that_runs(lab, gateway):
    before = snapshot(gateway)
    path = Path(gateway.directory) / "l4lb.yaml"
    path.write_text(CONFIG)
    running = balancer.start(gateway, path)
    assert f"ended process {running.status()['pid']}" in running.command("down")
    assert running.process.wait(10) == 0
    assert snapshot(gateway) == before


def test_a_packet_is_dropped_and_not_answered_while_the_daemon_is_dead(lab, gateway):
    path = Path(gateway.directory) / "l4lb.yaml"
    path.write_text(CONFIG)
    running = balancer.start(gateway, path)
    os.kill(running.status()["pid"], signal.SIGKILL)
    running.process.wait(10)
    try:
        with pytest.raises(TimeoutError):  # a reset by the gateway would be ConnectionRefusedError
            get(lab, VIP4, timeout=1)
    finally:
        running.command("down")


def test_a_second_daemon_is_refused(lab, gateway):
    with balancing(lab, CONFIG) as running:
        path = Path(gateway.directory) / "l4lb.yaml"
        refused = gateway.run([PROGRAM, "--socket", running.socket, "run", "-c", path], check=False)
        assert refused.returncode == 1
        assert f"process {running.status()['pid']}" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1


def test_a_daemon_with_another_socket_is_refused_and_harms_nothing(lab, gateway):
    with serving(lab, udp=()), balancing(lab, CONFIG) as running:
        before = snapshot(gateway)
        other = gateway.directory / "other.sock"
        refused = gateway.run(
            [PROGRAM, "--socket", other, "run", "-c", gateway.directory / "l4lb.yaml"], check=False
        )
        assert refused.returncode == 1
        assert f"process {running.status()['pid']}" in refused.stderr
        assert gateway.run([PROGRAM, "--socket", other, "down"], check=False).returncode == 1
        assert snapshot(gateway) == before
        assert get(lab, VIP4) in {"b1", "b2", "b3"}


def test_an_address_that_the_host_already_had_stays(lab, gateway):
    gateway.run(["ip", "addr", "add", "203.0.113.10/32", "dev", "lo"])
    try:
        before = snapshot(gateway)
        with balancing(lab, CONFIG):
            pass
        assert snapshot(gateway) == before
    finally:
        gateway.run(["ip", "addr", "del", "203.0.113.10/32", "dev", "lo"])


def test_a_queue_that_is_taken_is_an_error_that_undoes_everything(lab, gateway):
    before = snapshot(gateway)
    program = (
        "import sys; from l4lb.net.queue import open_queue; "
        "s = open_queue(0, length=64, copy_range=64, fail_open=False); "
        "print('bound', flush=True); sys.stdin.read()"
    )
    holder = gateway.popen([sys.executable, "-c", program], stdin=subprocess.PIPE, log="holder.log")
    wait_for(lambda: "bound" in holder.output(), 10, "the queue to be taken")
    path = Path(gateway.directory) / "l4lb.yaml"
    path.write_text(CONFIG)
    socket = gateway.directory / "other.sock"
    refused = gateway.run([PROGRAM, "--socket", socket, "run", "-c", path], check=False)
    holder.stop()
    assert refused.returncode == 1
    assert "queue 0" in refused.stderr and "l4.queue.first" in refused.stderr
    assert snapshot(gateway) == before


def test_without_privilege_every_command_says_so(lab, gateway):
    path = Path(gateway.directory) / "l4lb.yaml"
    path.write_text(CONFIG)
    bare = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--reuid", "0", "--no-new-privs"]
    for words in (["run", "-c", path], ["doctor"]):
        refused = gateway.run(
            [*bare, PROGRAM, "--socket", gateway.directory / "bare.sock", *words], check=False
        )
        assert refused.returncode == 3, refused.stderr
        assert "net-admin" in refused.stderr or "CAP_NET_ADMIN" in refused.stderr
