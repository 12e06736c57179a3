"""Failover: health checks take out what is dead, and bring back what lives again.

Under load one backend's server is killed; its host refuses connections. Then the cable of another backend's
host is pulled, which nobody tells anybody. Until a check has found out, requests fail; afterwards not one
may, and the dead get no new connection. Then both come back.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from l4lb.control.config import parse_config
from tests.support import servers
from tests.support.lab import ROOT, LabError
from tests.support.scenarios.crowd import Asked
from tests.support.scenarios.scenario import VIP4, Load
from tests.support.scenarios.story import Scene, Story

CONFIG = ROOT / "examples/failover.yaml"
KILLED, UNPLUGGED = "b1", "b2"
# A machine that is busy with other things is this late at most.
BUSY_S = 1.0
REQUESTS = 250


@dataclass(frozen=True)
class Loss:
    """One backend's end: the moments when it died and when it was out, and its connections by then."""

    name: str
    died: float
    out: float
    scheduled: int

    @property
    def seconds(self) -> float:
        """From its death until it was out."""
        return round(self.out - self.died, 2)

    def excuses(self, failure: Asked) -> bool:
        """Whether a request was under way while nobody could know yet."""
        return failure.ended_s >= self.died and failure.began_s <= self.out


def limit_s() -> float:
    """How long removing may take: `fall` checks, the time that the last may take, one interval over."""
    check = parse_config(CONFIG.read_text(), str(CONFIG)).services[0].health
    if check is None:
        raise LabError(f"{CONFIG} has no health check")
    return check.fall * check.interval_s + check.timeout_s + check.interval_s + BUSY_S


def lose(scene: Scene, name: str, kill: Callable[[], object], what: str, limit: float) -> Loss:
    """Kill a backend, and wait until the balancer knows."""
    died = time.monotonic()
    kill()
    scene.note(what)
    known = scene.wait_state(name, "down", limit)
    row = scene.row(name)
    out = scene.note(
        f"{name} is {row['state']}: {row['why']}" if known else f"{name} is still {row['state']}"
    )
    scene.crowd.wait_asked(REQUESTS)
    return Loss(name, died, out, row["scheduled"])


def tell(scene: Scene) -> None:
    """Two deaths and two returns."""
    limit = limit_s()
    scene.crowd.wait_asked(REQUESTS)
    server = scene.web[KILLED]
    killed = lose(
        scene, KILLED, lambda: server.process.stop(signal.SIGKILL), f"{KILLED}: server killed", limit
    )
    unplugged = lose(scene, UNPLUGGED, lambda: plug(scene, "down"), f"{UNPLUGGED}: cable pulled", limit)
    losses = (killed, unplugged)
    late = sum(scene.row(loss.name)["scheduled"] - loss.scheduled for loss in losses)

    plug(scene, "up")
    scene.web[KILLED] = servers.start_http(scene.host(KILLED), server.port)
    scene.web[KILLED].wait_ready()
    back = scene.note("both are back: server started, cable plugged in")
    up = [scene.wait_state(loss.name, "up", limit) for loss in losses]
    returned = scene.note("both are up" if all(up) else "they are not up")
    works = [scene.wait_served(loss.name, returned) for loss in losses]
    scene.note("both serve new connections" if all(works) else "not both get new connections")
    scene.crowd.wait_asked(REQUESTS)
    newcomers = [len(scene.served(loss.name, returned)) for loss in losses]
    prove(scene, losses, late, limit, returned - back)
    scene.result.prove("connections_after_return", sum(newcomers), all(newcomers), "some to each")


def plug(scene: Scene, state: str) -> None:
    """Pull or plug in the cable of a host, at the switch: the host's own settings stay."""
    scene.host("lan").run(["ip", "link", "set", UNPLUGGED, state])


def prove(scene: Scene, losses: tuple[Loss, Loss], late: int, limit: float, back_s: float) -> None:
    """Set the evidence against what is promised."""
    prove = scene.result.prove
    soon = f"at most {limit:g}"
    prove("seconds_to_remove", losses[0].seconds, losses[0].seconds <= limit, soon)
    prove("seconds_to_remove_silent_host", losses[1].seconds, losses[1].seconds <= limit, soon)
    prove("requests_to_dead_backend", late, late == 0, "0")
    failures = scene.failures()
    unexcused = [one for one in failures if not any(loss.excuses(one) for loss in losses)]
    scene.result.evidence["failed_requests_before_removal"] = len(failures) - len(unexcused)
    why = f" ({unexcused[0].error})" if unexcused else ""
    prove("failed_requests_after_removal", len(unexcused), not unexcused, f"0{why}")
    prove("seconds_to_return", round(back_s, 2), back_s <= limit, soon)


SCENARIO = Story(
    name="failover",
    title="failover: dead backends are found out and left out, and come back",
    config=CONFIG,
    loads=(Load("http", "web", VIP4, 80),),
    tell=tell,
    hints=(("gateway", "{l4lb} backends ls"), ("gateway", "{l4lb} top")),
)
