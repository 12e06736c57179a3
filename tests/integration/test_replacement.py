"""SIGUSR2: the program is replaced, flows and queued packets stay."""

from __future__ import annotations

import http.client
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.integration.gateway import balancing, get, serving
from tests.integration.under_load import requesting, transferring
from tests.support.lab import Lab, wait_for
from tests.support.scenarios.balancer import start

pytestmark = pytest.mark.root
CONFIG = """
l4:
  datapath: {datapath}
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: round-robin
      backends: [10.2.0.11:8080, 10.2.0.12:8080, 10.2.0.13:8080]
    - name: bulk
      listen: 203.0.113.10:8001/tcp
      scheduler: source-hash
      backends: [10.2.0.11, 10.2.0.12, 10.2.0.13]
    - name: full
      listen: 203.0.113.11:80/tcp
      forward: masquerade
      backends: [10.2.0.11:8080]
"""
TIMES = {"offload": 5, "rewrite": 2}


def replace(running) -> None:
    """Sends SIGUSR2 and waits until the new program says that it has taken over."""
    before = running.process.output().count("msg=replaced")
    os.kill(running.process.pid, signal.SIGUSR2)

    def replaced() -> bool:
        running.process.check_running()
        return running.process.output().count("msg=replaced") > before

    wait_for(replaced, 20, "the replacement")
    wait_for(lambda: running.socket.exists(), 10, "the admin socket")


@pytest.mark.parametrize("datapath", TIMES)
def test_replacements_under_load_fail_no_request_and_break_no_transfer(lab: Lab, datapath):
    with serving(lab, udp=()), balancing(lab, CONFIG.format(datapath=datapath)) as running:
        pid = running.status()["pid"]
        with transferring(lab, 8001, pauses=True), requesting(lab):
            wait_for(lambda: running.status()["flows"] >= 17, 10, "the load to begin")
            before = running.status()
            for _ in range(TIMES[datapath]):
                replace(running)
            after = running.status()
        # Round-robin would send a flow that was forgotten elsewhere, and the server there would reset it.
        assert after["pid"] == pid
        assert after["flows"] >= 17
        assert after["reasons"]["flow"] > before["reasons"]["flow"] or datapath == "offload"


def test_a_masqueraded_connection_goes_on(lab: Lab):
    with serving(lab, udp=()), balancing(lab, CONFIG.format(datapath="mark")) as running:
        with lab.client.enter():
            connection = http.client.HTTPConnection("203.0.113.11", 80, timeout=5)
            connection.request("GET", "/")
            connection.getresponse().read()
        replace(running)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"b1\n"
        connection.close()
        assert get(lab, "203.0.113.11") == "b1"


def test_a_configuration_that_is_wrong_leaves_the_old_program_running(lab: Lab):
    path = lab.gateway.directory / "l4lb.yaml"
    with serving(lab, udp=()), balancing(lab, CONFIG.format(datapath="mark")) as running:
        path.write_text("l4: {services: wrong}\n")
        said = len(running.process.output())
        os.kill(running.process.pid, signal.SIGUSR2)
        wait_for(lambda: "replacement failed" in running.process.output()[said:], 10, "the refusal")
        assert get(lab) in {"b1", "b2", "b3"}
        assert "l4.services" in running.process.output()


RUN_TIME_CONFIG = """
l4:
  datapath: mark
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: round-robin
      backends: [10.2.0.11:8080, 10.2.0.12:8080]
    - name: sticky
      listen: 203.0.113.12:80/tcp
      scheduler: round-robin
      affinity: {by: client-ip, timeout: 10m}
      backends: [10.2.0.11:8080, 10.2.0.12:8080, 10.2.0.13:8080]
    - name: checked
      listen: 203.0.113.13:80/tcp
      slow_start: 1h
      health: {type: tcp, interval: 200ms, timeout: 100ms, rise: 1, fall: 1}
      backends: [10.2.0.11:8081, 10.2.0.12:8080]
    - name: watched
      listen: 203.0.113.14:80/tcp
      passive: {failures: 1, inhibit: 1h, longest: 1h}
      backends: [10.2.0.11:8080]
"""


