"""Metrics, rates, traces and captures of real traffic."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import TCP
from scapy.utils import PcapNgReader

from l4lb.errors import L4lbError
from l4lb.net.metrics import MetricsSite, read_process
from tests.integration.gateway import VIP4, VIP6, ask, balancing, get, serving
from tests.support.lab import Lab
from tests.support.scenarios.balancer import PROGRAM, Balancer
from tests.unit.test_metrics import parse, value

CONFIG = """
l4:
  datapath: {datapath}
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: round-robin
      backends: [10.2.0.11:8080, 10.2.0.12:8080, 10.2.0.13:8080]
    - name: echo
      listen: 203.0.113.10:7/udp
      scheduler: round-robin
      backends: [10.2.0.11:7, 10.2.0.12:7, 10.2.0.13:7]
    - name: web6
      listen: "[2001:db8:f::10]:80/tcp"
      backends: ["[2001:db8:2::11]:8080"]
    - name: closed
      listen: 203.0.113.10:8080/tcp
      deny: [10.1.0.0/16]
      backends: [10.2.0.11:8081]
"""


@pytest.fixture(scope="module", params=["offload", "rewrite"])
def running(request, lab) -> Balancer:
    with serving(lab), balancing(lab, CONFIG.format(datapath=request.param)) as running:
        yield running


class Watching:
    """`l4lb trace` or `capture` beside what happens in the lab."""

    def __init__(self, running: Balancer, *words: str | Path) -> None:
        self.process = running.host.popen(
            [PROGRAM, "--socket", running.socket, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.said = self.process.stderr.readline()

    def rows(self) -> list[dict]:
        """What it has printed, as soon as it has ended."""
        out, rest = self.process.communicate(timeout=20)
        self.said += rest
        assert self.process.returncode == 0, self.said
        return [json.loads(line) for line in out.splitlines()]


@pytest.mark.root
class TestMetrics:
    def test_what_was_served_is_counted(self, lab, running):
        before = parse(running.command("metrics"))
        for _ in range(3):
            get(lab)
            ask(lab)
        after = parse(running.command("metrics"))
        web = {"service": "web", "backend": "10.2.0.12:8080"}
        name = "l4lb_backend_new_flows_total"
        assert value(after, name, **web) == value(before, name, **web) + 1
        assert value(after, "l4lb_ready") == 1
        assert value(after, "l4lb_backend_packets_total", **web, direction="out") > 0
        assert 10e6 < value(after, "process_resident_memory_bytes") < 1e9
        assert abs(value(after, "process_start_time_seconds") - time.time()) < 120


@pytest.mark.root
class TestTrace:
    def test_a_connection_from_its_syn_to_its_end(self, lab, running):
        watching = Watching(running, "trace", "--json", "--service", "web", "--seconds", "3")
        name = get(lab)
        rows = watching.rows()
        assert rows[0]["flags"] == "S" and rows[0]["reason"] == "scheduled" and rows[0]["known"]
        assert {row["backend"] for row in rows} == {f"10.2.0.1{name[1]}:8080"}
        assert {row["reason"] for row in rows[1:]} == {"flow"}
        assert {row["listen"] for row in rows} == {f"{VIP4}:80/tcp"}
        assert any("P" in row["flags"] and row["payload"] > 0 for row in rows)
        assert rows == sorted(rows, key=lambda row: row["time"])
        assert abs(rows[0]["time"] - time.time()) < 30
        assert "0 came too fast" in watching.said

    def test_both_families_and_datagrams_for_people(self, lab, running):
        watching = Watching(running, "trace", "--seconds", "3")
        get(lab, VIP6)
        ask(lab, payload=b"12345")
        out, _ = watching.process.communicate(timeout=20)
        assert f"→ [{VIP6}]:80/tcp S 0 B  forward scheduled → [2001:db8:2::11]:8080 (web6)" in out
        assert f"→ {VIP4}:7/udp - 5 B  forward scheduled → 10.2.0.1" in out

    def test_why_a_client_gets_no_answer(self, lab, running):
        watching = Watching(running, "trace", "--json", "--count", "1", "--reason", "denied")
        get(lab)
        with pytest.raises(TimeoutError):
            get(lab, port=8080, timeout=0.5)
        (row,) = watching.rows()
        assert (row["service"], row["verdict"], row["backend"]) == ("closed", "drop", None)

    def test_filters(self, lab, running):
        words = ("--json", "--seconds", "3", "--client", "10.1.0.0/24", "--backend", "10.2.0.13:7")
        watching = Watching(running, "trace", *words)
        other = Watching(running, "trace", "--json", "--seconds", "3", "--client", "192.0.2.0/24")
        for _ in range(6):
            ask(lab)
        assert [row["backend"] for row in watching.rows()] == ["10.2.0.13:7"] * 2
        assert other.rows() == []

    def test_what_comes_too_fast_is_left_out_counted_and_harmless(self, lab, running):
        watching = Watching(running, "trace", "--json", "--seconds", "4", "--rate", "20", "--service", "echo")
        with lab.client.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((VIP4, 7))
            for _ in range(3000):
                sock.send(b"x")
        rows = watching.rows()
        assert 0 < len(rows) <= 20 * 4 + 2
        left_out = int(watching.said.rpartition("; ")[2].split()[0])
        assert left_out > 1000
        assert running.status()["undecided"] == 0

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--client", "10.1.0"), "no address or network"),
            (("--reason", "sleepy"), "there are denied, flow"),
            (("--service", "none"), "there is no such service"),
        ],
    )
    def test_what_makes_no_sense_ends_with_2(self, running, words, says):
        watching = Watching(running, "trace", *words)
        assert watching.process.wait(timeout=20) == 2
        assert says in watching.said
        watching.process.communicate()


@pytest.mark.root
def test_a_capture_has_decisions_and_can_be_replayed(lab: Lab, running: Balancer, tmp_path: Path):
    path = tmp_path / "web.pcapng"
    watching = Watching(running, "capture", path, "--json")
    for _ in range(6):
        get(lab)
    time.sleep(0.5)
    watching.process.send_signal(signal.SIGINT)
    (report,) = watching.rows()
    with PcapNgReader(str(path)) as reader:
        packets = list(reader)
    assert len(packets) == report["packets"] >= 6 * 4
    syns = [packet for packet in packets if packet[TCP].flags == "S"]
    assert len(syns) == 6
    for packet in syns:
        comment = packet.comment.decode()
        assert comment.startswith("l4lb verdict=forward reason=scheduled service=web backend=10.2.0.1")
    config = Path(lab.gateway.directory) / "l4lb.yaml"
    replayed = json.loads(running.command("replay", str(path), "-c", str(config), "--json"))
    assert replayed["reasons"]["scheduled"] == 6
    assert [row["flows"] for row in replayed["backends"] if row["service"] == "web"] == [2, 2, 2]


@pytest.mark.root
class TestTop:
    def test_once_prints_rates(self, running):
        shown = running.command("top", "--interval", "0.2")
        assert "web" in shown and "10.2.0.13:8080" in shown and "PACKETS IN/s" in shown

    def test_json_an_object_each_interval(self, lab, running):
        process = running.host.popen(
            [PROGRAM, "--socket", running.socket, "top", "--json", "--interval", "0.5"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        lines = []
        for _ in range(4):
            for _ in range(5):
                get(lab)
            lines.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10)[1] == ""
        assert process.returncode == 0
        web = [
            row for line in lines for row in line["rows"] if (row["service"], row["backend"]) == ("web", None)
        ]
        assert len(web) == 4
        assert sum(row["new_flows_per_s"] for row in web) > 0

    def test_live_on_a_terminal_until_q(self, running):
        controller, terminal = pty.openpty()
        process = running.host.popen(
            [PROGRAM, "--socket", running.socket, "top", "--interval", "0.2"],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "180", "LINES": "40"},
        )
        os.close(terminal)
        shown = b""
        while b"BACKEND \xe2\x96\xbe" not in shown:
            shown += os.read(controller, 65536)
        os.write(controller, b"ss")
        while b"NEW/s \xe2\x96\xbe" not in shown:
            shown += os.read(controller, 65536)
        os.write(controller, b"jkq")
        try:
            while chunk := os.read(controller, 65536):
                shown += chunk
        except OSError:  # the terminal's other end is closed
            pass
        assert process.wait(timeout=10) == 0
        assert b"10.2.0.11:8080" in shown
        os.close(controller)


def scrape(port: int) -> tuple[str, str]:
    """Type and text of the metrics on a port of this host."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in held:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in held]


