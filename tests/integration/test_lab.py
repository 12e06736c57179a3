"""The lab itself: it carries packets, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.lab import ROOT, Lab, LabError, existing_labs, unique_prefix, wait_for
from tests.support.lab.lab import STATE
from tests.support.lab.namespace import DIRECTORY
from tests.support.scenarios import traffic

pytestmark = pytest.mark.root

# A run that is killed: it makes a lab with a server in it, says so, and waits for its end.
KILLED_RUN = """
import signal, sys
from tests.support import servers
from tests.support.lab import Lab

lab = Lab(sys.argv[1], backends=1)
lab.up()
servers.start_http(lab.host("b1")).wait_ready()
print("up", flush=True)
signal.pause()
"""


def traces(prefix: str) -> list[str]:
    """What there is of a lab on this machine."""
    found = [str(path) for path in (STATE / prefix,) if path.exists()]
    if DIRECTORY.is_dir():
        found += [str(path) for path in DIRECTORY.iterdir() if path.name.rpartition("-")[0] == prefix]
    return found


def namespace_of_this_thread() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


@pytest.fixture
def prefix() -> str:
    return unique_prefix("test")


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_the_client_reaches_every_backend(lab: Lab, family: str) -> None:
    for host in lab.backends:
        server = servers.start_echo(host)
        server.wait_ready()
        tally = traffic.send_datagrams(lab.client, getattr(host, family), servers.ECHO_PORT, 5)
        assert (tally.answered, tally.errors) == ({host.name: 5}, [])
        assert server.counts()["peers"] == 5
        server.process.stop()


@pytest.mark.parametrize("vip", ["203.0.113.77", "2001:db8:f::77"])
def test_a_virtual_address_is_routed_to_the_gateway(lab: Lab, vip: str) -> None:
    length = 128 if ":" in vip else 32
    lab.gateway.run(["ip", "addr", "add", f"{vip}/{length}", "dev", "lo"])
    server = servers.start_http(lab.gateway, 8000)
    server.wait_ready()
    tally = traffic.send_requests(lab.client, vip, 8000, 3)
    assert (tally.answered, tally.errors) == ({"gateway": 3}, [])
    server.process.stop()


def test_only_the_gateway_forwards(lab: Lab) -> None:
    forwarding = {
        name: host.run(["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout.strip()
        for name, host in lab.hosts.items()
    }
    assert [name for name, value in forwarding.items() if value == "1"] == ["gateway"]


def test_sockets_made_inside_belong_to_the_host_and_the_thread_comes_back(lab: Lab) -> None:
    before = namespace_of_this_thread()
    with lab.host("b2").enter():
        assert namespace_of_this_thread() == (DIRECTORY / lab.host("b2").namespace).stat().st_ino
        with lab.client.enter():
            assert namespace_of_this_thread() == (DIRECTORY / lab.client.namespace).stat().st_ino
        listener = socket.create_server((lab.host("b2").v4, 9000))
    assert namespace_of_this_thread() == before
    with listener, lab.client.enter(), socket.create_connection((lab.host("b2").v4, 9000), timeout=5) as sock:
        assert sock.getsockname()[0] == lab.client.v4
    assert 9000 not in lab.host("b2").listening()


def test_the_thread_comes_back_after_an_error(lab: Lab) -> None:
    before = namespace_of_this_thread()
    with pytest.raises(RuntimeError, match="on purpose"), lab.client.enter():
        raise RuntimeError("on purpose")
    assert namespace_of_this_thread() == before


def test_a_command_that_fails_says_where_and_why(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"-client: `ip link show nothing` exited with 1: .*does not exist"):
        lab.client.run(["ip", "link", "show", "nothing"])


def test_a_command_that_hangs_is_ended(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"`sleep 60` took longer than 0.2 s"):
        lab.client.run(["sleep", "60"], timeout=0.2)
    assert lab.client.pids() == set()


def test_waiting_for_a_program_that_has_ended_fails_at_once_with_what_it_said(lab: Lab) -> None:
    program = lab.client.popen([sys.executable, "-c", "raise SystemExit('no such luck')"])
    with pytest.raises(LabError, match=r"ended with 1: no such luck"):
        lab.client.wait_listening(1, process=program, timeout=60)


def test_an_unknown_host_is_named_with_those_that_exist(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"no host 'b4': it has client, gateway, lan, b1, b2, b3"):
        lab.host("b4")


def test_up_and_down_may_be_repeated(prefix: str) -> None:
    lab = Lab(prefix, backends=1)
    try:
        lab.down()
        lab.up()
        server = servers.start_http(lab.host("b1"))
        server.wait_ready()
        lab.up()
        assert server.process.poll() is not None
        assert lab.host("b1").pids() == set()
        assert existing_labs()[prefix] == ["b1", "client", "gateway", "lan"]
    finally:
        lab.down()
    lab.down()
    assert traces(prefix) == []


def test_offloads_can_be_off(prefix: str) -> None:
    with Lab(prefix, backends=1, offloads=False) as lab:
        shown = lab.gateway.run(["ethtool", "-k", "lan0"]).stdout
    assert "\ngeneric-segmentation-offload: off" in shown
    assert "\ntx-checksumming: off" in shown


def test_a_lab_beside_another_is_left_alone(prefix: str) -> None:
    with Lab(prefix, backends=1) as one, Lab(f"{prefix}-2", backends=1) as two:
        kept = servers.start_echo(two.host("b1"))
        kept.wait_ready()
        one.down()
        assert traces(prefix) == []
        tally = traffic.send_datagrams(two.client, two.host("b1").v4, servers.ECHO_PORT, 1)
        assert tally.answered == {"b1": 1}
    assert traces(f"{prefix}-2") == []


def test_what_a_killed_run_left_is_removed_by_its_prefix(prefix: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN, prefix],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        run.send_signal(signal.SIGKILL)
    left = Lab.attach(prefix)
    pids = left.host("b1").pids()
    assert len(pids) == 1
    left.down()
    assert traces(prefix) == []
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 5, "the server to be gone")


def test_a_failure_inside_leaves_nothing_behind(prefix: str) -> None:
    links = sorted(path.name for path in Path("/sys/class/net").iterdir())
    with pytest.raises(RuntimeError, match="on purpose"), Lab(prefix, backends=2) as lab:
        for host in lab.hosts.values():
            host.popen(["sleep", "600"])
        raise RuntimeError("on purpose")
    assert traces(prefix) == []
    assert sorted(path.name for path in Path("/sys/class/net").iterdir()) == links


def test_a_program_that_ignores_term_is_killed(prefix: str) -> None:
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)"
    with Lab(prefix, backends=1) as lab:
        program = lab.client.popen([sys.executable, "-c", f"{ignore}; time.sleep(600)"])
        wait_for(lambda: "deaf" in program.output(), 10, "the program to ignore SIGTERM")
        assert program.stop(timeout=0.2) == -signal.SIGKILL
    assert traces(prefix) == []
