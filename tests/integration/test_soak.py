"""Many changes, one after the other, under load: nothing fails that may not, and nothing is left behind.

What is done is drawn from a seed, which is printed on failure. `L4LB_SOAK_SECONDS` and `L4LB_SOAK_SEED`
choose how long and which.

* `calm`, asked by wrk on kept connections: weights, draining, enabling, disabling, a backend more, reloads.
  No request may fail.
* `bulk`, one stream of iperf3, which all changes leave alone. It may not end early.
* `rough`, whose servers are killed: until the checks have seen it, what goes to that server may fail; then
  nothing may.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from l4lb.net.client import Client
from tests.bench.usage import resident_mib
from tests.integration.gateway import balancing, get, serving
from tests.support.lab import Lab, Process, wait_for
from tests.support.scenarios.balancer import Balancer
from tests.support.wrk import faultless

pytestmark = [pytest.mark.root, pytest.mark.slow]

SECONDS = float(os.environ.get("L4LB_SOAK_SECONDS", "25"))
SEED = int(os.environ.get("L4LB_SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
VIP = "203.0.113.10"
CALM = ["10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080"]
ROUGH = ["10.2.0.11:8090", "10.2.0.12:8090", "10.2.0.13:8090"]
SPARE = "10.2.0.13:8081"
SOON_S = 10.0
MOST_GROWTH_MIB = 24.0


def config(weights: list[int]) -> str:
    calm = [{"address": name, "weight": weight} for name, weight in zip(CALM, weights, strict=True)]
    check = {"type": "tcp", "interval": "200ms", "timeout": "200ms", "rise": 1, "fall": 1}
    services = [
        {"name": "calm", "listen": f"{VIP}:80/tcp", "scheduler": "weighted-round-robin", "backends": calm},
        {"name": "bulk", "listen": f"{VIP}:5201/tcp", "backends": ["10.2.0.11:5201"]},
        {"name": "rough", "listen": f"{VIP}:90/tcp", "health": check, "backends": ROUGH},
        {"name": "idle", "listen": f"{VIP}:99/udp", "backends": ["10.2.0.11:99"]},
    ]
    return json.dumps({"l4": {"services": services}})


class Soak:
    """One run: what may be done, and the load around it."""

    def __init__(self, lab: Lab, running: Balancer) -> None:
        self.lab = lab
        self.running = running
        self.random = random.Random(SEED)
        self.done: list[str] = []
        self.rough: dict[str, Process] = {host.name: self._serve(host.name) for host in lab.backends}

    def changes(self) -> dict[str, Callable[[], None]]:
        return {
            "weight": self.weight,
            "out and in": self.out_and_in,
            "more and less": self.more_and_less,
            "reload": self.reload,
            "reload of nothing": self.reload_of_nothing,
            "flush of nothing": lambda: self.ask("/flows/flush", service="idle"),
            "kill": self.kill,
        }

    def ask(self, route: str, **body: object) -> None:
        """What a command asks of the daemon; a program's start takes longer than most changes."""
        self.done.append(f"{route} {body}")
        Client(self.running.socket).post(route, body)

    def change(self, action: str, backend: str, **more: int) -> None:
        self.ask(f"/backends/{action}", service="calm", backend=backend, **more)

    def weight(self) -> None:
        self.change("weight", self.random.choice(CALM), weight=self.random.randint(1, 9))

    def out_and_in(self) -> None:
        """Drained or disabled, perhaps two at once, and back."""
        names = self.random.sample(CALM, self.random.randint(1, 2))
        for name in names:
            self.change(self.random.choice(["drain", "disable"]), name)
        for name in names:
            self.change("enable", name)

    def more_and_less(self) -> None:
        """A backend that gets no flow, since its weight is 0, comes and goes."""
        self.change("add", SPARE, weight=0)
        self.change("remove", SPARE)

    def reload(self) -> None:
        weights = [self.random.randint(1, 9) for _ in CALM]
        (self.lab.gateway.directory / "l4lb.yaml").write_text(config(weights))
        self.ask("/reload")

    def reload_of_nothing(self) -> None:
        self.ask("/reload")

    def kill(self) -> None:
        """A server dies: as soon as it is down no request meets it; as soon as it is up again it serves."""
        host = self.random.choice(self.lab.backends)
        backend = f"{host.v4}:8090"
        self.done.append(f"kill {backend}")
        self._wait(backend, "up")
        self.rough[host.name].stop(signal.SIGKILL)
        self._wait(backend, "down")
        assert host.name not in {get(self.lab, VIP, 90) for _ in range(10)}
        self.rough[host.name] = self._serve(host.name)
        self._wait(backend, "up")
        for _ in range(5):
            get(self.lab, VIP, 90)

    def _serve(self, name: str) -> Process:
        host = self.lab.host(name)
        words = ["-m", "tests.support.http_server", "--name", name, "--port", "8090"]
        process = host.popen([sys.executable, *words])
        host.wait_listening(8090, process=process)
        return process

    def _wait(self, backend: str, state: str) -> None:
        def is_so() -> bool:
            rows = self.running.backends()
            return any(row["backend"] == backend and row["state"] == state for row in rows)

        wait_for(is_so, SOON_S, f"{backend} to be {state}")


