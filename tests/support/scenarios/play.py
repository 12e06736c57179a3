"""One scenario from its first server to its verdict.

Three parties count on their own: the clients (who answered me?), the servers (whom did I answer?) and the
balancer (whom did I choose?). A scenario is good when nothing failed, all three agree for each backend, the
requests are spread as the weights say, and its witness found what the scenario is there to prove.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.support import servers
from tests.support.scenarios import balancer, compare, traffic
from tests.support.scenarios.balancer import Balancer
from tests.support.scenarios.base import BackendResult, Result, Stage
from tests.support.scenarios.scenario import Load, Played, Scenario, Witness
from tests.support.scenarios.traffic import Tally


def play(scenario: Scenario, stage: Stage, result: Result) -> None:
    """Start everything, send, compare."""
    lab, say = stage.lab, stage.say
    say("starting an HTTP server and a UDP echo server on each backend")
    web = {host.name: servers.start_http(host, scenario.http_port) for host in lab.backends}
    echo = {host.name: servers.start_echo(host, scenario.echo_port) for host in lab.backends}
    for server in (*web.values(), *echo.values()):
        server.wait_ready()
    witness = scenario.witness()
    witness.prepare(stage)

    say("starting l4lb on the gateway")
    config = lab.directory / "l4lb.yaml"
    balancer.write_config(scenario.config, config, stage.datapath)
    l4lb = balancer.start(lab.gateway, config)
    played = Played(stage, scenario, l4lb, web, echo, [])
    result.evidence["datapath"] = str(l4lb.status().get("datapath", "unknown"))
    _know_backends(played, result)
    for load in scenario.loads:
        played.tallies.append((load, _send(stage, scenario, load, l4lb, witness)))

    say("comparing what clients, servers and the balancer counted")
    compare.take_clients(played, result)
    compare.compare_servers(played, result)
    compare.compare_balancer(played, result)
    compare.compare_weights(played, result)
    witness.testify(played, result)
    if not stage.keep:
        l4lb.stop()


def _know_backends(played: Played, result: Result) -> None:
    service = played.scenario.loads[0].service
    for row in played.rows():
        if row["service"] == service:
            result.backends[played.host_of(row)] = BackendResult(row["backend"], row["weight"])
    result.check(
        f"backends of the service {service} and servers", sorted(result.backends), sorted(played.web)
    )


def _send(stage: Stage, scenario: Scenario, load: Load, l4lb: Balancer, witness: Witness) -> Tally:
    total = max(1, round((stage.requests or scenario.requests) * load.share))
    each = min(scenario.per_flow, total)
    flows = total // each
    sender = stage.lab.host(load.sender)
    what = f"{flows * each} {'HTTP requests' if load.kind == 'http' else 'UDP datagrams'}"
    over = "connection" if load.kind == "http" else "source port"
    over = f"a {over} each" if each == 1 else f"{each} over each {over}"
    by = "" if load.sender == "client" else f" from {load.sender}"
    stage.say(f"sending {what}{by}, {over}, to {load.endpoint}")
    if load.kind == "udp":
        return traffic.send_datagrams(sender, load.address, load.port, flows, per_socket=each)
    if each == 1:
        return traffic.send_requests(sender, load.address, load.port, flows)
    while_open: Callable[[], None] = lambda: witness.while_open(l4lb, load)  # noqa: E731 (it is an argument)
    return traffic.send_kept_requests(sender, load.address, load.port, flows, each, while_open)
