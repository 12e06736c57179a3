"""Clients that are slow on purpose (slowhttptest): ended, counted, and nobody else waits for them."""

from __future__ import annotations

import shutil
import time
import urllib.request
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.support.lab import wait_for
from tests.support.proxy import Program, Proxy, Site, start_program

pytestmark = pytest.mark.skipif(
    shutil.which("slowhttptest") is None, reason="slowhttptest is missing: run `scripts/setup`"
)
PORT = 8000
TIMEOUT_S = 2
LONGEST_S = 60
LARGE = 4_000_000
ATTACKS = {
    "header-timeout": ["-H", "-i", "1"],
    "body-timeout": ["-B", "-i", "10", "-s", "10000"],
    "write-timeout": ["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "5", "-k", "1"],
}
# Readers are fewer: each is sent megabytes before it shows that it is slow.
CONNECTIONS = {"header-timeout": 300, "body-timeout": 300, "write-timeout": 50}
LISTEN, TIME_WAIT = "0A", "06"
BYTES_A_CONNECTION = 200_000
"""That workers may grow by. What a slow reader has not taken is the most: the buffers below it."""


def config(site: Site, timeout_s: int) -> dict[str, Any]:
    """Those who are slow have a backend of their own, for it is the proxy that is looked at."""
    backends = {name: site.start_origin(name, port).endpoint for name, port in (("b1", 8081), ("b2", 8082))}
    times = dict.fromkeys(("header", "body", "write"), f"{timeout_s}s")
    return {
        "workers": 2,
        "access_log": False,
        "listeners": [{"name": "web", "listen": f"{site.address}:{PORT}"}],
        "defaults": {"timeouts": times},
        "routes": [{"match": {"path": {"exact": "/"}}, "pool": "b1"}, {"pool": "b2"}],
        "pools": {name: {"backends": [endpoint]} for name, endpoint in backends.items()},
    }


def attack(site: Site, connections: dict[str, int]) -> dict[str, Program]:
    """All attacks at once, by what shall end them."""
    programs = {}
    for reason, words in ATTACKS.items():
        path = f"/bytes/{LARGE}" if reason == "write-timeout" else "/echo"
        count = str(connections[reason])
        argv = ["slowhttptest", "-c", count, "-r", count, "-l", str(LONGEST_S), *words]
        argv += ["-u", f"http://{site.address}:{PORT}{path}", "-v", "1"]
        programs[reason] = start_program(argv, site.directory / f"{reason}.log")
        site.programs.append(programs[reason])
    return programs


def ask_until(site: Site, is_over: Callable[[], bool]) -> list[float]:
    """Asks as others do, one request after the other; how long each took, in seconds."""
    took_s: list[float] = []
    end_s = time.monotonic() + LONGEST_S
    while time.monotonic() < end_s and (len(took_s) % 10 or not is_over()):
        began_s = time.monotonic()
        with urllib.request.urlopen(f"http://{site.address}:{PORT}/", timeout=10) as answer:
            assert answer.read() == b"b1\n"
        took_s.append(time.monotonic() - began_s)
    return took_s


def kept_by_kernel(site: Site) -> int:
    """Connections to the proxy that the kernel knows, also those that nobody owns any more."""
    here = f"{int.from_bytes(IPv4Address(site.address).packed, 'little'):08X}:{PORT:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1] == here and row[3] not in (LISTEN, TIME_WAIT) for row in rows)


def resident(proxy: Proxy) -> int:
    """Bytes of all workers in memory."""
    pages = [
        int(Path(f"/proc/{row['pid']}/statm").read_text().split()[1]) for row in proxy.status()["workers"]
    ]
    return sum(pages) * 4096


def ends(proxy: Proxy) -> dict[str, int]:
    """How many were ended by each time-out; who took nothing and who took a little are one."""
    counted = proxy.status()["counters"]["ends"]
    counted["write-timeout"] = counted.get("write-timeout", 0) + counted.pop("write-too-slow", 0)
    return {reason: counted.get(reason, 0) for reason in ATTACKS}


def test_slow_clients_are_ended_and_nobody_waits_for_them(site: Site) -> None:
    proxy = site.start_proxy(config(site, TIMEOUT_S))
    before = resident(proxy)
    programs = attack(site, CONNECTIONS)
    took_s = ask_until(site, lambda: ends(proxy) == CONNECTIONS)
    assert ends(proxy) == CONNECTIONS
    assert len(took_s) > 20 and median(took_s) < 0.1 and max(took_s) < 5
    assert resident(proxy) - before < sum(CONNECTIONS.values()) * BYTES_A_CONNECTION
    # Nothing stays behind, not even in the kernel: what slow readers have not taken went with a reset.
    wait_for(lambda: proxy.status()["counters"]["connections_open"] == 0, 10, "all connections to end")
    wait_for(lambda: kept_by_kernel(site) == 0, 10, "the kernel to forget them")
    for reason in ("header-timeout", "body-timeout"):
        assert programs[reason].process.wait(LONGEST_S) == 0
        assert "No open connections left" in programs[reason].output()
    assert proxy.status()["restarts"] == 0
