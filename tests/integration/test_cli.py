"""The command line as a person and a program use it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import click
import pytest

from l4lb.cli.main import cli
from tests.integration.gateway import VIP4, ask, balancing, get, serving
from tests.support.lab import ROOT
from tests.support.scenarios.balancer import PROGRAM

EXAMPLE = ROOT / "examples/nat.yaml"


def l4lb(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *words], capture_output=True, text=True, timeout=30, env={**os.environ, **env}, check=False
    )


def commands(group: click.Group = cli, path: tuple[str, ...] = ()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_has_help_with_an_example(words):
    shown = l4lb(*words, "--help")
    assert shown.returncode == 0
    assert "Usage:" in shown.stdout
    assert "Example:" in shown.stdout or words in (("backends",), ("flows",))


@pytest.mark.parametrize(
    "words",
    [("nonsense",), ("run", "--nonsense"), ("explain",), ("flows", "ls", "--limit", "-1")],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2_and_one_line_that_helps(words):
    wrong = l4lb(*words)
    assert wrong.returncode == 2
    (line,) = wrong.stderr.splitlines()
    assert line.startswith("l4lb: ") and "--help`" in line


@pytest.mark.parametrize(
    "words",
    [("status",), ("services",), ("backends", "ls"), ("flows", "ls"), ("flows", "count"), ("reload",),
     ("explain", "198.51.100.7:40000", "203.0.113.10:80/tcp")],
    ids=" ".join,
)  # fmt: skip
def test_without_a_daemon_the_exit_code_is_4(tmp_path, words):
    asked = l4lb("--socket", tmp_path / "none.sock", *words)
    assert asked.returncode == 4
    assert asked.stdout == ""
    assert "no daemon answers" in asked.stderr
    assert len(asked.stderr.splitlines()) == 1


def test_a_socket_that_nobody_serves_is_no_daemon(tmp_path):
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    assert l4lb("--socket", path, "status").returncode == 4


def test_check_says_what_is_valid_and_where_it_is_not(tmp_path):
    good = l4lb("check", "-c", EXAMPLE, "--json")
    answer = json.loads(good.stdout)
    assert all("health check" in warning["text"] for warning in answer.pop("warnings"))
    assert answer == {"ok": True, "config": str(EXAMPLE), "services": 2, "backends": 6}
    spoilt = tmp_path / "lb.yaml"
    spoilt.write_text(EXAMPLE.read_text().replace("scheduler:", "schedular:", 1))
    bad = l4lb("check", "-c", spoilt)
    assert bad.returncode == 2
    (line,) = bad.stderr.splitlines()
    assert line.startswith(f"l4lb: {spoilt}:") and "schedular" in line and '"scheduler"' in line


def test_run_with_a_wrong_configuration_touches_nothing(tmp_path):
    spoilt = tmp_path / "lb.yaml"
    spoilt.write_text("l4: {}\n")
    ran = l4lb("--socket", tmp_path / "run" / "l4lb.sock", "run", "-c", spoilt)
    assert ran.returncode == 2
    assert not (tmp_path / "run").exists()


def test_debug_shows_the_traceback(tmp_path):
    plain = l4lb("check", "-c", tmp_path / "missing.yaml")
    debug = l4lb("--debug", "check", "-c", tmp_path / "missing.yaml")
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert plain.returncode == debug.returncode == 2


def test_doctor_lists_every_feature_with_its_purpose():
    shown = l4lb("doctor", "--json")
    assert shown.returncode in (0, 3)
    report = json.loads(shown.stdout)
    assert {"net-admin", "nft", "nfqueue", "nft-queue", "xt-nfqueue"} <= {
        f["feature"] for f in report["features"]
    }
    assert all(f["purpose"] and (f["present"] or f["instead"]) for f in report["features"])
    assert bool(report["datapaths"]) == (shown.returncode == 0)


@pytest.fixture(scope="module")
def running(lab):
    with serving(lab), balancing(lab, EXAMPLE.read_text()) as running:
        for _ in range(6):
            get(lab, VIP4)
            ask(lab, VIP4)
        yield running


@pytest.mark.root
class TestWithADaemon:
    def rows(self, running, *words):
        return [json.loads(line) for line in running.command(*words, "--json").splitlines()]

    def test_services(self, running):
        web, echo = self.rows(running, "services")
        assert (web["service"], web["listen"], web["scheduled"]) == ("web", ["203.0.113.10:80/tcp"], 6)
        assert (echo["service"], echo["scheduler"], echo["scheduled"]) == ("echo", "round-robin", 6)
        assert "203.0.113.10:80/tcp" in running.command("services")

    def test_backends(self, running):
        scheduled = {row["backend"]: row["scheduled"] for row in self.rows(running, "backends", "ls")}
        assert scheduled["10.2.0.11:8080"] == 3 and scheduled["10.2.0.13:8080"] == 1
        assert "10.2.0.12:7" in running.command("backends", "ls")

    def test_flows_and_their_filters(self, running):
        def listed(*filters):
            return self.rows(running, "flows", "ls", *filters)

        assert len(listed()) == 12
        assert len(listed("--limit", "5")) == 5
        assert len(listed("--service", "echo")) == 6
        assert len(listed("--backend", "10.2.0.11:8080")) == 3
        assert {row["state"] for row in listed("--state", "udp")} == {"udp"}
        assert len(listed("--client", "10.1.0.0/24")) == 12
        assert listed("--client", "192.0.2.1") == []
        assert "no flows" in running.command("flows", "ls", "--service", "none")
        assert json.loads(running.command("flows", "count", "--json"))["flows"] == 12

    def test_flows_page_by_page(self, running):
        whole = self.rows(running, "flows", "ls")
        clients = [row["client"] for row in whole]
        for sort in ("client", "backend", "listen", "bytes"):
            pages, behind = [], ()
            while page := self.rows(running, "flows", "ls", "--sort", sort, "--limit", "5", *behind):
                assert len(page) == (5 if len(pages) < 10 else 2)
                pages += page
                behind = ("--after", page[-1]["cursor"])
            assert sorted(row["client"] for row in pages) == sorted(clients)
            backwards = self.rows(running, "flows", "ls", "--sort", sort, "--reverse")
            assert [row["client"] for row in backwards] == [row["client"] for row in reversed(pages)]
        assert [row["backend"] for row in self.rows(running, "flows", "ls", "--sort", "backend")] == sorted(
            row["backend"] for row in whole
        )
        everything = self.rows(running, "flows", "ls", "--all", "--limit", "1")
        assert [row["cursor"] for row in everything] == [row["cursor"] for row in whole]

    def test_a_page_for_people_says_how_to_go_on(self, running):
        shown = running.command("flows", "ls", "--limit", "7").splitlines()
        assert shown[-1].startswith("7 of 12; behind these: --after ")
        rest = running.command("flows", "ls", "--limit", "7", "--after", shown[-1].split()[-1])
        assert len([line for line in rest.splitlines() if "10.1.0." in line]) == 5
        assert "behind these" not in rest

    def test_flows_are_counted_by_filters(self, running):
        assert running.command("flows", "count", "--service", "echo") == "6\n"
        assert running.command("flows", "count", "--state", "udp", "--client", "192.0.2.0/24") == "0\n"
        counted = json.loads(running.command("flows", "count", "--backend", "10.2.0.11:8080", "--json"))
        assert counted["flows"] == 3 and counted["flow_capacity"] > 1000

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("flows", "ls", "--after", "nonsense"), "--after is no cursor"),
            (("flows", "ls", "--sort", "age"), "'age' is not one of"),
            (("flows", "count", "--state", "sleeping"), "unknown state sleeping"),
            (("flows", "ls", "--state", "sleeping"), "unknown state sleeping"),
            (("flows", "ls", "--client", "10.1.0"), "no address or network"),
            (("explain", "198.51.100.7", "203.0.113.10:80/tcp"), "client '198.51.100.7'"),
            (("explain", "198.51.100.7:1", "203.0.113.10:80"), "service '203.0.113.10:80'"),
            (("explain", "198.51.100.7:0", "203.0.113.10:80/tcp"), "port 0"),
            (("explain", "[2001:db8::1]:1", "203.0.113.10:80/tcp"), "different families"),
        ],
    )
    def test_what_makes_no_sense_ends_with_2_and_one_line(self, running, words, says):
        asked = l4lb("--socket", running.socket, *words)
        assert asked.returncode == 2
        assert says in asked.stderr
        assert len(asked.stderr.splitlines()) == 1

    def test_explain_for_people(self, running):
        shown = running.command("explain", "198.51.100.7:40000", "203.0.113.10:80/tcp")
        assert "weighted-round-robin" in shown and "10.2.0.1" in shown and "a new flow" in shown

    def test_output_that_nobody_reads_is_no_complaint(self, running):
        piped = f"{PROGRAM} --socket {running.socket} flows ls --json | head -n 1"
        done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(done.stdout.splitlines()) == 1

    def test_the_admin_socket_is_for_its_group_only(self, running):
        assert running.socket.stat().st_mode & 0o777 == 0o660