def rows(running) -> dict[tuple[str, str], tuple[str, int]]:
    """State and weight of every backend."""
    return {(r["service"], r["backend"]): (r["state"], r["weight"]) for r in running.backends()}


def test_what_was_done_at_run_time_and_what_was_learned_stays(lab: Lab):
    checked = ("checked", "10.2.0.11:8081")
    with serving(lab, udp=()), balancing(lab, RUN_TIME_CONFIG) as running:
        wait_for(lambda: rows(running)[checked][0] == "down", 10, "the check to fail")
        with lab.host("b1").enter(), socket.create_server(("", 8081)):
            wait_for(lambda: rows(running)[checked][0] == "starting", 10, "the check to succeed")
            running.command("backends", "add", "web", "10.2.0.13:8080", "--weight", "3")
            running.command("backends", "remove", "web", "10.2.0.11:8080")
            running.command("backends", "drain", "web", "10.2.0.12:8080")
            client = get(lab, "203.0.113.12")
            # Nobody answers for a while: one SYN that is repeated takes the backend out.
            rules = "type filter hook forward priority 0; ip daddr 10.2.0.11 tcp dport 8080 drop;"
            lab.gateway.run(["nft", f"table inet silence {{ chain forward {{ {rules} }}; }}"])
            with pytest.raises(TimeoutError):
                get(lab, "203.0.113.14", timeout=2)
            lab.gateway.run(["nft", "delete", "table", "inet", "silence"])
            wait_for(lambda: rows(running)["watched", "10.2.0.11:8080"][0] == "down", 10, "it to be out")
            before, seen = running.status(), rows(running)
            assert seen["web", "10.2.0.12:8080"][0] == "draining"
            replace(running)
            assert rows(running) == seen
            assert running.status()["uptime_s"] >= before["uptime_s"]
            assert {get(lab) for _ in range(4)} == {"b3"}
            # Round-robin would send them to all three.
            assert {get(lab, "203.0.113.12") for _ in range(6)} == {client}
            assert running.status()["reasons"]["affinity"] == before["reasons"]["affinity"] + 6
            running.command("backends", "enable", "web", "10.2.0.12:8080")
            assert {get(lab) for _ in range(8)} == {"b2", "b3"}
            # Passive checks and active ones go on, from what was believed.
            assert rows(running)["watched", "10.2.0.11:8080"][0] == "down"
        wait_for(lambda: rows(running)[checked][0] == "down", 10, "the check to fail again")
        running.command("reload")
        assert {name for service, name in rows(running) if service == "web"} == {
            "10.2.0.11:8080",
            "10.2.0.12:8080",
        }


def test_a_program_that_cannot_take_over_says_why_and_the_next_run_can(lab: Lab):
    """`check` asks nothing of the host, so the new program may meet what the old one did not."""
    text = "l4:\n  vip_interface: {}\n" + CONFIG.format(datapath="offload").partition("l4:\n")[2]
    path = Path(lab.gateway.directory) / "l4lb.yaml"
    lab.gateway.run(["ip", "link", "add", "vips", "type", "veth", "peer", "name", "nobody"])
    with serving(lab, udp=()):
        path.write_text(text.format("vips"))
        running = start(lab.gateway, path)
        assert get(lab) in {"b1", "b2", "b3"}
        lab.gateway.run(["ip", "link", "del", "vips"])
        os.kill(running.process.pid, signal.SIGUSR2)
        assert running.process.wait(20) == 1
        assert "l4.vip_interface: there is no interface vips" in running.process.output()
        assert "Traceback" not in running.process.output()
        with pytest.raises(TimeoutError):  # dropped by the rules, as `on_failure` says; not reset
            get(lab, timeout=0.5)
        path.write_text(text.format("lo"))
        running = start(lab.gateway, path)
        assert get(lab) in {"b1", "b2", "b3"}
        running.stop()
    assert "l4lb" not in lab.gateway.run(["nft", "list", "tables"]).stdout
