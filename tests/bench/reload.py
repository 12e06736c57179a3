"""How long a reload of 1000 services with 20 backends each takes, and what it does to packets meanwhile."""

from __future__ import annotations

import copy
import json
import subprocess
import time
from collections.abc import Callable

from tests.bench import many, ours, pulse
from tests.bench.report import Measure, Target
from tests.bench.runner import Sample, Settings, alternate, progress
from tests.bench.usage import cpu_seconds, resident_mib
from tests.support.lab import Lab, unique_prefix

ABOUT = "a reload of 1000 services x 20 backends: time, and latency of packets meanwhile"
PROGRAMS = ("nft", "gcc")
DEFAULTS = Settings(runs=7, seconds=3.0)
QUICK = Settings(runs=1, seconds=0.5, quick=True)
NEEDS_LAB = True

SERVICES, QUICK_SERVICES, BACKENDS = 1000, 50, 20
_PORT = 8080
_TIMEOUT_S = 60.0
_QUIET = "quiet"
_UNITS = {"reload_s": "seconds", "command_s": "seconds", "cpu_s": "seconds", "lost": "packets"}

Change = Callable[[many.Json, int], None]
"""Changes a configuration; the number is another one each time."""


def run(settings: Settings) -> list[Measure]:
    """The datapath `mark`, in which every packet needs the worker and the rules."""
    services = QUICK_SERVICES if settings.quick else SERVICES
    progress(f"bench: setting up {services} services,")
    with Lab(unique_prefix("bench"), backends=1) as lab, pulse.echoing(lab.backends[0]):
        many.prepare(lab)
        config = _config(lab, services)
        with many.daemon(lab, config) as (process, _):
            progress("\n")
            pulse.wait_answered(lab.client, ours.VIP, pulse.PORT)
            before = resident_mib(process.pid)
            rounds = iter(range(1, 1_000_000))
            sides: dict[str, Callable[[], Sample]] = {
                name: _reload(lab, process.pid, config, change, lambda: next(rounds))
                for name, change in _CHANGES.items()
            }
            found = alternate(sides | {_QUIET: _quiet(lab, settings.seconds)}, settings.runs)
            growth = resident_mib(process.pid) - before
    progress(f"bench: the daemon's memory grew by {growth:.1f} MiB\n")
    limits = {
        "reload_s": 1.0,
        "command_s": None,
        "cpu_s": None,
        "slowest": 10.0,
        "99.9_percent": None,
        "lost": 0.0,
    }
    return [
        Measure(
            f"{quantity}/{name}",
            _UNITS.get(quantity, "ms"),
            "less",
            found[quantity][name],
            {_QUIET: found[quantity][_QUIET]} if _QUIET in found[quantity] else {},
            () if limit is None else (Target(limit, sense="at_most"),),
        )
        for quantity, limit in limits.items()
        for name in _CHANGES
    ]


def _config(lab: Lab, services: int) -> many.Json:
    config = many.configuration(services, BACKENDS, _PORT)
    echo = {"name": "echo", "listen": f"{ours.VIP}:{pulse.PORT}/udp", "backends": [lab.backends[0].v4]}
    config["l4"] |= {"datapath": "mark", "queue": {"length": ours.QUEUE_LENGTH}}
    config["l4"]["services"].append(echo)
    return config


def _nothing(config: many.Json, number: int) -> None:
    pass


def _one_weight(config: many.Json, number: int) -> None:
    config["l4"]["services"][0]["backends"][0]["weight"] = 2 + number % 100


def _tenth_of_the_backends(config: many.Json, number: int) -> None:
    """Two of each service's twenty get an address that nobody had in the round before."""
    services = config["l4"]["services"][:-1]
    first = BACKENDS * len(services) + 2 * len(services) * (number % 2)
    for at, service in enumerate(services):
        for n in range(2):
            service["backends"][n]["address"] = f"{many.address(first + 2 * at + n)}:{_PORT}"


_CHANGES: dict[str, Change] = {
    "nothing": _nothing,
    "one_weight": _one_weight,
    "tenth_of_the_backends": _tenth_of_the_backends,
}


def _reload(
    lab: Lab, pid: int, config: many.Json, change: Change, number: Callable[[], int]
) -> Callable[[], Sample]:
    """`l4lb reload` after a change, while packets pass; the change before is taken back first, unmeasured."""

    def measure() -> Sample:
        changed = copy.deepcopy(config)
        change(changed, number())
        _command(lab, config)
        ours.write_config(lab, changed)
        with pulse.pulsing(lab.client, ours.VIP, pulse.PORT) as stream:
            began, used = time.monotonic(), cpu_seconds(pid)
            answer = _command(lab, changed)
            ended, used = time.monotonic(), cpu_seconds(pid) - used
        latency = stream.within(began, ended)
        return {"reload_s": answer["seconds"], "command_s": ended - began, "cpu_s": used, **_told(latency)}

    return measure


def _quiet(lab: Lab, seconds: float) -> Callable[[], Sample]:
    def measure() -> Sample:
        with pulse.pulsing(lab.client, ours.VIP, pulse.PORT) as stream:
            began = time.monotonic()
            time.sleep(seconds)
            ended = time.monotonic()
        return _told(stream.within(began, ended))

    return measure


def _told(latency: pulse.Latency) -> Sample:
    return {
        "99.9_percent": latency.percentile(99.9),
        "slowest": latency.answers[-1],
        "lost": latency.lost,
    }


def _command(lab: Lab, config: many.Json) -> many.Json:
    ours.write_config(lab, config)
    words = [*ours.L4LB, "--socket", str(ours.socket_path(lab)), "reload", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S)
    answer: many.Json = json.loads(done.stdout)
    return answer
