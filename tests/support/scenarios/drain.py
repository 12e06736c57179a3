"""Drain: a backend is taken out of service for work on it, and no client notices.

Connections that are kept to it go on; new ones go elsewhere. When the last has closed, `drain --wait`
returns; the server is stopped, replaced and enabled again.
"""

from __future__ import annotations

from tests.support import servers
from tests.support.lab import ROOT, LabError, Process, wait_for
from tests.support.scenarios.balancer import PROGRAM
from tests.support.scenarios.scenario import VIP4, Load
from tests.support.scenarios.story import Scene, Story

DRAINED = "b1"
REQUESTS = 250
DRAIN_TIMEOUT_S = 10.0
STATE_TIMEOUT_S = 5.0
LIVE = {"syn_recv", "established"}


def tell(scene: Scene) -> None:
    """Drain, wait, replace, enable."""
    crowd, prove, backend = scene.crowd, scene.result.prove, scene.backend(DRAINED)
    crowd.wait_asked(REQUESTS)
    drain = start_drain(scene, backend)
    kept, before = crowd.kept(DRAINED), scene.row(DRAINED)["scheduled"]
    drained = scene.note(f"{DRAINED} is draining; clients keep {kept} connections to it")
    crowd.wait_asked(REQUESTS)
    waits = drain.poll() is None
    on_kept = sum(one.name == DRAINED and one.began_s > drained for one in crowd.asked)
    scene.note(f"{on_kept} more requests over these, and `drain --wait` {'waits' if waits else 'is gone'}")

    crowd.hang_up(DRAINED)
    wait_for(lambda: not crowd.kept(DRAINED), DRAIN_TIMEOUT_S, f"clients to leave {DRAINED}")
    closed = scene.note("the clients have closed them and opened others")
    forgotten = forget_ended(scene, backend)
    code = drain.wait(DRAIN_TIMEOUT_S)
    ended = scene.note(f"{forgotten} closed flows are flushed, and `drain --wait` returns")
    stray = scene.row(DRAINED)["scheduled"] - before

    scene.web[DRAINED].process.stop()
    scene.web[DRAINED] = servers.start_http(scene.host(DRAINED), scene.web[DRAINED].port)
    scene.web[DRAINED].wait_ready()
    scene.note("its server is stopped and replaced")
    scene.l4lb.command("backends", "enable", scene.service, backend)
    enabled = scene.note(f"{DRAINED} is enabled")
    works = scene.wait_served(DRAINED, enabled)
    scene.note(f"{DRAINED} serves new connections" if works else f"{DRAINED} gets no new connections")
    crowd.wait_asked(REQUESTS)
    served = len(scene.served(DRAINED, enabled))

    scene.prove_whole()
    prove("kept_connections_to_drained", kept, kept > 0, "more than 0")
    prove("requests_to_drained_over_these", on_kept, on_kept >= kept > 0, f"{max(kept, 1)} or more")
    prove("new_connections_to_drained", stray, stray == 0, "0")
    prove("drain_waited_for_clients", int(waits), waits, "1")
    prove("seconds_from_last_close_to_done", round(ended - closed, 2), code == 0, "after an exit code of 0")
    prove("connections_after_enable", served, served > 0, "more than 0")


def start_drain(scene: Scene, backend: str) -> Process:
    """`l4lb backends drain --wait`, at work: the drained state is in force when this returns."""
    words = ["backends", "drain", scene.service, backend, "--wait", "--timeout", f"{2 * DRAIN_TIMEOUT_S:g}"]
    drain = scene.l4lb.host.popen([PROGRAM, "--socket", scene.l4lb.socket, *words], log="drain.log")
    if not scene.wait_state(DRAINED, "draining", STATE_TIMEOUT_S):
        raise LabError(f"`l4lb backends drain` did not drain {DRAINED}: {drain.output().strip()}")
    return drain


def forget_ended(scene: Scene, backend: str) -> int:
    """Have the balancer forget connections that were closed, and how many these were; LabError where one was
    not. It would remember them for two minutes, as TCP has it, and `drain --wait` waits for the last."""

    def all_closed() -> bool:
        flows = scene.l4lb.flows(scene.service)
        return not any(flow["state"] in LIVE for flow in flows if flow["backend"] == backend)

    wait_for(all_closed, DRAIN_TIMEOUT_S, f"the end of all connections to {DRAINED}")
    flushed = scene.l4lb.command("flows", "flush", "--service", scene.service, "--backend", backend)
    return int(flushed.split()[0])


SCENARIO = Story(
    name="drain",
    title="drain: a backend is emptied, replaced and enabled, and no client notices",
    config=ROOT / "examples/nat.yaml",
    loads=(Load("http", "web", VIP4, 80),),
    tell=tell,
    hints=(
        ("gateway", "{l4lb} backends drain web 10.2.0.11:8080"),
        ("gateway", "{l4lb} backends ls"),
    ),
)
