"""HTTP through the gateway: nginx on every backend answers with 3 bytes, wrk asks.

Whoever closes first keeps the port in TIME_WAIT; with `close` that is nginx (towards a proxy: the proxy
towards the client, nginx towards the proxy), so neither the client nor a proxy runs out of ports, and a
returning port is accepted by its newer timestamp.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench import ours, peers
from tests.bench.errors import BenchError
from tests.bench.runner import Sample, Series, Settings, alternate, progress
from tests.bench.sides import Side
from tests.support.lab import Lab, Process, unique_prefix, wait_for

PORT = 80
WEB_PORT = 8080
BACKENDS = 3
CONNECTIONS = 32
THREADS = 2  # with one, wrk and not DNAT would be what is measured
_SYSCTLS = {
    "net.ipv4.tcp_tw_reuse": "1",
    "net.core.somaxconn": "4096",
    "net.ipv4.tcp_max_syn_backlog": "4096",
}


@dataclass(frozen=True, slots=True)
class Web:
    """A side that is up, in its lab: where the client asks, and the process that balances, if any."""

    lab: Lab
    address: str
    port: int
    process: Process | None

    @property
    def url(self) -> str:
        """What is asked for."""
        return f"http://{self.address}:{self.port}/"

    def measurement(self, seconds: float, *, close: bool) -> Callable[[], Sample]:
        """Asks for so long: requests a second, each on its own connection with `close`, and errors."""
        return lambda: self._ask(seconds, close=close)

    def wrk(self, seconds: float, *, close: bool) -> list[str]:
        """wrk's command line; it knows whole seconds."""
        header = ["-H", "Connection: close"] if close else []
        whole = max(1, round(seconds))
        return ["wrk", f"-t{THREADS}", f"-c{CONNECTIONS}", f"-d{whole}s", *header, self.url]

    def _ask(self, seconds: float, *, close: bool) -> Sample:
        said = self.lab.client.run(self.wrk(seconds, close=close), timeout=seconds + 20).stdout
        rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
        if rate is None:
            raise BenchError(f"wrk gave no rate: {said.strip()}")
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
        return {"per_s": float(rate[1]), "errors": float(sum(map(int, errors.groups()))) if errors else 0.0}


def measure_sides(
    every: Sequence[Side], settings: Settings
) -> tuple[dict[str, dict[str, Series]], dict[str, dict[str, Series]]]:
    """New connections, then requests on kept ones, of every side in turns: by quantity and side."""
    progress("bench: setting up")
    with contextlib.ExitStack() as stack:
        ready = {side.name: set_up(side, stack) for side in every}
        progress("\n")

        def measure(close: bool, what: str) -> dict[str, dict[str, Series]]:
            ways = {name: up.measurement(settings.seconds, close=close) for name, up in ready.items()}
            return alternate(ways, settings.runs, what)

        return measure(close=True, what="new connections,"), measure(close=False, what="requests,")


def set_up(side: Side, stack: contextlib.ExitStack, backends: int = BACKENDS) -> Web:
    """A side in a lab of its own, when the first answer has come."""
    progress(f" {side.name},")
    lab = stack.enter_context(Lab(unique_prefix("bench"), backends=backends))
    for host in (lab.client, lab.gateway, *lab.backends):
        for key, value in _SYSCTLS.items():
            host.run(["sysctl", "-qw", f"{key}={value}"], check=False)
    peers.start_web(lab, WEB_PORT)
    process = stack.enter_context(side.up(lab, [f"{host.v4}:{WEB_PORT}" for host in lab.backends]))
    address, port = (ours.VIP, PORT) if side.to_vip else (lab.backends[0].v4, WEB_PORT)
    web = Web(lab, address, port, process if isinstance(process, Process) else None)
    asked = ["curl", "-sS", "--max-time", "1", web.url]
    wait_for(
        lambda: lab.client.run(asked, check=False).stdout == "ok\n", 10, f"an answer through {side.name}"
    )
    return web
