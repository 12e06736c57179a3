"""`./scripts/bench NAME`: runs one benchmark and prints its figures."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from types import FrameType
from typing import NoReturn

from rich.console import Console

from l4lb.errors import L4lbError
from tests.bench import machine, report
from tests.bench.errors import BenchError
from tests.bench.runner import end_progress
from tests.support.lab import LabError, unavailable

MODULES = {
    "decide": "decide",
    "heads": "heads",
    "packet-path": "packet_path",
    "dsr": "dsr",
    "connections": "connections",
    "bulk": "bulk",
    "offload": "offload",
    "flood": "flood",
    "idle": "idle",
    "l7": "http",
    "flows": "flows",
    "reload": "reload",
    "ipvs": "ipvs",
}
DONE, FAILED, WRONG, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code. A figure that misses its target is no failure."""
    given = parser().parse_args(argv)
    if given.list or given.name is None:
        for name, module in MODULES.items():
            print(f"{name:12} {import_module(f'tests.bench.{module}').ABOUT}")
        return DONE if given.list else WRONG
    bench = import_module(f"tests.bench.{MODULES[given.name]}")
    if bench.NEEDS_LAB and (reason := unavailable()):
        return _complain(reason, UNAVAILABLE)
    settings = bench.QUICK if given.quick else bench.DEFAULTS
    settings = replace(settings, runs=given.runs or settings.runs, seconds=given.seconds or settings.seconds)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        machine.require(bench.PROGRAMS)
        about = machine.describe(bench.PROGRAMS)
        measures = bench.run(settings)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except L4lbError as error:
        return _complain(str(error), error.exit_code)
    except (BenchError, LabError, OSError, subprocess.SubprocessError) as error:
        return _complain(str(error), FAILED)
    if given.json:
        report.print_table(given.name, measures, about, Console(stderr=True))
        print(json.dumps(report.to_json(given.name, measures, about)))
    else:
        report.print_table(given.name, measures, about, Console())
    return DONE


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    taken = argparse.ArgumentParser(
        prog="./scripts/bench",
        description="Measure l4lb beside its peers, in turns within one run.",
        epilog="example: ./scripts/bench packet-path --runs 5 --seconds 2 --json",
    )
    taken.add_argument("name", nargs="?", choices=MODULES, metavar="NAME", help=", ".join(MODULES))
    taken.add_argument("--list", action="store_true", help="list the benchmarks")
    taken.add_argument("--json", action="store_true", help="end with a JSON object; the table goes to stderr")
    taken.add_argument("--runs", type=_positive(int), metavar="N", help="rounds over all sides")
    taken.add_argument("--seconds", type=_positive(float), metavar="S", help="of one measurement of one side")
    taken.add_argument(
        "--quick", action="store_true", help="a smoke test: see that it works, believe no figure"
    )
    return taken


def _positive(kind: type[int] | type[float]):  # type: ignore[no-untyped-def]
    def parse(text: str) -> int | float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError("must be above 0")
        return value

    parse.__name__ = kind.__name__
    return parse


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """The first signal ends the run; what is then taken down is not to be interrupted again."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _complain(reason: str, code: int) -> int:
    end_progress()
    print(f"bench: {' '.join(reason.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
