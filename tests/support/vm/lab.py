"""What tests and benchmarks do in the machines: who answers the client, how the gateway is configured."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from tests.support.vm.machines import PROJECT, Machine
from tests.support.vm.steps import VmLabError

VIP = "203.0.113.10"
T = TypeVar("T")

_ASK_UDP = """
import socket, sys, collections
seen = collections.Counter()
for i in range(int(sys.argv[1])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.connect((sys.argv[2], 7))
        for _ in range(3):
            s.send(b"%d" % i)
            try:
                seen[s.recv(2000).split()[0].decode()] += 1
                break
            except TimeoutError:
                seen["lost"] += 1
for name, count in seen.items():
    print(name, count)
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
        self.backends = [Machine(f"b{n}") for n in range(1, backends + 1)]

    @property
    def machines(self) -> list[Machine]:
        """All of them."""
        return [self.gateway, self.client, *self.backends]

    # -- the gateway

    def balance(self, config: str, *, datapath: str = "auto") -> None:
        """Runs the service with one of `vagrant/config`, or with a whole configuration."""
        text = config if "\n" in config else (PROJECT / "config" / f"{config}.yaml").read_text()
        self.gateway.write("/etc/l4lb/l4lb.yaml", text.replace("l4:\n", f"l4:\n  datapath: {datapath}\n", 1))
        self.gateway.run("systemctl reset-failed l4lb; systemctl restart l4lb", timeout_s=180)

    def l4lb(self, words: str) -> Any:
        """What a command of l4lb answers: an object, or a list where it prints one a line."""
        lines = self.gateway.run(f"l4lb {words} --json").splitlines()
        parsed = [json.loads(line) for line in lines]
        return parsed[0] if len(parsed) == 1 else parsed

    # -- the backends

    def through_gateway(self) -> None:
        """Backends answer through the gateway, as NAT needs it."""
        for backend in self.backends:
            backend.run("l4lb real-server --undo; lab-route through-gateway")

    def past_gateway(self, forward: str) -> None:
        """Backends have the virtual address and answer the client straight."""
        for backend in self.backends:
            backend.run(
                "l4lb real-server --undo; "
                f"l4lb real-server --vip {VIP} --forward {forward} --interface $(lab-leg) --apply; "
                "lab-route past-gateway"
            )

    # -- the client

    def ask(self, count: int, *, path: str = "/", address: str = VIP, port: int = 80) -> Counter[str]:
        """Who answers that many requests, each on a connection of its own; `failed` are those that nobody
        did."""
        url = f"http://{address}:{port}{path}"
        script = f"for i in $(seq {count}); do curl -sS --max-time 20 {url} 2>/dev/null || echo failed; done"
        return Counter(self.client.run(script, timeout_s=count * 20 + 60).split())

    def ask_udp(self, count: int) -> Counter[str]:
        """Who answers that many datagrams, each from a port of its own."""
        self.client.write("/tmp/ask_udp.py", _ASK_UDP)
        lines = self.client.run(f"python3 /tmp/ask_udp.py {count} {VIP}", timeout_s=600).splitlines()
        return Counter({name: int(number) for name, number in (line.split() for line in lines)})

    def same_file(self, path: str = "/8M") -> bool:
        """Whether the client gets a large file through the balancer as it is on the backends."""
        got = self.client.run(
            f"curl -sS --max-time 120 http://{VIP}{path} | sha256sum", timeout_s=150
        ).split()[0]
        return any(got in backend.run(f"sha256sum /srv/www{path}") for backend in self.backends)
