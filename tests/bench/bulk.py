"""One TCP stream through the gateway: what segmentation offload is worth, and what is left of it."""

from __future__ import annotations

import contextlib

from tests.bench import sides, stream
from tests.bench.report import Measure, Target
from tests.bench.runner import Settings, alternate, progress

ABOUT = "bits a second of one TCP stream, beside plain routing to the backend"
PROGRAMS = ("iperf3", "nft")
DEFAULTS = Settings(runs=7, seconds=2.0)
QUICK = Settings(runs=1, seconds=1.0, quick=True)
NEEDS_LAB = True


def run(settings: Settings) -> list[Measure]:
    """The stream by way of `mark` and of `rewrite`, beside the same one routed."""
    every = [sides.direct(), *(sides.balanced(name, name, stream.PORT) for name in ("mark", "rewrite"))]
    progress("bench: setting up")
    with contextlib.ExitStack() as stack:
        ready = {side.name: stream.set_up(side, stack) for side in every}
        progress("\n")
        found = alternate(
            {name: up.measurement(settings.seconds) for name, up in ready.items()}, settings.runs
        )["gbit_per_s"]
    targets = {"mark": [Target(0.5, of=sides.DIRECT)]}
    return [
        Measure(
            f"gbit_per_s/{name}",
            "Gbit/s",
            "more",
            found[name],
            {sides.DIRECT: found[sides.DIRECT]},
            targets.get(name, ()),
        )
        for name in ("mark", "rewrite")
    ]
