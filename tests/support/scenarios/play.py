"""One scenario from its first server to its verdict, whatever its form."""

from __future__ import annotations

from tests.support import servers
from tests.support.lab import LabError
from tests.support.scenarios import balancer, counting, story
from tests.support.scenarios.balancer import Balancer
from tests.support.scenarios.base import Result, Stage
from tests.support.scenarios.scenario import Counted, Played, Scenario
from tests.support.scenarios.story import Story
from tests.support.scenarios.tour import Tour


def play(scenario: Scenario, stage: Stage, result: Result) -> None:
    """Start everything, let the scenario take its course, stop l4lb."""
    if isinstance(scenario, Tour):
        scenario.tell(stage, result)
        return
    lab = stage.lab
    stage.say("starting an HTTP server and a UDP echo server on each backend")
    web = {host.name: servers.start_http(host, scenario.http_port) for host in lab.backends}
    echo = {host.name: servers.start_echo(host, scenario.echo_port) for host in lab.backends}
    for server in (*web.values(), *echo.values()):
        server.wait_ready()
    if isinstance(scenario, Counted):
        witness = scenario.witness()
        witness.prepare(stage)
        l4lb = _start_balancer(scenario, stage, result)
        counting.count(Played(stage, scenario, l4lb, web, echo, []), witness, result)
    elif isinstance(scenario, Story):
        l4lb = _start_balancer(scenario, stage, result)
        story.tell(scenario, stage, l4lb, web, result)
    else:
        raise LabError(f"the scenario {scenario.name} has no form that can be played")
    if not stage.keep:
        l4lb.stop()


def _start_balancer(scenario: Scenario, stage: Stage, result: Result) -> Balancer:
    stage.say("starting l4lb on the gateway")
    config = stage.lab.directory / "l4lb.yaml"
    balancer.write_config(scenario.config, config, stage.datapath)
    l4lb = balancer.start(stage.lab.gateway, config)
    result.evidence["datapath"] = str(l4lb.status().get("datapath", "unknown"))
    return l4lb
