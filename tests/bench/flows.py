"""How soon the first page of a million flows is there, and what listing them costs the packets meanwhile."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from l4lb.net.client import Client
from tests.bench import many, ours, pulse, spoofed
from tests.bench.report import Measure, Target
from tests.bench.runner import Sample, Series, Settings, alternate, progress
from tests.support.lab import Lab, unique_prefix, wait_for

ABOUT = "time to the first page of a million flows, and latency of packets while flows are listed"
PROGRAMS = ("nft", "gcc")
DEFAULTS = Settings(runs=7, seconds=3.0)
QUICK = Settings(runs=1, seconds=1.0, quick=True)
NEEDS_LAB = True

FLOWS, QUICK_FLOWS = 1_000_000, 50_000
_FILL_TIMEOUT_S = 120.0
_SORTS = ("client", "bytes")


def run(settings: Settings) -> list[Measure]:
    """The datapath `mark`, in which every packet of these flows comes to user space."""
    flows = QUICK_FLOWS if settings.quick else FLOWS
    progress(f"bench: setting up {flows} flows,")
    with Lab(unique_prefix("bench"), backends=1) as lab, pulse.echoing(lab.backends[0]):
        spoofed.prepare(lab)
        with many.daemon(lab, _config(lab, flows)) as (_, socket):
            client = Client(socket)
            _fill(lab, client, flows)
            progress("\n")
            commands = {
                f"{kind}_by_{sort}": _page(client, kind, sort)
                for kind in ("answer", "command")
                for sort in _SORTS
            }
            pages = alternate(commands, settings.runs, "pages, round")["seconds"]
            sides = {
                "quiet": _latency(lab, settings.seconds, contextlib.nullcontext),
                "listing": _latency(lab, settings.seconds, lambda: _listing(client)),
            }
            latency = alternate(sides, settings.runs, "latency, round")
            remembered = float(client.get("/flows/count")["flows"])
    soon = (Target(0.5, sense="at_most"),)
    return [
        Measure("flows", "flows", "more", Series((remembered,))),
        *(
            Measure(f"first_page_s/{name}", "seconds", "less", series, targets=soon)
            for name, series in pages.items()
        ),
        *(
            Measure(
                f"{name}_while_listing",
                "packets" if name == "lost" else "ms",
                "less",
                found["listing"],
                {"quiet": found["quiet"]},
            )
            for name, found in latency.items()
        ),
    ]


def _config(lab: Lab, flows: int) -> many.Json:
    ports = {"filled": spoofed.UDP_PORT, "echo": pulse.PORT}
    return {
        "l4": {
            "datapath": "mark",
            "queue": {"length": ours.QUEUE_LENGTH},
            "flow_table": {"capacity": 2 * flows, "new_flows": 10 * flows},
            "services": [
                {"name": name, "listen": f"{ours.VIP}:{port}/udp", "backends": [lab.backends[0].v4]}
                for name, port in ports.items()
            ],
        }
    }


def _fill(lab: Lab, client: Client, flows: int) -> None:
    """Datagrams from forged sources, each of a flow of its own."""
    with spoofed.flood(lab, ours.VIP, spoofed.UDP_PORT, udp=True):
        wait_for(lambda: client.get("/flows/count")["flows"] >= flows, _FILL_TIMEOUT_S, f"{flows} flows")


def _page(client: Client, kind: str, sort: str) -> Callable[[], Sample]:
    """The daemon's answer alone, or the whole command from its start to its end."""

    def answer() -> None:
        with client.page("/flows", sort=sort) as (_, rows):
            assert sum(1 for _ in rows)

    def command() -> None:
        words = [*ours.L4LB, "--socket", str(client.path), "flows", "ls", "--sort", sort]
        subprocess.run(words, capture_output=True, check=True, timeout=30)

    def measure() -> Sample:
        began = time.monotonic()
        (answer if kind == "answer" else command)()
        return {"seconds": time.monotonic() - began}

    return measure


def _latency(
    lab: Lab, seconds: float, meanwhile: Callable[[], contextlib.AbstractContextManager[object]]
) -> Callable[[], Sample]:
    def measure() -> Sample:
        with pulse.pulsing(lab.client, ours.VIP, pulse.PORT) as stream, meanwhile():
            began = time.monotonic()
            time.sleep(seconds)
            ended = time.monotonic()
        found = stream.within(began, ended)
        return {
            "median": found.percentile(50),
            "99_percent": found.percentile(99),
            "99.9_percent": found.percentile(99.9),
            "slowest": found.answers[-1],
            "lost": found.lost,
        }

    return measure


@contextlib.contextmanager
def _listing(client: Client) -> Iterator[None]:
    """One page after the other, by every sort in turn, without a pause."""
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            for sort in _SORTS:
                with client.page("/flows", sort=sort) as (_, rows):
                    for _ in rows:
                        pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()
