"""The commands of the repository: arguments, exit codes, and the parts of them that need no root."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support import http_server, results
from tests.support.lab import LAST_BACKEND, ROOT, Lab, LabError, topology, wait_for
from tests.support.lab import __main__ as lab_command
from tests.support.scenarios import __main__ as demo_command
from tests.support.scenarios import traffic
from tests.support.scenarios.base import BackendResult, Result

LOCK = ROOT / "requirements-test.lock"


def script(*argv: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / argv[0], *argv[1:]], cwd=cwd, capture_output=True, text=True, timeout=600, check=False
    )


def test_the_demo_lists_its_scenarios_from_anywhere(tmp_path: Path) -> None:
    done = script("scripts/demo", "--list", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("nat ")


@pytest.mark.parametrize(
    "argv",
    [
        ("scripts/setup", "--nothing"),
        ("scripts/demo", "--scenario", "nothing"),
        ("scripts/demo", "--datapath", "nothing"),
        ("scripts/demo", "surplus"),
        ("scripts/lab",),
        ("scripts/lab", "nothing"),
        ("scripts/lab", "up", "--backends", "0"),
        ("scripts/lab", "down", "--prefix", "Up per"),
        ("scripts/lab", "exec", "client"),
    ],
    ids=" ".join,
)
def test_wrong_arguments_end_with_2_and_an_explanation(argv: tuple[str, ...]) -> None:
    done = script(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


def test_the_second_setup_is_silent() -> None:
    assert script("scripts/setup").returncode == 0
    done = script("scripts/setup")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["setup", "test", "lab", "demo", "asan"])
def test_scripts_can_be_executed_and_parsed(name: str) -> None:
    path = ROOT / "scripts" / name
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", path], check=True, timeout=30)


def test_make_help_lists_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert listed == phony[1].split()


def test_the_lock_pins_every_dependency_and_names_no_place_to_get_it_from() -> None:
    lines = [line for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)
    pinned = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["test"]
    wanted += project["build-system"]["requires"]
    names = {re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower() for requirement in wanted}  # type: ignore[index]
    assert names <= pinned


@pytest.mark.parametrize("command", [lab_command.main, demo_command.main], ids=["lab", "demo"])
def test_without_root_the_exit_code_is_3(command: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    arguments = ["status"] if command is lab_command.main else ["--json"]
    done = CliRunner().invoke(command, arguments)  # type: ignore[arg-type]
    assert done.exit_code == 3
    assert "root" in done.output


def test_a_test_run_is_summarized() -> None:
    junit = '<testsuites><testsuite tests="9" failures="1" errors="1" skipped="3"/></testsuites>'
    assert results.summarize(junit) == "4 tests passed, 2 failed, 3 skipped (the reasons are above)"


def test_the_demo_prints_the_object_that_others_build_on() -> None:
    result = Result("nat", requests=2, backends={"b1": BackendResult("10.2.0.11:8080", 3, requests=2)})
    result.check("same", 1, 1)
    assert result.as_json() == {
        "scenario": "nat",
        "ok": True,
        "why": None,
        "requests": 2,
        "failed": 0,
        "datagrams": 0,
        "lost": 0,
        "backends": {"b1": {"weight": 3, "connections": 0, "requests": 2, "datagrams": 0, "bytes": 0}},
        "evidence": {},
    }
    result.check("flows", 1, 2)
    result.check("bytes", 3, 4)
    assert result.as_json()["ok"] is False
    assert result.as_json()["why"] == "flows: 1 against 2; bytes: 3 against 4"


def test_an_answer_counts_only_if_it_is_whole_and_of_one_name() -> None:
    good = http_server.build_response("b1", "200 OK", b"b1\n", keep_alive=False)
    assert traffic._name_of(good) == "b1"
    for bad in (
        b"",
        good[:-1],
        good.replace(b"200", b"500"),
        http_server.build_response("b1", "200 OK", b"b2\n", keep_alive=False),
    ):
        with pytest.raises(ValueError, match="a wrong answer"):
            traffic._name_of(bad)


def test_the_topology_gives_every_host_its_own_addresses() -> None:
    plan = topology.plan(LAST_BACKEND)
    interfaces = [interface for host in plan.hosts for interface in host.interfaces]
    for family in ("v4", "v6"):
        addresses = [address for i in interfaces if (address := getattr(i, family)) is not None]
        assert len(addresses) == len(set(addresses)) == LAST_BACKEND + 3
    names = [interface.name for interface in interfaces]
    assert max(map(len, names)) <= 15


@pytest.mark.parametrize("backends", [0, LAST_BACKEND + 1])
def test_a_lab_has_bounds(backends: int) -> None:
    with pytest.raises(ValueError, match=f"1 to {LAST_BACKEND} backends"):
        Lab("test", backends)


@pytest.mark.parametrize("prefix", ["", "-a", "a-", "a--b", "A", "a/b", "a b", "7"])
def test_a_prefix_that_cannot_name_namespaces_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        Lab(prefix)


def test_waiting_returns_the_answer_and_ends_in_time() -> None:
    answers = iter([None, 0, "yes"])
    assert wait_for(lambda: next(answers), 10, "an answer") == "yes"
    with pytest.raises(LabError, match="waited 0 s in vain for godot"):
        wait_for(lambda: False, 0, "godot")
