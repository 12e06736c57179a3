"""Advice: when it is given, when it is not, and where in the file it points."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from l4lb.cli.main import cli
from l4lb.control.advice import advise, locate
from l4lb.control.config import parse_config, parse_placed
from tests.support.configs import web

ROOT = Path(__file__).parents[2]
TWO = "[10.2.0.11:8080, 10.2.0.12:8080]"
UNEQUAL = "[{address: 10.2.0.11:8080, weight: 3}, 10.2.0.12:8080]"
CHECKED = "health: {type: tcp}"
V6 = '"[2001:db8::10]:80/tcp"'
V6_TWO = '["[2001:db8:2::11]", "[2001:db8:2::12]"]'


def service(*keys: str, listen: str = "203.0.113.10:80/tcp", backends: str = TWO) -> str:
    return web(listen, backends, "".join(f"      {key}\n" for key in keys))


def given(text: str) -> list[str]:
    return [f"{where}: {text}" for where, text in locate(parse_placed(text, "lb.yaml"))]


NAT = "clients behind one NAT address all go to one backend"

SAID = {
    "round-robin with weights": (
        service("scheduler: round-robin", CHECKED, backends=UNEQUAL),
        "6:18: l4.services[0].scheduler: the backends' weights differ, and round-robin does not look at "
        "them; use weighted-round-robin",
    ),
    "least-connections with weights": (
        service("scheduler: least-connections", CHECKED, backends=UNEQUAL),
        "6:18: l4.services[0].scheduler: the backends' weights differ, and least-connections does not look "
        "at them; use weighted-least-connections",
    ),
    "source-hash": (
        service("scheduler: source-hash", CHECKED),
        f"6:18: l4.services[0].scheduler: {NAT}; use maglev, which hashes their ports too, "
        "unless sessions need this",
    ),
    "affinity": (
        service("affinity: client-ip", "scheduler: source-hash", CHECKED),
        f"6:17: l4.services[0].affinity: {NAT}; keep affinity only where sessions need it, "
        "or tell clients apart by a cookie at layer 7",
    ),
    "affinity of public clients": (
        service("allow: [10.0.0.0/8, 198.51.100.0/24]", "affinity: client-ip", CHECKED),
        f"7:17: l4.services[0].affinity: {NAT}; keep affinity only where sessions need it, "
        "or tell clients apart by a cookie at layer 7",
    ),
    "a group of one": (
        service("affinity: {group: shop}", CHECKED, listen=V6, backends=V6_TWO),
        "6:25: l4.services[0].affinity.group: no other service is of this group, so nothing is shared; name "
        "it in another one, or remove it",
    ),
    "a session over several ports": (
        service("scheduler: round-robin", CHECKED, listen="[203.0.113.10:80/tcp, 203.0.113.10:443/tcp]"),
        "6:18: l4.services[0].scheduler: the service has several ports, and round-robin sends a client's "
        "connections to different backends; where they belong to one session, add affinity or use "
        "source-hash",
    ),
    "counting UDP": (
        service("scheduler: least-connections", CHECKED, listen="203.0.113.10:80/udp"),
        "6:18: l4.services[0].scheduler: UDP flows have no end that could be seen, so the fewest of them is "
        "not the least load; use weighted-round-robin or maglev",
    ),
    "one backend": (
        service(CHECKED, backends="[10.2.0.11:8080]"),
        "5:17: l4.services[0].backends: there is one backend, and when it fails the service fails; "
        "add another",
    ),
    "no check": (
        service(),
        "3:7: l4.services[0]: there is no health check, so a dead backend goes on getting its share of new "
        "flows; add health or passive",
    ),
    "quick": (
        service("health: {type: tcp, interval: 500ms, timeout: 100ms}"),
        "6:37: l4.services[0].health.interval: a check every 500ms is a load on backends, and pauses that "
        "mean nothing look like failures; use 1s or more, and passive to be quick",
    ),
    "nervous": (
        service("health: {type: tcp, fall: 1}"),
        "6:33: l4.services[0].health.fall: one failed check takes a backend out, and one lost packet is "
        "enough for that; use 2 or 3",
    ),
    "timeout": (
        service("health: {type: tcp, interval: 5s, timeout: 5s}"),
        "6:50: l4.services[0].health.timeout: a check may take 5s and the next is due after 5s, so a backend "
        "that hangs is checked less often than the interval says; make the timeout shorter than the interval",
    ),
    "timeout by default": (
        service("health: {type: tcp, interval: 2s}"),
        "6:15: l4.services[0].health: a check may take 3s and the next is due after 2s, so a backend "
        "that hangs is checked less often than the interval says; make the timeout shorter than the interval",
    ),
    "panic and sorry": (
        service(CHECKED, "sorry_server: 10.2.0.99:8080", "panic_threshold: 50%"),
        "8:24: l4.services[0].panic_threshold: with a smaller part of the backends up than 50% the checks "
        "are not believed, so sorry_server is without effect then; remove one of the two",
    ),
    "panic and quorum": (
        service(CHECKED, "quorum: 2", "panic_threshold: 50%"),
        "8:24: l4.services[0].panic_threshold: with a smaller part of the backends up than 50% the checks "
        "are not believed, so quorum is without effect then; remove one of the two",
    ),
    "all must be up": (
        service(CHECKED, "quorum: 100%", "sorry_server: 10.2.0.99:8080"),
        "7:15: l4.services[0].quorum: every backend has to be up, so one that fails takes the service from "
        "all others; use 1 or less",
    ),
}


@pytest.mark.parametrize(("text", "expected"), SAID.values(), ids=SAID)
def test_what_is_said_and_where(text: str, expected: str) -> None:
    assert given(text) == [f"lb.yaml:{expected}"]


@pytest.mark.parametrize(
    "text",
    [
        service(CHECKED),
        service("passive: true", "on_failure: drop"),
        service(CHECKED, "scheduler: weighted-round-robin", backends=UNEQUAL),
        service(CHECKED, "scheduler: maglev", backends=UNEQUAL),
        service(CHECKED, "sorry_server: 10.2.0.99:8080"),
        service(CHECKED, "quorum: 2"),
        service(CHECKED, "quorum: 2", "hysteresis: 1", "below_quorum: refuse",
                backends="[10.2.0.11:8080, 10.2.0.12:8080, 10.2.0.13:8080]"),
        service(CHECKED, "health: {type: tcp, interval: 1s, timeout: 900ms, fall: 2}")
        .replace(f"      {CHECKED}\n", ""),
        service(CHECKED, "scheduler: source-hash", "allow: [10.0.0.0/8, 192.168.1.0/24]"),
        service(CHECKED, "scheduler: source-hash", listen=V6, backends=V6_TWO),
        service(CHECKED, "scheduler: least-connections", listen="203.0.113.10:80/tcp+udp"),
        service(CHECKED, "scheduler: round-robin", listen="[203.0.113.10:80/tcp, 203.0.113.11:80/tcp]"),
        service(CHECKED, "scheduler: round-robin",
                backends="[10.2.0.11:80, 10.2.0.12:80, {address: 10.2.0.13:80, weight: 9, backup: true}]"),
        service(CHECKED, "scheduler: round-robin",
                backends="[10.2.0.11:8080, 10.2.0.12:8080, {address: 10.2.0.13:8080, weight: 0}]"),
    ],
)  # fmt: skip
def test_nothing_is_said_about_what_is_right(text: str) -> None:
    assert given(text) == []


def test_advice_needs_no_file() -> None:
    (advice,) = advise(parse_config(service("health: {type: tcp, fall: 1}"), "lb.yaml"))
    assert advice.path == ("services", 0, "health", "fall")


def test_advice_stands_in_the_order_of_the_file() -> None:
    text = service("health: {type: tcp, fall: 1}", "scheduler: round-robin", backends=UNEQUAL)
    assert [line.split(":")[1] for line in given(text)] == ["6", "7"]


def test_the_example_follows_the_advice() -> None:
    path = ROOT / "examples/health.yaml"
    assert given(path.read_text()) == []


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "lb.yaml"
    path.write_text(service("health: {type: tcp, fall: 1}"))
    return path


def test_check_warns_on_standard_error_and_succeeds(config: Path) -> None:
    result = CliRunner().invoke(cli, ["check", "-c", str(config)])
    assert result.exit_code == 0
    assert result.stdout == f"{config}: valid, 1 services, 2 backends, 1 warning\n"
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{config}:6:33: l4.services[0].health.fall: warning: one failed check ")


def test_check_lists_warnings_as_json(config: Path) -> None:
    result = CliRunner().invoke(cli, ["check", "-c", str(config), "--json"])
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    (warning,) = answer.pop("warnings")
    assert answer == {"ok": True, "config": str(config), "services": 1, "backends": 2}
    assert warning["where"] == f"{config}:6:33: l4.services[0].health.fall"
    assert warning["text"].startswith("one failed check ")


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_strict_fails_on_warnings_alone(config: Path, as_json: list[str]) -> None:
    words = ["check", "-c", str(config), "--strict", *as_json]
    failed = CliRunner().invoke(cli, words)
    assert failed.exit_code == 2
    assert not as_json or json.loads(failed.stdout)["ok"] is False
    config.write_text(service(CHECKED))
    assert CliRunner().invoke(cli, words).exit_code == 0
