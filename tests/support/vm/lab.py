"""What tests and benchmarks do in the machines: who answers the client, how the gateway is configured."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.support.vm.machines import PROJECT, Machine
from tests.support.vm.steps import VmLabError

VIP = "203.0.113.10"
T = TypeVar("T")

GUEST = Path(__file__).parent / "guest"
"""Programs that run in the machines."""
_ADMIN = "curl -sS --fail --unix-socket /run/l4lb/l4lb.sock"

# A start takes the emulated gateway ten seconds and more; what may change while it runs is a reload. Flows of
# before are forgotten, as they would be by a start.
_BALANCE = f"""
before=$(grep -m1 datapath: /etc/l4lb/l4lb.yaml)
cat /etc/l4lb/next.yaml >/etc/l4lb/l4lb.yaml
if [ "$before" = "$(grep -m1 datapath: /etc/l4lb/l4lb.yaml)" ] && systemctl --quiet is-active l4lb; then
    {_ADMIN} -X POST http://l4lb/reload && {_ADMIN} -d '{{"service": "web"}}' http://l4lb/flows/flush
else
    systemctl reset-failed l4lb
    systemctl restart l4lb
fi
"""


def wait_until(what: str, look: Callable[[], T], *, within_s: float = 60) -> T:
    """What `look` finds as soon as it is true; VmLabError that names `what` otherwise. Machines that are
    emulated are slow, and a look goes over ssh: ten times a second is often enough."""
    until_s = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > until_s:
            raise VmLabError(f"waited {within_s:.0f} s for {what}")
        time.sleep(0.1)


class VmLab:
    """The machines by their roles."""

    def __init__(self, backends: int = 2) -> None:
        self.gateway = Machine("gateway")
        self.client = Machine("client")
        self.backends = [Machine(f"web{n}") for n in range(1, backends + 1)]
        self._answers_by: dict[str, str] = {}
        self._digests: set[str] = set()

    @property
    def machines(self) -> list[Machine]:
        """All of them."""
        return [self.gateway, self.client, *self.backends]

    # -- the gateway

    def balance(self, config: str, *, datapath: str = "auto") -> None:
        """Runs the service with one of `vagrant/config`, or with a whole configuration, and without flows."""
        text = config if "\n" in config else (PROJECT / "config" / f"{config}.yaml").read_text()
        self.gateway.write("/etc/l4lb/next.yaml", text.replace("l4:\n", f"l4:\n  datapath: {datapath}\n", 1))
        self.gateway.run(_BALANCE, timeout_s=180)

    def reload(self, config: str) -> None:
        """Changes the configuration of the service that runs; flows stay."""
        self.gateway.write("/etc/l4lb/l4lb.yaml", config.replace("l4:\n", "l4:\n  datapath: auto\n", 1))
        self.gateway.run(f"{_ADMIN} -X POST http://l4lb/reload")

    def l4lb(self, words: str) -> Any:
        """What a command of l4lb answers: an object, or a list where it prints one a line."""
        lines = self.gateway.run(f"l4lb {words} --json").splitlines()
        parsed = [json.loads(line) for line in lines]
        return parsed[0] if len(parsed) == 1 else parsed

    def flows(self) -> list[Any]:
        """Remembered flows. Past the command, whose start takes seconds here."""
        return self._rows("flows?limit=1000")

    def backend_rows(self) -> list[Any]:
        """What the daemon knows of every backend. Past the command, too."""
        return self._rows("backends")

    def _rows(self, route: str) -> list[Any]:
        return [json.loads(line) for line in self.gateway.run(f"{_ADMIN} 'http://l4lb/{route}'").splitlines()]

    def status(self) -> Any:
        """What the daemon says of itself. Past the command, too."""
        return json.loads(self.gateway.run(f"{_ADMIN} http://l4lb/status"))

    # -- the backends

    def through_gateway(self) -> None:
        """Backends answer through the gateway, as NAT needs it."""
        self._answer_by("nat", "l4lb real-server --undo && lab-route through-gateway")

    def past_gateway(self, forward: str) -> None:
        """Backends have the virtual address and answer the client straight."""
        self._answer_by(
            forward,
            # GUE's module is the operator's to load.
            f"l4lb real-server --undo && modprobe -a {'fou' if forward == 'gue' else 'ipip'} && "
            f"l4lb real-server --vip {VIP} --forward {forward} --interface $(lab-leg) --apply && "
            "lab-route past-gateway",
        )

    def _answer_by(self, way: str, command: str) -> None:
        """Sets up those that answer in another way; all at once, for each takes seconds."""
        others = [backend for backend in self.backends if self._answers_by.get(backend.name) != way]
        self.in_all(others, command)
        self._answers_by |= {backend.name: way for backend in others}

    @staticmethod
    def in_all(machines: list[Machine], command: str) -> list[str]:
        """What a command prints in each of some machines, at the same time."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            return list(pool.map(lambda machine: machine.run(command), machines))

    @contextmanager
    def rules(self, machines: list[Machine], table: str, text: str) -> Iterator[None]:
        """Rules of nftables in some machines; they stand in `table` (family and name), which goes again."""
        for machine in machines:
            machine.write("/tmp/rules.nft", text)
        self.in_all(machines, "nft -f /tmp/rules.nft")
        try:
            yield
        finally:
            self.in_all(machines, f"nft delete table {table}")

    # -- the client

    def ask(self, count: int, *, address: str = VIP, port: int = 80, at_once: int = 1) -> Counter[str]:
        """Who answers that many requests, each on a connection of its own; `failed` are those that nobody
        did."""
        return self._count("ask.py", f"{count} {address} {port} {at_once}")

    def ask_udp(self, count: int) -> Counter[str]:
        """Who answers that many datagrams, each from a port of its own."""
        return self._count("ask_udp.py", f"{count} {VIP}")

    def _count(self, program: str, words: str) -> Counter[str]:
        self.client.write(f"/tmp/{program}", (GUEST / program).read_text())
        lines = self.client.run(f"python3 /tmp/{program} {words}", timeout_s=600).splitlines()
        return Counter({name: int(number) for name, number in (line.split() for line in lines)})

    def same_file(self, path: str = "/8M") -> bool:
        """Whether the client gets a large file through the balancer as it is on the backends."""
        if not self._digests:
            self._digests = {
                line.split()[0] for line in self.in_all(self.backends, f"sha256sum /srv/www{path}")
            }
        got = self.client.run(f"curl -sS --max-time 120 http://{VIP}{path} | sha256sum", timeout_s=150)
        return got.split()[0] in self._digests
