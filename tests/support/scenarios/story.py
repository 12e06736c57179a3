"""The course of a scenario in which things happen while clients keep asking.

A story is a function that is called with a `Scene`. It changes something, lets the clients ask on, notes what
happened when, and proves what it is there for from what the clients saw and the balancer says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from l4lb.net.client import Client
from tests.support.lab import Host, LabError, wait_for
from tests.support.scenarios.balancer import Balancer
from tests.support.scenarios.base import BackendResult, Result, Stage
from tests.support.scenarios.crowd import Asked, Crowd
from tests.support.scenarios.scenario import Scenario, host_of
from tests.support.scenarios.traffic import Tally
from tests.support.servers import Server

SERVED_TIMEOUT_S = 5.0
# The datapath that is there to be read cannot carry more of them on a small machine.
SLOW_PACE = 0.2


@dataclass(frozen=True)
class Story(Scenario):
    """Clients ask the service of the first load; `tell` is what happens meanwhile."""

    tell: Callable[[Scene], None] = field(kw_only=True)


@dataclass
class Scene:
    """What a story has in its hands. Moments are seconds of time.monotonic."""

    stage: Stage
    l4lb: Balancer
    web: dict[str, Server]
    crowd: Crowd
    service: str
    result: Result
    began: float

    def note(self, what: str) -> float:
        """Put on the timeline what happened just now; the moment."""
        now = time.monotonic()
        self.result.timeline.append((now - self.began, what))
        return now

    def host(self, name: str) -> Host:
        """A host of the lab."""
        return self.stage.lab.host(name)

    def backend(self, name: str) -> str:
        """What the balancer calls the backend on a host."""
        return f"{self.host(name).v4}:{self.web[name].port}"

    def row(self, name: str) -> dict[str, Any]:
        """What `l4lb backends ls` says of the backend on a host."""
        for row in self.l4lb.backends():
            if row["service"] == self.service and host_of(self.stage.lab, row) == name:
                return row
        raise LabError(f"the balancer has no backend on {name}")

    def wait_state(self, name: str, state: str, timeout: float) -> bool:
        """Wait for a backend's state, and until the change that it comes with is in force; whether it came
        in time."""
        try:
            wait_for(lambda: self.row(name)["state"] == state, timeout, f"{name} to be {state}")
        except LabError:
            return False
        # The state is said a moment before it is carried out; a rehearsal takes its turn behind that.
        self.rehearse_reload()
        return True

    def rehearse_reload(self) -> list[str]:
        """What `l4lb reload --dry-run --json` prints as changes, asked of the socket: a program's start takes
        longer than the answer."""
        answer: dict[str, Any] = Client(self.l4lb.socket).post("/reload", {"dry_run": True})
        return list(answer["changes"])

    def served(self, name: str, since: float) -> list[Asked]:
        """New connections since a moment that a backend answered."""
        return [one for one in self.crowd.asked if one.name == name and one.first and one.began_s > since]

    def wait_served(self, name: str, since: float) -> bool:
        """Wait until a backend has answered a new connection that began after this moment; whether it did."""
        try:
            wait_for(lambda: self.served(name, since), SERVED_TIMEOUT_S, f"a new connection to {name}")
        except LabError:
            return False
        return True

    def failures(self) -> list[Asked]:
        """Requests so far without a good answer."""
        return [one for one in self.crowd.asked if one.error]

    def broken(self) -> list[Asked]:
        """Those of them that ended a connection which had been good before."""
        return [one for one in self.failures() if not one.first]

    def prove_whole(self) -> None:
        """Evidence that the clients noticed nothing."""
        broken, failed = self.broken(), self.failures()
        why = f" ({broken[0].error})" if broken else ""
        self.result.prove("broken_flows", len(broken), not broken, f"0{why}")
        why = f" ({failed[0].error})" if failed else ""
        self.result.prove("failed_requests", len(failed), not failed, f"0{why}")

    def take(self, tally: Tally) -> None:
        """Requests that were sent beside the crowd's."""
        self.result.requests += tally.sent
        self.result.failed += tally.missing
        for name, answered in tally.answered.items():
            backend = self.result.backends[name]
            backend.connections += tally.flows[name]
            backend.requests += answered
            backend.bytes += tally.bytes[name]

    def know_backends(self) -> None:
        """Take the backends that there are now into the result."""
        for row in self.l4lb.backends():
            if row["service"] == self.service:
                known = BackendResult(row["backend"], row["weight"])
                self.result.backends.setdefault(host_of(self.stage.lab, row), known)


def tell(story: Story, stage: Stage, l4lb: Balancer, web: dict[str, Server], result: Result) -> None:
    """Let clients ask while the story goes on, and take what they saw into the result."""
    load = story.loads[0]
    stage.say(f"clients ask {load.endpoint} over kept connections and new ones; a few seconds of them follow")
    pace = SLOW_PACE if result.evidence["datapath"] == "reference" else 1.0
    with Crowd(stage.lab.host(load.sender), load.address, load.port, pace) as crowd:
        scene = Scene(stage, l4lb, web, crowd, load.service, result, time.monotonic())
        scene.know_backends()
        for name in result.backends:
            wait_for(lambda name=name: crowd.kept(name), SERVED_TIMEOUT_S, f"kept connections to {name}")  # type: ignore[misc]
        scene.note("clients ask every backend")
        story.tell(scene)
        result.balancer = [row for row in l4lb.backends() if row["service"] == load.service]
    _take(crowd.asked, result)
    failed = f"{result.failed} failed, all of them excused" if result.failed else "none failed"
    result.good = f"{result.requests} requests while all this happened, {failed}"


def _take(asked: list[Asked], result: Result) -> None:
    result.requests += len(asked)
    result.failed += sum(bool(one.error) for one in asked)
    for one in asked:
        if one.error:
            continue
        if one.name not in result.backends:
            raise LabError(f"an answer came from {one.name}, no backend")
        backend = result.backends[one.name]
        backend.connections += one.first
        backend.requests += 1
        backend.bytes += one.size
