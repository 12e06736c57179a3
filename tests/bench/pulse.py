"""A steady stream of requests and answers (pulse.c), and how long answers took while something happened.

Sender and echo have real-time priority: what is measured is the way through the gateway, and not when the
test's own programs get their turn.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.bench.senders import build
from tests.support.lab import Host, Process, wait_for

PORT = 9
RATE = 1000
"""Requests a second."""
LONGEST_S = 120.0
_URGENT = ["chrt", "--fifo", "2"]
_END_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of the answers of some time, and how many did not come."""

    answers: tuple[float, ...]
    lost: int

    def percentile(self, share: float) -> float:
        """So many of 100 answers were at least so quick."""
        return self.answers[min(len(self.answers) - 1, int(len(self.answers) * share / 100))]


@dataclass(slots=True)
class Pulse:
    """A stream that goes on; its answers can be read when it is over."""

    process: Process
    _times: list[tuple[float, float]] = field(default_factory=list)

    def read(self) -> None:
        """Ends the stream."""
        self.process.terminate()
        said, _ = self.process.communicate(timeout=_END_TIMEOUT_S)
        lines = map(str.split, said.splitlines())
        self._times = [(float(due) / 1e9, float(took) / 1e6) for due, took in lines]

    def within(self, since_s: float, until_s: float) -> Latency:
        """The answers to what was sent between two times of the monotonic clock."""
        found = [took for due, took in self._times if since_s <= due < until_s]
        return Latency(tuple(sorted(took for took in found if took >= 0)), sum(took < 0 for took in found))


@contextlib.contextmanager
def echoing(host: Host, port: int = PORT) -> Iterator[None]:
    """Answers on `port` of a host."""
    process = host.popen([*_URGENT, str(build("pulse")), "-e", "-p", str(port)])
    try:
        host.wait_listening(port, "udp", process=process)
        yield
    finally:
        process.stop()


@contextlib.contextmanager
def pulsing(client: Host, address: str, port: int) -> Iterator[Pulse]:
    """Asks `address` from the client until the end; then all answers can be asked for."""
    argv = [*_URGENT, str(build("pulse")), "-r", str(RATE), "-d", str(LONGEST_S), "-p", str(port), address]
    process = client.popen(argv, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        pulse = Pulse(process)
        yield pulse
        pulse.read()
    finally:
        process.stop()


def wait_answered(client: Host, address: str, port: int) -> None:
    """Returns when a request is answered."""

    def answered() -> bool:
        with pulsing(client, address, port) as pulse:
            begin = time.monotonic()
            time.sleep(0.05)
        return bool(pulse.within(begin, begin + 1).answers)

    wait_for(answered, 10, "an answer by the balancer")
