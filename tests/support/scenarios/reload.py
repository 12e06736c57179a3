"""Reload: ten changes of the configuration, one after the other, and no client notices.

Weights change, a backend comes and goes, a service comes and goes. Each change is rehearsed by
`l4lb reload --dry-run` first and has to do then what was announced. Before the backend goes, it gets weight 0
and its clients close, for a connection to a server that is gone cannot go on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.support.lab import ROOT, wait_for
from tests.support.scenarios import traffic
from tests.support.scenarios.scenario import VIP4, Load
from tests.support.scenarios.story import Scene, Story

NEWCOMER = "b4"
NEW_VIP = "203.0.113.11"
REQUESTS = 60
NEW_REQUESTS = 12
LEAVE_TIMEOUT_S = 5.0
SLOWEST_S = 1.0

Services = list[dict[str, Any]]
Change = Callable[[Services], None]
Afterwards = Callable[[Scene], None]


def weigh(place: int, weight: int) -> Change:
    """A backend of the first service gets another weight."""

    def change(services: Services) -> None:
        services[0]["backends"][place]["weight"] = weight

    return change


def add_backend(services: Services) -> None:
    """A fourth server for the first service."""
    services[0]["backends"].append({"address": "10.2.0.14:8080", "weight": 2})


def remove_backend(services: Services) -> None:
    """The fourth server goes again."""
    services[0]["backends"].pop()


def add_service(services: Services) -> None:
    """Another address with the same servers."""
    services.append({"name": "shop", "listen": f"{NEW_VIP}:80/tcp", "backends": ["10.2.0.11:8080"]})


def remove_service(services: Services) -> None:
    """The other address goes again."""
    services.pop()


def change_scheduler(services: Services) -> None:
    """The second service is spread otherwise."""
    services[1]["scheduler"] = "source-hash"


def nothing(_: Scene) -> None:
    """The clients ask on."""


def ask_newcomer(scene: Scene) -> None:
    """The new backend has kept connections, too."""
    scene.know_backends()
    scene.crowd.hang_up("b1")
    wait_for(lambda: scene.crowd.kept(NEWCOMER), LEAVE_TIMEOUT_S, f"connections to {NEWCOMER}")


def ask_new_service(scene: Scene) -> None:
    """The new address answers at once."""
    sender = scene.host("client")
    tally = traffic.send_requests(sender, NEW_VIP, 80, NEW_REQUESTS)
    scene.take(tally)
    scene.result.check("requests to the new service and answers", tally.sent, tally.answered.total())


def leave_newcomer(scene: Scene) -> None:
    """Its clients go elsewhere: with weight 0 they do not come back."""
    scene.crowd.hang_up(NEWCOMER)
    wait_for(lambda: not scene.crowd.kept(NEWCOMER), LEAVE_TIMEOUT_S, f"clients to leave {NEWCOMER}")


CHANGES: tuple[tuple[Change, Afterwards], ...] = (
    (weigh(0, 1), nothing),
    (add_backend, ask_newcomer),
    (add_service, ask_new_service),
    (weigh(1, 5), nothing),
    (weigh(3, 0), leave_newcomer),
    (remove_backend, nothing),
    (remove_service, nothing),
    (weigh(2, 3), nothing),
    (change_scheduler, nothing),
    (weigh(0, 3), nothing),
)


def tell(scene: Scene) -> None:
    """Ten reloads."""
    path = Path(scene.l4lb.status()["config"])
    config = yaml.safe_load(path.read_text())
    crowd, prove = scene.crowd, scene.result.prove
    crowd.wait_asked(REQUESTS)
    began = scene.note("the configuration is changed ten times, rehearsed each time")
    seconds = []
    for change, afterwards in CHANGES:
        change(config["l4"]["services"])
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        announced = scene.rehearse_reload()
        done = json.loads(scene.l4lb.command("reload", "--json"))
        scene.note("; ".join(done["changes"]) or "nothing changed")
        scene.result.check("changes that were announced and made", announced, done["changes"])
        seconds.append(done["seconds"])
        afterwards(scene)
        crowd.wait_asked(REQUESTS)
    ended = scene.note("clients still ask")
    crowd.wait_asked(REQUESTS)

    lasting = connections(scene, lambda began_s: began_s < began)
    lasting &= connections(scene, lambda began_s: began_s > ended)
    scene.prove_whole()
    prove("reloads", len(seconds), len(seconds) == len(CHANGES), str(len(CHANGES)))
    prove("connections_over_all_reloads", len(lasting), bool(lasting), "more than 0")
    prove("slowest_reload_seconds", max(seconds), max(seconds) < SLOWEST_S, f"less than {SLOWEST_S:g}")


def connections(scene: Scene, when: Callable[[float], bool]) -> set[int]:
    """Kept connections with a good answer to a request that began then."""
    return {one.connection for one in scene.crowd.asked if one.kept and one.name and when(one.began_s)}


SCENARIO = Story(
    name="reload",
    title="reload: ten changes of weights, backends and services, and no client notices",
    config=ROOT / "examples/nat.yaml",
    backends=4,
    loads=(Load("http", "web", VIP4, 80),),
    tell=tell,
    hints=(
        ("gateway", "vi {directory}/l4lb.yaml"),
        ("gateway", "{l4lb} reload --dry-run"),
        ("gateway", "{l4lb} reload"),
    ),
)
