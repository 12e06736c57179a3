"""A program as a check."""

from __future__ import annotations

import asyncio
import os
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from l4lb.model import CheckType, HealthCheck
from l4lb.net.checks.kinds import check
from l4lb.net.checks.target import Outcome, Target
from tests.support.lab.wait import wait_for

TARGET = Target(ip_address("10.2.0.11"), 8080)
LATE_S = 30.0


def run(*command: str, timeout_s: float = LATE_S, target: Target = TARGET) -> Outcome:
    how = HealthCheck(CheckType.EXEC, timeout_s=timeout_s, command=command)
    return asyncio.run(check(target, how))


def sh(script: str, timeout_s: float = LATE_S) -> Outcome:
    return run("/bin/sh", "-c", script, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("script", "why", "weight"),
    [
        ("exit 0", "exit code 0", None),
        ("echo 25", "exit code 0, weight 25", 25),
        ("echo 0; echo more", "exit code 0, weight 0", 0),
        ("printf 65535", "exit code 0, weight 65535", 65535),
        ("echo 65536", "exit code 0; 65536 is no weight, the largest is 65535", None),
        ("echo -1", "exit code 0: -1", None),
        ("echo 2.5", "exit code 0: 2.5", None),
        ("echo; echo 25", "exit code 0", None),
        ("echo all is well", "exit code 0: all is well", None),
        ("echo 7 >&2", "exit code 0", None),
    ],
)
def test_success(script, why, weight):
    outcome = sh(script)
    assert (outcome.ok, outcome.why, outcome.weight) == (True, why, weight)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 3", "exit code 3"),
        ("echo 25; exit 1", "exit code 1: 25"),
        ("echo 'replica is behind'; echo more; exit 2", "exit code 2: replica is behind"),
        ("kill -9 $$", "ended by signal 9"),
        (r"printf '\033[31mred\007\377'; exit 1", "exit code 1: [31mred\ufffd"),
    ],
)
def test_failure(script, why):
    outcome = sh(script)
    assert (outcome.ok, outcome.why, outcome.weight) == (False, why, None)


def test_it_gets_the_address_and_port_of_the_backend():
    assert sh('echo "$0 $1"').why == "exit code 0: 10.2.0.11 8080"
    assert run("/bin/echo", target=Target(ip_address("2001:db8::1"), 80)).why == "exit code 0: 2001:db8::1 80"


def test_a_program_that_is_not_there(tmp_path):
    assert run("/no/such/program").why == "/no/such/program cannot be run: no such file or directory"
    file = tmp_path / "plain"
    file.write_text("")
    assert run(str(file)).why == f"{file} cannot be run: permission denied"
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF garbage")
    broken.chmod(0o700)
    assert run(str(broken)).why == f"{broken} cannot be run: exec format error"


def is_running(file: Path) -> bool:
    """Whether the process whose id is in the file runs; a zombie does not."""
    try:
        status = Path(f"/proc/{int(file.read_text())}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_one_that_hangs_is_killed_with_its_children(tmp_path):
    child, parent = tmp_path / "child", tmp_path / "parent"
    outcome = sh(f"echo $$ > {parent}; trap '' TERM; sleep 600 & echo $! > {child}; wait", timeout_s=0.5)
    assert (outcome.ok, outcome.why) == (False, "no end of the program in 0.5 s")
    assert outcome.took_s < 10
    wait_for(lambda: not is_running(child) and not is_running(parent), 10, "the programs to end")


def test_endless_output_neither_blocks_nor_is_kept():
    outcome = run(
        sys.executable,
        "-c",
        "import os; os.write(1, b'5\\n'); [os.write(1, bytes(65536)) for _ in range(200)]",
    )
    assert (outcome.ok, outcome.weight) == (True, 5)


def test_the_end_of_the_program_counts_not_of_its_output(tmp_path):
    """A child that holds the output on does not keep the check."""
    child = tmp_path / "child"
    outcome = sh(f"echo 5; sleep 600 & echo $! > {child}")
    try:
        assert (outcome.ok, outcome.weight) == (True, 5)
        assert outcome.took_s < 10
    finally:
        os.kill(int(child.read_text()), 9)


def test_no_descriptor_is_left():
    before = len(list(Path("/proc/self/fd").iterdir()))
    for script, timeout_s in (("exit 0", LATE_S), ("sleep 600", 0.05), ("exit 1", LATE_S)):
        sh(script, timeout_s)
    run("/no/such/program")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
