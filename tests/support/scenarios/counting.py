"""The course of a scenario that counts: send, and compare.

Three parties count on their own: the clients (who answered me?), the servers (whom did I answer?) and the
balancer (whom did I choose?). A scenario is good when nothing failed, all three agree for each backend, the
requests are spread as the weights say, and its witness found what the scenario is there to prove.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.support.scenarios import compare, traffic
from tests.support.scenarios.base import BackendResult, Result
from tests.support.scenarios.scenario import Load, Played, Witness
from tests.support.scenarios.traffic import Tally


def count(played: Played, witness: Witness, result: Result) -> None:
    """Send everything, and compare what everybody counted."""
    _know_backends(played, result)
    for load in played.scenario.loads:
        played.tallies.append((load, _send(played, load, witness)))
    played.stage.say("comparing what clients, servers and the balancer counted")
    compare.take_clients(played, result)
    compare.compare_servers(played, result)
    compare.compare_balancer(played, result)
    compare.compare_weights(played, result)
    witness.testify(played, result)
    result.good = (
        f"{result.requests} requests and {result.datagrams} datagrams, none lost; "
        "client, servers and balancer count the same"
    )


def _know_backends(played: Played, result: Result) -> None:
    service = played.scenario.loads[0].service
    for row in played.rows():
        if row["service"] == service:
            result.backends[played.host_of(row)] = BackendResult(row["backend"], row["weight"])
    result.check(
        f"backends of the service {service} and servers", sorted(result.backends), sorted(played.web)
    )


def _send(played: Played, load: Load, witness: Witness) -> Tally:
    stage, scenario = played.stage, played.scenario
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
    while_open: Callable[[], None] = lambda: witness.while_open(played.l4lb, load)  # noqa: E731 (an argument)
    return traffic.send_kept_requests(sender, load.address, load.port, flows, each, while_open)
