"""Both tiers: l4lb spreads connections over two proxies, both l7lb, and these spread requests over servers.

A proxy is killed with all its processes. Tier 1 finds out; sessions go on at the other proxy with the same
server, since both sign cookies with the same secret, and clients are seen by their own addresses all the way.
"""

from __future__ import annotations

import http.client
import os
import signal
import time

from tests.support.lab import ROOT
from tests.support.scenarios import balancer
from tests.support.scenarios.base import Result, Stage
from tests.support.scenarios.browser import Answer, Browser, issue
from tests.support.scenarios.scenario import VIP4
from tests.support.scenarios.tour import (
    Tour,
    count_answer,
    know_backends,
    start_proxy,
    start_web,
    write_config,
)

CONFIG = ROOT / "examples/two-tier-demo.yaml"
SITE = "shop.example"
SHOPPERS, EACH = 20, 5
DOWN_TIMEOUT_S = 10.0
PROXIES = ("b1", "b2")


def tell(stage: Stage, result: Result) -> None:
    """One sight after the other."""
    lab = stage.lab
    stage.say("starting HTTP servers on b3 and b4, and l7lb on b1 and b2")
    know_backends(result, start_web(stage, ["b3", "b4"]))
    context, certificate, key = issue(lab.directory, SITE)
    config = lab.directory / "l4lb.yaml"
    write_config(CONFIG, config, certificate, key)
    proxies = {name: start_proxy(lab.host(name), config, f"l7lb-{name}") for name in PROXIES}
    stage.say("starting l4lb on the gateway")
    balancer.write_config(config, config.with_name("tier1.yaml"), stage.datapath)
    l4lb = balancer.start(lab.gateway, config.with_name("tier1.yaml"))
    result.evidence["datapath"] = str(l4lb.status()["datapath"])
    began = time.monotonic()

    def note(what: str) -> None:
        result.timeline.append((time.monotonic() - began, what))

    def ask(shopper: Browser) -> Answer | None:
        try:
            answer = shopper.get(SITE)
        except (OSError, http.client.HTTPException):
            answer = None
        count_answer(result, answer)
        return answer

    def visit(shopper: Browser) -> set[str]:
        return {answer.server if answer else "" for answer in (ask(shopper) for _ in range(EACH))}

    def served() -> dict[str, int]:
        return {name: proxy.status()["counters"]["requests"] for name, proxy in proxies.items()}

    note(f"{SHOPPERS} shoppers come {EACH} times each over HTTPS, every time on a connection of its own")
    shoppers = [Browser(lab.client, VIP4, context) for _ in range(SHOPPERS)]
    homes = [visit(shopper) for shopper in shoppers]
    by_proxy = served()
    for name, requests in by_proxy.items():
        result.prove(f"requests_by_proxy_{name}", requests, requests > 0, "more than 0")
    result.check("requests of both proxies", sum(by_proxy.values()), result.requests)
    scheduled = {row["backend"]: row["scheduled"] for row in l4lb.backends()}
    addresses = {name: f"{lab.host(name).v4}:443" for name in PROXIES}
    for name in PROXIES:  # checks come past the service, so these are clients' connections alone
        result.check(f"connections to {name} and requests", scheduled[addresses[name]], by_proxy[name])

    note("b1 is killed with all that it has")
    killed = time.monotonic()
    os.killpg(proxies["b1"].process.pid, signal.SIGKILL)
    proxies.pop("b1").process.wait()
    before = result.failed

    def is_down() -> bool:
        rows = [row for row in l4lb.backends() if row["backend"] == addresses["b1"]]
        return bool(rows[0]["state"] == "down" and rows[0]["effective_weight"] == 0)

    while not is_down() and time.monotonic() < killed + DOWN_TIMEOUT_S:
        ask(shoppers[0])
    took = round(time.monotonic() - killed, 1)
    note("tier 1 has found it down")
    result.prove("seconds_to_remove_proxy", took, took < DOWN_TIMEOUT_S, f"below {DOWN_TIMEOUT_S:g}")
    result.evidence["failed_requests_before_removal"] = result.failed - before
    known = result.failed
    homes_after = [visit(shopper) for shopper in shoppers]
    failed = result.failed - known
    result.prove("failed_requests_after_removal", failed, failed == 0, "0")
    moves = sum(a != b or len(a) != 1 for a, b in zip(homes, homes_after, strict=True))
    result.prove("sessions", len(homes), True, "")
    result.prove("sessions_that_moved", moves, moves == 0, "0")

    log = proxies["b2"].output()
    seen = sum(line.startswith(f"{lab.client.v4} ") for line in log.splitlines())
    result.prove("requests_logged_with_the_clients_address", seen, seen > 0, "more than 0")
    result.good = (
        f"{SHOPPERS} sessions stayed where they were when a proxy died; tier 1 found out in {took} s"
    )
    if not stage.keep:
        l4lb.stop()
        result.check("exit code of l7lb", proxies["b2"].stop(), 0)


SCENARIO = Tour(
    name="two-tier",
    title="both tiers: l4lb in front of two l7lb, one of which is killed; sessions stay",
    config=CONFIG,
    tell=tell,
    hints=(
        ("client", f"curl -sSk --resolve {SITE}:443:{VIP4} https://{SITE}/"),
        ("gateway", "{l4lb} backends ls"),
        ("b2", "l7lb --socket {directory}/l7lb-b2.sock backends ls"),
    ),
)
