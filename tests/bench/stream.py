"""One TCP stream through the gateway to the one backend, by iperf3."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench import ours
from tests.bench.errors import BenchError
from tests.bench.runner import Sample, progress
from tests.bench.sides import Side
from tests.support.lab import Lab, Process, unique_prefix

PORT = 5201


@dataclass(frozen=True, slots=True)
class Stream:
    """A side that is up: the address that the client aims at, and the process that balances, if any."""

    lab: Lab
    target: str
    process: Process | None

    def measurement(self, seconds: float) -> Callable[[], Sample]:
        """Sends what goes through. The first second, in which the window opens, does not count."""
        return lambda: {"gbit_per_s": self.send(seconds, skip=1)}

    def send(self, seconds: float, *, skip: int = 0, rate: str = "0") -> float:
        """Gbit/s that arrived after the first `skip` seconds. `rate` is iperf3's limit: `1G`; `0` is none."""
        argv = ["iperf3", "-c", self.target, "-p", str(PORT), "-t", f"{max(1, round(seconds))}"]
        argv += ["-O", str(skip), "-b", rate, "-J"]
        done = self.lab.client.run(argv, check=False, timeout=seconds + 20)
        said = json.loads(done.stdout or "{}")
        if done.returncode or "error" in said:
            raise BenchError(f"iperf3 failed: {said.get('error', done.stderr.strip())}")
        received: float = said["end"]["sum_received"]["bits_per_second"]
        return received / 1e9


def set_up(side: Side, stack: contextlib.ExitStack) -> Stream:
    """A side in a lab of its own, with a server on the one backend."""
    progress(f" {side.name},")
    lab = stack.enter_context(Lab(unique_prefix("bench"), backends=1))
    (backend,) = lab.backends
    server = backend.popen(["iperf3", "-s", "-p", str(PORT)], log="iperf3.log")
    backend.wait_listening(PORT, process=server)
    process = stack.enter_context(side.up(lab, [f"{backend.v4}:{PORT}"]))
    target = ours.VIP if side.to_vip else backend.v4
    return Stream(lab, target, process if isinstance(process, Process) else None)
