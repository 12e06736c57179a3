"""One TCP stream through the gateway: what segmentation offload is worth, and what is left of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

from tests.bench import ours
from tests.bench.errors import BenchError
from tests.bench.report import Measure, Target
from tests.bench.runner import Sample, Settings, alternate, progress
from tests.support.lab import Lab, unique_prefix

ABOUT = "bits a second of one TCP stream, beside plain routing to the backend"
PROGRAMS = ("iperf3", "nft")
DEFAULTS = Settings(runs=7, seconds=2.0)
QUICK = Settings(runs=1, seconds=1.0, quick=True)
NEEDS_LAB = True

PORT = 5201
_DIRECT = "direct"


def run(settings: Settings) -> list[Measure]:
    """The stream by way of `mark` and of `rewrite`, beside the same one routed."""
    progress("bench: setting up")
    with contextlib.ExitStack() as stack:
        sides = {name: _set_up(name, stack) for name in (_DIRECT, "mark", "rewrite")}
        progress("\n")
        found = alternate(
            {name: _measure(lab, target, settings.seconds) for name, (lab, target) in sides.items()},
            settings.runs,
        )["gbit_per_s"]
    targets = {"mark": [Target(0.5, of=_DIRECT)]}
    return [
        Measure(
            f"gbit_per_s/{name}",
            "Gbit/s",
            "more",
            found[name],
            {_DIRECT: found[_DIRECT]},
            targets.get(name, ()),
        )
        for name in ("mark", "rewrite")
    ]


def _set_up(name: str, stack: contextlib.ExitStack) -> tuple[Lab, str]:
    """The lab of a side, with a server on its one backend; and the address that the client aims at."""
    progress(f" {name},")
    lab = stack.enter_context(Lab(unique_prefix("bench"), backends=1))
    (backend,) = lab.backends
    server = backend.popen(["iperf3", "-s", "-p", str(PORT)], log="iperf3.log")
    backend.wait_listening(PORT, process=server)
    if name == _DIRECT:
        return lab, backend.v4
    service = ours.Service("bulk", f"{ours.VIP}:{PORT}/tcp", [f"{backend.v4}:{PORT}"])
    stack.enter_context(ours.daemon(lab, name, [service]))
    return lab, ours.VIP


def _measure(lab: Lab, target: str, seconds: float) -> Callable[[], Sample]:
    # The first second, in which the window opens, does not count.
    argv = ["iperf3", "-c", target, "-p", str(PORT), "-t", f"{max(1, round(seconds))}", "-O", "1", "-J"]

    def measure() -> Sample:
        done = lab.client.run(argv, check=False, timeout=seconds + 20)
        said = json.loads(done.stdout or "{}")
        if done.returncode or "error" in said:
            raise BenchError(f"iperf3 failed: {said.get('error', done.stderr.strip())}")
        return {"gbit_per_s": said["end"]["sum_received"]["bits_per_second"] / 1e9}

    return measure
