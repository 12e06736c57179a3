"""`./scripts/vm-lab`: the Vagrant lab on a machine without hardware virtualisation and without a public
box."""

from __future__ import annotations

import signal
import subprocess
import sys
from types import FrameType
from typing import NoReturn

import click

from tests.bench.__main__ import parser as bench_parser
from tests.support.vm import box, host, machines
from tests.support.vm.steps import ROOT, VmLabError, alone, say, step


@click.group(epilog="Example: ./scripts/vm-lab up && ./scripts/vm-lab test -k dsr && ./scripts/vm-lab down")
def main() -> None:
    """Real machines with kernels of their own: a client, a gateway that runs l4lb as a service, two backends.

    All of its set-up is its own: packages, libvirt, the box. What it makes stands in build/vm.
    """


def _bring_up() -> bool:
    """Brings the lab up, or up to date with this checkout; whether it was up before.

    What did not come up is taken away again, also when a person interrupts it; what was up stays."""
    host.install()
    was_up = host.answers() and machines.is_up()
    try:
        host.start()
        if not was_up:
            machines.refuse_others()
    except BaseException:
        host.stop()
        raise
    try:
        sources = machines.sources()
        machines.build_wheels(sources)
        # Machines that run keep the box that they have: provisioning brings them up to date.
        if not was_up:
            machines.add_box(box.catalog(machines.WHEELS, sources), box.version(sources))
        machines.up(were_up=was_up)
    except BaseException:
        if not was_up:
            say("it did not come up; cleaning up")
            _take_down()
        raise
    return was_up


def _take_down() -> None:
    machines.destroy()
    host.stop()


@main.command(epilog="Example: ./scripts/vm-lab up && ./scripts/vm-lab ssh gateway l4lb status")
def up() -> None:
    """Bring the lab up, or up to date with this checkout."""
    with alone():
        _bring_up()
    click.echo("The lab is up. Enter a machine: ./scripts/vm-lab ssh gateway")
    click.echo("Remove it:                      ./scripts/vm-lab down")


@main.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Example: ./scripts/vm-lab test --keep -k dsr",
)
@click.option("--keep", is_flag=True, help="Leave the lab up, also if it was not before.")
@click.argument("pytest_words", nargs=-1, type=click.UNPROCESSED)
def test(keep: bool, pytest_words: tuple[str, ...]) -> None:
    """Run tests/vm in the lab, which is brought up and removed for it if it is not there; words go to
    pytest."""
    _with_lab(["pytest", "--vm", "--timeout=900", "tests/vm", *pytest_words], keep=keep)


@main.command(
    context_settings={"ignore_unknown_options": True}, epilog="Example: ./scripts/vm-lab bench --keep"
)
@click.option("--keep", is_flag=True, help="Leave the lab up, also if it was not before.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def bench(keep: bool, words: tuple[str, ...]) -> None:
    """Measure l4lb beside IPVS on the same machines: ./scripts/bench ipvs, which the words go to."""
    bench_parser().parse_args(["ipvs", *words])  # what is wrong is said before the lab is brought up
    _with_lab(["tests.bench", "ipvs", *words], keep=keep)


def _with_lab(module: list[str], *, keep: bool) -> None:
    with alone():
        was_up = _bring_up()
        try:
            code = subprocess.run([sys.executable, "-m", *module], cwd=ROOT, check=False).returncode
        finally:
            if not (keep or was_up):
                _take_down()
    sys.exit(code)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("machine")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(machine: str, command: tuple[str, ...]) -> None:
    """Enter a machine, or run a command in it as root."""
    if not machines.came_up():
        raise VmLabError("the lab is not up; bring it up: ./scripts/vm-lab up")
    known = machines.names()
    if machine not in known:
        raise click.BadParameter(f"{machine!r} is none of {', '.join(known)}", param_hint="MACHINE")
    words = machines.Machine(machine).words(*command)
    sys.exit(subprocess.run(words, check=False).returncode)


@main.command()
def status() -> None:
    """Say what runs."""
    sys.exit(machines.status())


@main.command()
@click.option("--box", "also_box", is_flag=True, help="Remove the box, too; the next `up` builds it again.")
def down(also_box: bool) -> None:
    """Remove the machines and their networks, and end what was started for them."""
    with alone():
        host.start()
        machines.destroy()
        if also_box:
            with step("removing the box"):
                machines.forget_boxes()
                box.remove()
        host.stop()


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """The first signal begins the cleaning up, which is not to be interrupted again."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def run() -> None:
    """The command, with errors as one line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        main(prog_name="./scripts/vm-lab")
    except VmLabError as error:
        say(str(error))
        sys.exit(1)


if __name__ == "__main__":
    run()
