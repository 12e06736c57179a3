"""NAT: a weighted HTTP service and a UDP service on virtual addresses, three backends behind each.

Three parties count on their own: the client (who answered me?), the servers (whom did I answer?) and the
balancer (whom did I choose?). The scenario is good when nothing failed, all three agree for each backend,
and the requests are spread as the weights say.
"""

from __future__ import annotations

from typing import Any

from tests.support import servers
from tests.support.lab import ROOT, LabError, wait_for
from tests.support.scenarios import balancer, traffic
from tests.support.scenarios.balancer import Balancer
from tests.support.scenarios.base import BackendResult, Result, Scenario, Stage
from tests.support.scenarios.traffic import Tally
from tests.support.servers import ECHO_PORT, HTTP_PORT, Server

VIP = "203.0.113.10"
WEB_PORT = 80
REQUESTS = 300
DATAGRAMS = 300
# The balancer may publish its counts a moment after the packets.
COUNTS_TIMEOUT_S = 5.0
# Workers take turns each on their own, so the shares are exact only over full turns of each.
SHARE_TOLERANCE = 0.05
SHOWN_ERRORS = 3


def run(stage: Stage, result: Result) -> None:
    """Start everything, send, compare."""
    lab, say = stage.lab, stage.say
    say("starting an HTTP server and a UDP echo server on each backend")
    web = {host.name: servers.start_http(host) for host in lab.backends}
    echo = {host.name: servers.start_echo(host) for host in lab.backends}
    for server in (*web.values(), *echo.values()):
        server.wait_ready()

    say("starting l4lb on the gateway")
    config = lab.directory / "l4lb.yaml"
    balancer.write_config(SCENARIO.config, config, stage.datapath)
    l4lb = balancer.start(lab.gateway, config)
    result.evidence["datapath"] = str(l4lb.status().get("datapath", "unknown"))
    for row in l4lb.backends():
        if row["service"] == "web":
            result.backends[_host_of(stage, row)] = BackendResult(row["backend"], row["weight"])
    result.check("backends of the service web and servers", sorted(result.backends), sorted(web))

    say(f"sending {REQUESTS} HTTP requests, a connection each, to {VIP}:{WEB_PORT}")
    requests = traffic.send_requests(lab.client, VIP, WEB_PORT, REQUESTS)
    say(f"sending {DATAGRAMS} UDP datagrams, a source port each, to {VIP}:{ECHO_PORT}")
    datagrams = traffic.send_datagrams(lab.client, VIP, ECHO_PORT, DATAGRAMS)

    say("comparing what the client, the servers and the balancer counted")
    _take_client(result, requests, datagrams)
    _compare_servers(result, web, echo, requests, datagrams)
    _compare_balancer(result, stage, l4lb)
    _compare_weights(result)
    if not stage.keep:
        l4lb.stop()


def _host_of(stage: Stage, row: dict[str, Any]) -> str:
    """The host that a backend's address belongs to."""
    address = row["backend"].rpartition(":")[0]
    for host in stage.lab.backends:
        if address == host.v4:
            return host.name
    raise LabError(f"the balancer has a backend {row['backend']} of the service {row['service']} on no host")


def _take_client(result: Result, requests: Tally, datagrams: Tally) -> None:
    result.requests, result.failed = requests.sent, requests.missing
    result.datagrams, result.lost = datagrams.sent, datagrams.missing
    for name, backend in result.backends.items():
        backend.connections = backend.requests = requests.answered[name]
        backend.datagrams = datagrams.answered[name]
        backend.bytes = requests.bytes[name] + datagrams.bytes[name]
    for what, tally in (("HTTP requests failed", requests), ("datagrams lost", datagrams)):
        if tally.missing:
            examples = ", ".join(tally.errors[:SHOWN_ERRORS])
            result.problems.append(f"{tally.missing} of {tally.sent} {what} ({examples})")
        strangers = set(tally.answered) - set(result.backends)
        if strangers:
            result.problems.append(f"answers came from {', '.join(sorted(strangers))}, no backend")


def _compare_servers(
    result: Result, web: dict[str, Server], echo: dict[str, Server], requests: Tally, datagrams: Tally
) -> None:
    for name in result.backends:
        expected = {
            "connections": requests.answered[name],
            "requests": requests.answered[name],
            "bytes": requests.bytes[name],
        }
        result.check(f"{name}: HTTP seen by client and server", expected, web[name].counts())
        expected = {
            "datagrams": datagrams.answered[name],
            "peers": datagrams.answered[name],
            "bytes": datagrams.bytes[name],
        }
        result.check(f"{name}: UDP seen by client and server", expected, echo[name].counts())


def _compare_balancer(result: Result, stage: Stage, l4lb: Balancer) -> None:
    """What the balancer chose, against what the client saw; it gets a moment to publish its counts."""
    expected = {("web", name): backend.connections for name, backend in result.backends.items()}
    expected |= {("echo", name): backend.datagrams for name, backend in result.backends.items()}

    def chosen() -> dict[tuple[str, str], int]:
        result.balancer = l4lb.backends()
        return {(row["service"], _host_of(stage, row)): row["scheduled"] for row in result.balancer}

    try:
        wait_for(lambda: chosen() == expected, COUNTS_TIMEOUT_S, "the balancer's counts")
    except LabError:
        counted = chosen()
        for key in sorted(expected.keys() | counted.keys()):
            result.check(
                f"{key[1]}: flows of {key[0]} seen by the client and scheduled by the balancer",
                expected.get(key),
                counted.get(key),
            )
    # A datagram is a packet: here the balancer's packet counts are known exactly.
    seen = {_host_of(stage, row): row["packets_in"] for row in result.balancer if row["service"] == "echo"}
    for name, backend in result.backends.items():
        result.check(f"{name}: datagrams and the balancer's packets in", backend.datagrams, seen.get(name))
    for number in ("scheduled", "packets_in", "bytes_in", "packets_out", "bytes_out"):
        values = [row[number] for row in result.balancer]
        if None not in values:  # in `mark`, answers do not pass the balancer
            result.evidence[number] = sum(values)


def _compare_weights(result: Result) -> None:
    weights = sum(backend.weight for backend in result.backends.values())
    for name, backend in result.backends.items():
        wanted = backend.weight / weights
        share = backend.connections / REQUESTS
        if abs(share - wanted) > SHARE_TOLERANCE:
            result.problems.append(
                f"{name} got {share:.0%} of the connections, its weight {backend.weight} is {wanted:.0%}"
            )


SCENARIO = Scenario(
    name="nat",
    title="NAT: HTTP by weights 3, 2, 1 and UDP in turn, over three backends",
    backends=3,
    config=ROOT / "examples/nat.yaml",
    run=run,
)
# The ports that the configuration names.
assert (HTTP_PORT, ECHO_PORT) == (8080, 7)
