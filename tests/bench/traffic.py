"""The sender of small datagrams (blast.c), and what counts them at the backends.

Counting is the same for every side and as cheap as it can be: each backend drops the datagrams in the
first hook that they meet, where nftables counts them exactly; the rate is read from the interfaces.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.errors import BenchError
from tests.bench.senders import build, sending
from tests.support.lab import Host, Lab, wait_for

PORT = 9000
FLOWS = 64
PAYLOAD = 18
"""Bytes of UDP payload: 46 of IP, 60 of Ethernet, 64 with its check sequence: the smallest frame."""
WARM_S = 0.1
DRAIN_S = 5.0

_COUNTING = f"""
table ip bench {{
    counter delivered {{ }}
    chain prerouting {{
        type filter hook prerouting priority -450; policy accept;
        udp dport {PORT} counter name delivered drop
    }}
}}
"""


class Counters:
    """What arrives at the backends; open for as long as the lab is up."""

    def __init__(self, lab: Lab) -> None:
        self._backends = lab.backends
        self._files: list[int] = []

    def __enter__(self) -> Counters:
        try:
            for host in self._backends:
                host.run(["nft", "-f", "-"], input=_COUNTING)
                with host.enter():
                    # The file stays that of the namespace in which it was opened.
                    self._files.append(os.open("/proc/thread-self/net/dev", os.O_RDONLY | os.O_CLOEXEC))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._files:
            os.close(self._files.pop())

    def received(self) -> int:
        """Packets that the backends' interfaces have received: quick to read, and of any kind."""
        return sum(_received(os.pread(file, 4096, 0)) for file in self._files)

    def delivered(self) -> int:
        """Datagrams that have arrived with the backend's address and the right port."""
        return sum(_delivered(host) for host in self._backends)

    def wait_quiet(self) -> None:
        """Returns when nothing more arrives: the queues are empty."""
        last = -1

        def quiet() -> bool:
            nonlocal last
            before, last = last, self.received()
            return before == last

        # A queue that is not empty delivers at least a packet in this time.
        wait_for(lambda: _paused(quiet), DRAIN_S, "the queues to run empty")


def _paused(predicate: Callable[[], bool]) -> bool:
    time.sleep(0.02)
    return predicate()


def _received(table: bytes) -> int:
    for line in table.decode().splitlines():
        name, _, fields = line.partition(":")
        if name.strip() == "eth0":
            return int(fields.split()[1])
    raise BenchError("a backend has no eth0")


def _delivered(host: Host) -> int:
    shown = host.run(["nft", "-j", "list", "counters", "table", "ip", "bench"]).stdout
    return sum(int(e["counter"]["packets"]) for e in json.loads(shown)["nftables"] if "counter" in e)


@dataclass(frozen=True, slots=True)
class Blast:
    """One sending: what was sent and what arrived meanwhile, in the same window."""

    sent: int
    received: int
    seconds: float
    """As the reader of the counters measured it."""


def blast_for(lab: Lab, counters: Counters, targets: Sequence[str], seconds: float, rate: float = 0) -> Blast:
    """Sends for `seconds` after a warm-up, flat out or at `rate` packets a second."""
    warm = 0 if rate else min(WARM_S, seconds)
    argv = _blast(["-w", str(warm), "-d", str(seconds), "-r", str(rate)], targets)
    with sending(lab.client, argv) as sender:
        sender.wait_begin()
        began, before = time.monotonic(), counters.received()
        sent, _ = sender.wait_end()
        after, ended = counters.received(), time.monotonic()
    return Blast(sent, after - before, ended - began)


def check_path(lab: Lab, counters: Counters, targets: Sequence[str]) -> None:
    """Sends a few datagrams of every flow and sees all of them arrive; also fills neighbour caches."""

    def works() -> bool:
        before = counters.delivered()
        argv = _blast(["-n", str(FLOWS * 2), "-r", "5000", "-b", "1"], targets)
        with sending(lab.client, argv) as sender:
            sender.wait_begin()
            sender.wait_end()
        counters.wait_quiet()
        return counters.delivered() - before == FLOWS * 2

    wait_for(works, 10, "the datagrams of every flow to arrive at the backends")


def _blast(options: Sequence[str], targets: Sequence[str]) -> list[str]:
    always = ["-p", str(PORT), "-f", str(FLOWS), "-l", str(PAYLOAD)]
    return [str(build("blast")), *always, *options, *targets]
