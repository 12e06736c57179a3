"""`./scripts/demo`: one scenario in a lab of its own, made before and removed after it."""

from __future__ import annotations

import json
import signal
import sys
from types import FrameType
from typing import NoReturn

import click
from rich.console import Console

from l4lb.errors import L4lbError
from tests.support.lab import Lab, LabError, unavailable, unique_prefix
from tests.support.scenarios import report
from tests.support.scenarios.base import IncapableError, Result, Stage
from tests.support.scenarios.catalog import SCENARIOS
from tests.support.scenarios.play import play
from tests.support.scenarios.scenario import Scenario
from tests.support.scenarios.story import Story
from tests.support.scenarios.tour import Tour

DATAPATHS = ("auto", "offload", "mark", "rewrite", "reference")
# With fewer a share of a tenth, or a turn of a scheduler, would say nothing.
LEAST_REQUESTS, MOST_REQUESTS = 30, 20_000
FAILED, INCAPABLE, SIGNALLED = 1, 3, 128
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class InterruptedBySignalError(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived; like KeyboardInterrupt nothing on the way may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def interrupt(number: int, _: FrameType | None) -> NoReturn:
    """Turn the first signal into an exception; the cleaning up is not disturbed by another."""
    ignore_signals()
    raise InterruptedBySignalError(number)


def ignore_signals() -> None:
    """From here on nothing but SIGKILL stops us."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@click.command(epilog="Example: ./scripts/demo --scenario dsr --datapath rewrite --json")
@click.option("--scenario", type=click.Choice(list(SCENARIOS)), default="nat", show_default=True)
@click.option("--list", "list_them", is_flag=True, help="List the scenarios and end.")
@click.option("--datapath", type=click.Choice(DATAPATHS), help="Instead of what the configuration says.")
@click.option(
    "--requests",
    type=click.IntRange(LEAST_REQUESTS, MOST_REQUESTS),
    help="HTTP requests, and as many datagrams.  [default: the scenario's]",
)
@click.option("--json", "as_json", is_flag=True, help="End standard output with one JSON object.")
@click.option("--keep", is_flag=True, help="Leave the lab up with all that runs in it.")
def main(
    scenario: str, list_them: bool, datapath: str | None, requests: int | None, as_json: bool, keep: bool
) -> None:
    """Show the balancer at work: clients, a gateway and servers in network namespaces, real traffic.

    Exit codes: 0 all went as it should, 1 it did not, 2 wrong arguments, 3 root or a kernel feature is
    missing.
    """
    if list_them:
        if as_json:
            click.echo(json.dumps({name: known.title for name, known in SCENARIOS.items()}))
        else:
            for name, known in SCENARIOS.items():
                click.echo(f"{name:10} {known.title}")
        return
    if requests is not None and isinstance(SCENARIOS[scenario], Story | Tour):
        raise click.UsageError(f"{scenario} counts no requests in advance: leave --requests out")
    for number in SIGNALS:
        signal.signal(number, interrupt)
    # With --json the talk goes to standard error and the object stands alone.
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    result = Result(scenario)
    code = show(SCENARIOS[scenario], result, datapath, requests, keep, console)
    report.print_result(console, result)
    if as_json:
        click.echo(json.dumps(result.as_json()))
    sys.exit(code)


def show(
    scenario: Scenario,
    result: Result,
    datapath: str | None,
    requests: int | None,
    keep: bool,
    console: Console,
) -> int:
    """Make the lab, run the scenario, remove the lab; returns the exit code."""
    reason = unavailable()
    if reason is not None:
        result.problems.append(reason)
        return INCAPABLE
    lab = Lab(unique_prefix("demo"), scenario.backends, shape=scenario.shape)

    def say(what: str) -> None:
        console.print(f"[bold]demo[/]: {what}")

    try:
        say(f"making the lab {lab.prefix}: client, gateway and {scenario.backends} backends ({lab.shape})")
        lab.up()
        play(scenario, Stage(lab, datapath, keep, say, requests), result)
    except IncapableError as error:
        result.problems.append(str(error))
        return INCAPABLE
    except (LabError, L4lbError) as error:
        result.problems.append(str(error))
    except InterruptedBySignalError as error:
        result.problems.append(f"interrupted by {error}")
        keep = False
        return SIGNALLED + error.number
    finally:
        ignore_signals()
        if keep:
            lab.leave()
            say("the lab stays, with all that runs in it:")
            for line in how_to_use(scenario, lab):
                console.print(f"  {line}", markup=False)
        else:
            say("removing the lab")
            remove(lab, result)
    return 0 if result.ok else FAILED


def remove(lab: Lab, result: Result) -> None:
    """Take the lab down; what cannot be removed is a problem of the run."""
    try:
        lab.down()
    except LabError as error:
        result.problems.append(f"removing the lab: {error}; try ./scripts/lab down --prefix {lab.prefix}")


def how_to_use(scenario: Scenario, lab: Lab) -> list[str]:
    """Commands that a person may want to run in a lab that was kept."""
    option = f"--prefix {lab.prefix}"
    l4lb = f"l4lb --socket {lab.directory}/l4lb.sock"
    web = [load for load in scenario.loads if load.kind == "http"]
    commands = [(load.sender, f"curl -sS 'http://{load.endpoint.removesuffix(':80')}/'") for load in web]
    commands += [("gateway", f"{l4lb} status"), *scenario.hints]
    return [
        f"./scripts/lab status {option}",
        *(
            f"./scripts/lab exec {option} {host} {line.format(l4lb=l4lb, directory=lab.directory)}"
            for host, line in commands
        ),
        f"./scripts/lab down {option}",
    ]


if __name__ == "__main__":
    main(prog_name="./scripts/demo")
