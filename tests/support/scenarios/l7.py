"""The HTTP proxy: sites behind one address over HTTPS, sessions, a killed server, a WebSocket in a reload."""

from __future__ import annotations

import http.client
import signal
import ssl
import sys
import time
from collections.abc import Callable

from websockets.sync.client import ClientConnection

from tests.support.lab import ROOT
from tests.support.scenarios.base import Result, Stage
from tests.support.scenarios.browser import Answer, Browser, issue
from tests.support.scenarios.scenario import VIP4
from tests.support.scenarios.tour import (
    Tour,
    count_answer,
    know_backends,
    start_proxy,
    start_web,
    wait_state,
    write_config,
)

CONFIG = ROOT / "examples/l7-demo.yaml"
SHOP, API = "shop.example", "api.example"
SHOPPERS, EACH = 20, 5
DOWN_TIMEOUT_S = 10.0
MESSAGES = 20


def tell(stage: Stage, result: Result) -> None:
    """One sight after the other."""
    lab = stage.lab
    stage.say("starting HTTP servers on b1, b2 and b3, and WebSocket servers on b4 and b3")
    web = start_web(stage, ["b1", "b2", "b3"])
    for name, port in (("b4", 8080), ("b3", 8081)):
        argv = [sys.executable, "-m", "tests.support.websocket_echo", "--name", name, "--port", str(port)]
        process = lab.host(name).popen(argv, log=f"{name}-live.log")
        lab.host(name).wait_listening(port, process=process)
    know_backends(result, web)
    context, certificate, key = issue(lab.directory, SHOP, API)
    config = lab.directory / "l7lb.yaml"
    write_config(CONFIG, config, certificate, key)
    lab.gateway.run(["ip", "address", "add", f"{VIP4}/32", "dev", "lo"])
    stage.say(f"starting l7lb on the gateway, at {VIP4}")
    proxy = start_proxy(lab.gateway, config, "l7lb")
    began = time.monotonic()

    def note(what: str) -> None:
        result.timeline.append((time.monotonic() - began, what))

    def ask(browser: Browser, site: str, path: str = "/", *, tls: bool = True) -> Answer | None:
        try:
            answer = browser.get(site, path, tls=tls)
        except (OSError, http.client.HTTPException):
            answer = None
        count_answer(result, answer)
        return answer

    def newcomer() -> Browser:
        return Browser(lab.client, VIP4, context)

    note("plain HTTP is sent to HTTPS; hosts and paths find their servers")
    moved = ask(newcomer(), SHOP, "/cart?a=1", tls=False)
    where = (moved.headers.get("location"), moved.status) if moved else None
    result.check("the redirect", where, (f"https://{SHOP}/cart?a=1", 301))
    for site, path, servers in ((API, "/", {"b3"}), (SHOP, "/api/users", {"b3"}), (SHOP, "/", {"b1", "b2"})):
        answers = [ask(newcomer(), site, path) for _ in range(6)]
        result.check(f"who answers for {site}{path}", {a.server if a else None for a in answers}, servers)
    _prove_unknown_host(result, newcomer())

    note(f"{SHOPPERS} shoppers come {EACH} times each, with the cookie that they were given")
    shoppers = [newcomer() for _ in range(SHOPPERS)]
    homes = [_visit(ask, shopper) for shopper in shoppers]
    moves = sum(len(home) - 1 for home in homes)
    result.prove("sessions", len(homes), all(len(home) == 1 for home in homes), "of one server each")
    result.prove("sessions_that_moved", moves, moves == 0, "0")

    note("a WebSocket is opened to b4, over HTTPS")
    said = 0
    with newcomer().websocket(SHOP, "/live") as socket:
        said += _talk(socket, MESSAGES)

        note("b1 is killed; nobody who asks is told")
        before = result.failed
        killed = time.monotonic()
        web["b1"].process.stop(signal.SIGKILL)
        for shopper in shoppers:
            ask(shopper, SHOP)
        row = wait_state(proxy, "shop", "10.2.0.11:8080", "down", DOWN_TIMEOUT_S)
        took = round(time.monotonic() - killed, 1)
        note(f"checks have found b1 down: {row['why']}")
        moved_homes = [_visit(ask, shopper) for shopper in shoppers]
        failed = result.failed - before
        result.prove("failed_requests_after_kill", failed, failed == 0, "0")
        result.prove("seconds_to_find_it_down", took, took < DOWN_TIMEOUT_S, f"below {DOWN_TIMEOUT_S:g}")
        result.check("who answers without b1", set().union(*moved_homes), {"b2"})

        note("the configuration is reloaded; the WebSocket stays")
        proxy.command("reload")
        said += _talk(socket, MESSAGES)
    result.prove("websocket_messages", said, said == 2 * MESSAGES, str(2 * MESSAGES))
    again = ask(newcomer(), SHOP)
    result.check("who answers after the reload", again.server if again else None, "b2")

    counted = proxy.status()["counters"]
    refused = counted["ends"].get("no-route", 0)
    result.check("requests that l7lb counts", counted["requests"] + refused, result.requests + 1)
    result.prove("generation", proxy.status()["generation"], proxy.status()["generation"] == 2, "2")
    result.good = (
        f"{result.requests} requests, none failed though a server was killed; "
        f"{SHOPPERS} sessions stayed where they were, and a WebSocket over a reload"
    )
    if not stage.keep:
        result.check("exit code of l7lb", proxy.stop(), 0)


def _visit(ask: Callable[[Browser, str], Answer | None], shopper: Browser) -> set[str]:
    """Who answers a shopper's requests."""
    answers = [ask(shopper, SHOP) for _ in range(EACH)]
    return {answer.server for answer in answers if answer is not None}


def _talk(socket: ClientConnection, messages: int) -> int:
    """Messages that came back as they should."""
    good = 0
    for number in range(messages):
        socket.send(str(number))
        good += socket.recv(timeout=5) == f"b4: {number}"
    return good


def _prove_unknown_host(result: Result, browser: Browser) -> None:
    """A site that nobody has is answered by the proxy itself."""
    browser.context = ssl.create_default_context()
    browser.context.check_hostname = False
    browser.context.verify_mode = ssl.CERT_NONE
    answer = browser.get("nobody.example")
    result.requests += 1
    result.check("the answer for a site that nobody has", answer.status, 404)


SCENARIO = Tour(
    name="l7",
    title="HTTP proxy: HTTPS, hosts and paths, sessions, a killed server, a WebSocket over a reload",
    config=CONFIG,
    tell=tell,
    hints=(
        ("client", f"curl -sSk --resolve {SHOP}:443:{VIP4} https://{SHOP}/"),
        ("gateway", "l7lb --socket {directory}/l7lb.sock status"),
        ("gateway", f"l7lb --socket {{directory}}/l7lb.sock explain https://{SHOP}/api/users"),
    ),
)