@pytest.fixture
def soak(lab: Lab) -> Iterator[Soak]:
    with serving(lab), balancing(lab, config([1, 1, 1])) as running:
        bulk = lab.backends[0].popen(["iperf3", "--server"])
        lab.backends[0].wait_listening(5201, process=bulk)
        soak = Soak(lab, running)
        try:
            yield soak
        finally:
            for process in (bulk, *soak.rough.values()):
                process.stop(signal.SIGKILL)


def test_changes_under_load(lab, soak):
    print(f"L4LB_SOAK_SEED={SEED}")
    for name in ("rough", "calm"):
        wait_for(
            lambda port={"rough": 90, "calm": 80}[name]: get(lab, VIP, port), SOON_S, f"{name} to answer"
        )
    before = resident_mib(soak.running.process.pid)
    whole = round(SECONDS) + 3
    wrk = lab.client.popen(["wrk", "-t1", "-c16", f"-d{whole}s", f"http://{VIP}/"], stdout=subprocess.PIPE)
    stream = ["iperf3", "--client", VIP, "--bitrate", "200M", "--time", str(whole), "--json"]
    iperf = lab.client.popen(stream, stdout=subprocess.PIPE)
    changes = soak.changes()
    end = time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            name = soak.random.choice(sorted(changes))
            changes[name]()
        said, _ = wrk.communicate(timeout=SOON_S + whole)
        sent = json.loads(iperf.communicate(timeout=SOON_S + whole)[0])
    except BaseException:
        print(f"after {len(soak.done)} changes, the last: {soak.done[-5:]}")
        raise
    assert len(soak.done) >= SECONDS
    assert faultless(said) > 100
    assert "error" not in sent and sent["end"]["sum_received"]["seconds"] >= whole - 1
    is_consistent(soak.running)
    assert resident_mib(soak.running.process.pid) - before < MOST_GROWTH_MIB


def is_consistent(running: Balancer) -> None:
    """Counters agree with each other and with the end of all connections."""

    def nothing_open() -> bool:
        return not any(row["active"] for row in running.backends())

    wait_for(nothing_open, SOON_S, "all connections to be seen to end")
    status, rows = running.status(), running.backends()
    assert status["undecided"] == 0 and status["trouble"] is None
    assert status["reasons"]["malformed"] == status["reasons"]["no_backend"] == 0
    assert sum(row["flows"] for row in rows) == status["flows"]
    assert sum(row["scheduled"] for row in rows) >= status["reasons"]["scheduled"] > 0
    assert {row["backend"] for row in rows} == {*CALM, *ROUGH, "10.2.0.11:5201", "10.2.0.11:99"}
    assert {row["state"] for row in rows} == {"up"}