def test_metrics_on_tcp_move_and_stay_where_they_are_if_they_cannot():
    first, second, taken = free_ports(3)
    local = ip_address("127.0.0.1")
    kind, text = "text/plain; version=0.0.4; charset=utf-8", "l4lb_up 1\n"

    async def play() -> None:
        site = MetricsSite(lambda: text)
        await site.move((local, first))
        assert await asyncio.to_thread(scrape, first) == (kind, text)
        # The same port on more addresses is free as soon as it has been given up.
        await site.move((ip_address("0.0.0.0"), first))
        assert await asyncio.to_thread(scrape, first) == (kind, text)
        await site.move((local, second))
        assert await asyncio.to_thread(scrape, second) == (kind, text)
        with pytest.raises(urllib.error.URLError, match="refused"):
            await asyncio.to_thread(scrape, first)
        with socket.create_server(("127.0.0.1", taken)):
            why = rf"l4\.metrics: 127\.0\.0\.1:{taken}: cannot be listened on"
            with pytest.raises(L4lbError, match=why):
                await site.move((local, taken))
            assert await asyncio.to_thread(scrape, second) == (kind, text)
        await site.move(None)
        with pytest.raises(urllib.error.URLError, match="refused"):
            await asyncio.to_thread(scrape, second)

    asyncio.run(play())


def test_what_a_process_costs():
    process = read_process()
    assert process.cpu_s > 0 and process.resident_bytes > 1 << 20 and process.open_files >= 3
    assert 0 <= time.time() - process.started_s < 24 * 3600
