"""Answers of mixed sizes for a long time, half of it with a reload every other second: nothing fails, and
memory stays what it was. `L4LB_SOAK_SECONDS` says how long.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import Any

import pytest

from tests.bench.usage import resident_mib
from tests.support.lab import wait_for
from tests.support.nginx import start_nginx
from tests.support.proxy import Program, Proxy, Site, start_program
from tests.support.speaking import speak
from tests.support.wrk import faultless

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("L4LB_SOAK_SECONDS", "6"))
BETWEEN_RELOADS_S = 2.0
CONNECTIONS = 32
SIZES = (0, 100, 100, 1_000, 10_000, 10_000, 100_000, 1_000_000)
MOST_GROWTH_MIB = 16.0
PORT, NGINX = 8000, 8081
WRK = """
local sizes = {%s}
request = function() return wrk.format("GET", "/" .. sizes[math.random(#sizes)]) end
"""


def config(site: Site, weight: int) -> dict[str, Any]:
    return {
        "workers": 2,
        "access_log": False,
        "listeners": [{"name": "web", "listen": f"{site.address}:{PORT}"}],
        "routes": [{"name": "all", "match": {"path": "/"}, "pool": "web"}],
        "pools": {"web": {"backends": [{"address": f"{site.address}:{NGINX}", "weight": weight}]}},
    }


@pytest.fixture
def proxy(site: Site) -> Proxy:
    """Before nginx, which has a file of each size."""
    www = site.directory / "www"
    www.mkdir()
    for size in set(SIZES):
        (www / str(size)).write_bytes(bytes(size))
    (site.directory / "sizes.lua").write_text(WRK % ", ".join(map(str, SIZES)))
    server = f"server {{ listen {site.address}:{NGINX}; root {www}; }}"
    start_nginx(site, "nginx", f"sendfile on; keepalive_requests 1000000; {server}", NGINX)
    proxy = site.start_proxy(config(site, 1))
    wait_for(lambda: _answers(site), 10, "the proxy to answer")
    return proxy


def _answers(site: Site) -> bool:
    return speak((site.address, PORT), b"GET /0 HTTP/1.0\r\n\r\n").statuses == [200]


def start_load(site: Site, seconds: float, log: str) -> Program:
    """wrk, which says how many failed."""
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(round(seconds), 1)}s", "--timeout", "20s"]
    argv += ["-s", str(site.directory / "sizes.lua"), f"http://{site.address}:{PORT}"]
    program = start_program(argv, site.directory / log)
    site.programs.append(program)
    return program


def answered(load: Program) -> int:
    """How many requests were answered; fails where one failed."""
    assert load.process.wait(SECONDS + 60) == 0
    return faultless(load.output())


def test_nothing_fails_and_nothing_grows(site: Site, proxy: Proxy) -> None:
    master = proxy.process.pid
    load = start_load(site, SECONDS / 2, "reloading.log")
    reloads, before = 0, resident_mib(master)
    while load.process.poll() is None:
        proxy.write(config(site, 2 + reloads % 2))
        proxy.reload()
        reloads += 1
        with suppress(subprocess.TimeoutExpired):
            load.process.wait(BETWEEN_RELOADS_S)
    requests = answered(load)
    wait_for(lambda: not proxy.status()["leaving_generations"], 30, "the old workers to end")
    assert resident_mib(master) - before < MOST_GROWTH_MIB

    load = start_load(site, SECONDS / 2, "quiet.log")
    workers = [row["pid"] for row in proxy.status()["workers"]]
    counted = proxy.status()["counters"]["requests"]
    wait_for(
        lambda: proxy.status()["counters"]["requests"] > counted + 1000 or load.process.poll() is not None,
        30,
        "a load that runs",
    )
    before = sum(map(resident_mib, workers))
    requests += answered(load)
    assert sum(map(resident_mib, workers)) - before < MOST_GROWTH_MIB
    status = proxy.status()
    assert status["restarts"] == 0
    # What was under way when wrk ended is counted here alone.
    assert 0 <= status["counters"]["requests"] - requests <= 4 * CONNECTIONS
    assert set(status["counters"]["ends"]) <= {"done", "client-closed"}
    print(f"{requests} requests, {reloads} reloads")
