"""Backends that fail while clients ask: who notices, how soon, and that nobody is sent there after that."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from tests.integration.gateway import VIP4, balancing, get, shares
from tests.support.lab import Lab, wait_for
from tests.support.scenarios.balancer import Balancer

pytestmark = pytest.mark.root
CONFIG = """
l4:
  datapath: {datapath}
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: round-robin
      health: {{type: http, interval: 300ms, timeout: 200ms, rise: 2, fall: 2}}
      backends: [10.2.0.11:8080, 10.2.0.12:8080, {{address: "10.2.0.13:8080", backup: true}}]
    - name: watched
      listen: 203.0.113.20:80/tcp
      scheduler: round-robin
      passive: {{failures: 3, inhibit: 1h, longest: 2h}}
      backends: [10.2.0.11:8080, 10.2.0.12:8080]
    - name: moving
      listen: 203.0.113.30:80/tcp
      scheduler: round-robin
      health: {{type: tcp, interval: 300ms, timeout: 200ms, fall: 2}}
      on_down: reset
      backends: [10.2.0.11:8080, 10.2.0.12:8080]
"""
B1, B2, B3 = "10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080"
# fall x interval + timeout, one interval over, and a machine that is busy
SOON_S = 5.0


@pytest.fixture(params=["offload", "rewrite"])
def running(request, lab: Lab) -> Iterator[Balancer]:
    with balancing(lab, CONFIG.format(datapath=request.param)) as running:
        yield running


def state(running: Balancer, service: str, backend: str) -> str:
    rows = running.backends()
    return next(r["state"] for r in rows if (r["service"], r["backend"]) == (service, backend))


def wait_state(running: Balancer, backend: str, wanted: str, service: str = "web") -> None:
    wait_for(lambda: state(running, service, backend) == wanted, SOON_S, f"{backend} to be {wanted}")


def test_a_killed_server_gets_nothing_new_and_comes_back(lab, web, running):
    wait_for(lambda: set(shares([get(lab) for _ in range(4)])) == {"b1", "b2"}, SOON_S, "both")
    web["b1"].stop(signal.SIGKILL)
    wait_state(running, B1, "down")
    assert shares([get(lab) for _ in range(6)]) == {"b2": 6}
    assert "refused" in next(r["why"] for r in running.backends() if r["backend"] == B1)
    host = lab.host("b1")
    web["b1"] = host.popen([sys.executable, *web["b1"].args[-6:]])
    wait_state(running, B1, "up")
    assert set(shares([get(lab) for _ in range(6)])) == {"b1", "b2"}


def test_a_server_that_hangs_is_as_good_as_dead(lab, web, running):
    web["b2"].send_signal(signal.SIGSTOP)
    try:
        wait_state(running, B2, "down")
        assert shares([get(lab) for _ in range(4)]) == {"b1": 4}
    finally:
        web["b2"].send_signal(signal.SIGCONT)
    wait_state(running, B2, "up")


def test_a_host_that_is_gone_without_a_word_is_noticed(lab, web, running):
    host = lab.host("b2")
    host.run(["ip", "link", "set", "eth0", "down"])
    try:
        wait_state(running, B2, "down")
        assert shares([get(lab) for _ in range(4)]) == {"b1": 4}
    finally:
        host.run(["ip", "link", "set", "eth0", "up"])
        host.run(["ip", "route", "add", "default", "via", "10.2.0.1"], check=False)
        host.run(["ip", "-6", "addr", "add", "2001:db8:2::12/64", "dev", "eth0", "nodad"], check=False)
        host.run(["ip", "-6", "route", "add", "default", "via", "2001:db8:2::1"], check=False)
    wait_state(running, B2, "up")


def test_the_backup_stands_in_when_all_others_are_down(lab, web, running):
    assert state(running, "web", B3) == "backup"
    for name in ("b1", "b2"):
        web[name].stop(signal.SIGKILL)
    wait_state(running, B3, "up")
    assert shares([get(lab) for _ in range(4)]) == {"b3": 4}


def test_clients_tell_of_a_dead_backend_before_any_check(lab, web, running):
    """Passive: resets of new connections, or SYNs that have to be repeated."""
    web["b1"].stop(signal.SIGKILL)
    began = time.monotonic()
    refused = 0
    while state(running, "watched", B1) != "down":
        assert time.monotonic() < began + SOON_S
        try:
            get(lab, "203.0.113.20", timeout=1)
        except OSError:
            refused += 1
    assert refused >= 1
    assert shares([get(lab, "203.0.113.20") for _ in range(4)]) == {"b2": 4}


def test_connections_to_a_dead_backend_are_reset_if_so_configured(lab, web, running):
    import socket

    with lab.client.enter():
        socks = [socket.create_connection(("203.0.113.30", 80), timeout=5) for _ in range(6)]
    for sock in socks:
        sock.settimeout(5)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(4096)
    # Gone without a word: no host is there that could reset anything.
    host = lab.host("b1")
    host.run(["ip", "link", "set", "eth0", "down"])
    try:
        wait_state(running, B1, "down", "moving")
        ends = set()
        for sock in socks:
            try:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                ends.add("answered" if sock.recv(4096) else "closed")
            except ConnectionResetError:
                ends.add("reset")
            sock.close()
        assert ends == {"answered", "reset"}
    finally:
        host.run(["ip", "link", "set", "eth0", "up"])
        host.run(["ip", "route", "add", "default", "via", "10.2.0.1"], check=False)
        host.run(["ip", "-6", "addr", "add", "2001:db8:2::11/64", "dev", "eth0", "nodad"], check=False)
        host.run(["ip", "-6", "route", "add", "default", "via", "2001:db8:2::1"], check=False)


def test_a_replaced_program_remembers_who_is_down(lab, web, running):
    if running.status()["datapath"] != "offload":
        return
    web["b1"].stop(signal.SIGKILL)
    wait_state(running, B1, "down")
    running.command("backends", "drain", "web", B3)
    running.process.send_signal(signal.SIGUSR2)
    wait_for(lambda: "msg=replaced" in running.process.output(), 20, "the new program")
    wait_for(lambda: running.socket.exists(), 5, "its socket")
    assert state(running, "web", B1) == "down"
    assert state(running, "web", B3) == "draining"
    assert json.loads(running.command("status", "--json"))["trouble"] is None
    assert get(lab, VIP4) == "b2"
