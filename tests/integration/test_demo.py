"""`./scripts/demo` as a reader of the README runs it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.lab import ROOT, Lab, existing_labs, unique_prefix
from tests.support.scenarios import (
    compare,
    dsr,
    failover,
    ipv6,
    masquerade,
    offload,
    reload,
    traffic,
    tunnel,
)
from tests.support.scenarios.__main__ import DATAPATHS, how_to_use
from tests.support.scenarios.base import Result, Stage
from tests.support.scenarios.catalog import SCENARIOS
from tests.support.scenarios.play import play
from tests.support.scenarios.scenario import VIP4, Load, Scenario
from tests.support.scenarios.story import Story

pytestmark = [pytest.mark.root, pytest.mark.slow]


def demo(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        ["./scripts/demo", "--json", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_nat_spreads_by_weight_and_all_counts_agree(datapath: str) -> None:
    code, shown = demo("--datapath", datapath)
    if code == 3:
        pytest.skip(shown["why"])
    assert (code, shown["ok"], shown["why"]) == (0, True, None)
    assert (shown["requests"], shown["failed"], shown["datagrams"], shown["lost"]) == (300, 0, 300, 0)
    assert {name: (b["weight"], b["datagrams"]) for name, b in shown["backends"].items()} == {
        "b1": (3, 100),
        "b2": (2, 100),
        "b3": (1, 100),
    }
    assert sum(backend["requests"] for backend in shown["backends"].values()) == 300


def dsr_proved(evidence: dict[str, int]) -> bool:
    return (
        evidence["replies_through_gateway"] == 0
        and evidence["requests_through_gateway"] == evidence["packets_in"] > 300
        and evidence["replies_past_gateway"] > 300
        and evidence["control_packets_counted"] == 2
    )


def tunnel_proved(evidence: dict[str, int]) -> bool:
    return (
        dsr_proved(evidence)
        and evidence["encapsulated"] == evidence["packets_in"]
        and evidence["ipip"] + evidence["gue"] == evidence["encapsulated"]
        and evidence["outer_sources"] > 1
    )


def masquerade_proved(evidence: dict[str, int]) -> bool:
    return evidence["clients_seen_by_servers"] == 1 and evidence["hairpin_requests"] == 18


def ipv6_proved(evidence: dict[str, int]) -> bool:
    return evidence["ipv4_packets"] == 0 and evidence["ipv6_packets"] > 2 * 300


def offload_proved(evidence: dict[str, int]) -> bool:
    seen, total = evidence["packets_to_user_space"], evidence["packets_total"]
    return (
        total > 2 * 1200
        and 0 < seen < total / 10
        and evidence["packets_in"] == total
        and evidence["packets_offloaded"] >= total - seen
        and evidence["flows_offloaded"] == 24
    )


@pytest.mark.parametrize(
    ("scenario", "requests", "sent", "proved"),
    [
        ("dsr", 60, (60, 60), dsr_proved),
        ("tunnel", 60, (60, 60), tunnel_proved),
        ("masquerade", 60, (78, 60), masquerade_proved),
        ("ipv6", 60, (60, 60), ipv6_proved),
        ("offload", 1200, (1200, 1200), offload_proved),
    ],
)
def test_a_scenario_proves_what_it_is_there_for(
    scenario: str, requests: int, sent: tuple[int, int], proved: Callable[[dict[str, int]], bool]
) -> None:
    code, shown = demo("--scenario", scenario, "--requests", str(requests))
    if code == 3:
        pytest.skip(shown["why"])
    assert (code, shown["ok"], shown["why"]) == (0, True, None)
    assert (shown["requests"], shown["failed"], shown["datagrams"], shown["lost"]) == (sent[0], 0, sent[1], 0)
    assert sum(backend["requests"] for backend in shown["backends"].values()) == sent[0]
    assert proved(shown["evidence"]), shown["evidence"]


def failover_proved(evidence: dict[str, float]) -> bool:
    return (
        0 < evidence["seconds_to_remove"] <= failover.limit_s()
        and 0 < evidence["seconds_to_remove_silent_host"] <= failover.limit_s()
        and 0 < evidence["seconds_to_return"] <= failover.limit_s()
        and evidence["requests_to_dead_backend"] == evidence["failed_requests_after_removal"] == 0
        and evidence["failed_requests_before_removal"] > 0
        and evidence["connections_after_return"] > 1
    )


def drain_proved(evidence: dict[str, float]) -> bool:
    return (
        evidence["broken_flows"] == evidence["failed_requests"] == evidence["new_connections_to_drained"] == 0
        and 0 < evidence["kept_connections_to_drained"] <= evidence["requests_to_drained_over_these"]
        and evidence["drain_waited_for_clients"] == 1
        and evidence["connections_after_enable"] > 0
    )


def reload_proved(evidence: dict[str, float]) -> bool:
    return (
        evidence["broken_flows"] == evidence["failed_requests"] == 0
        and evidence["reloads"] == 10
        and evidence["connections_over_all_reloads"] > 0
    )


@pytest.mark.parametrize(
    ("scenario", "proved"),
    [("failover", failover_proved), ("drain", drain_proved), ("reload", reload_proved)],
)
def test_a_story_proves_what_it_is_there_for(
    scenario: str, proved: Callable[[dict[str, float]], bool]
) -> None:
    code, shown = demo("--scenario", scenario)
    if code == 3:
        pytest.skip(shown["why"])
    assert (code, shown["ok"], shown["why"]) == (0, True, None)
    assert shown["requests"] == shown["failed"] + sum(b["requests"] for b in shown["backends"].values())
    assert proved(shown["evidence"]), shown["evidence"]


def l7_proved(evidence: dict[str, float]) -> bool:
    return (
        evidence["sessions_that_moved"] == evidence["failed_requests_after_kill"] == 0
        and evidence["sessions"] == 20
        and evidence["websocket_messages"] == 40
        and 0 < evidence["seconds_to_find_it_down"] < 10
    )


def two_tier_proved(evidence: dict[str, float]) -> bool:
    return (
        evidence["sessions_that_moved"] == evidence["failed_requests_after_removal"] == 0
        and evidence["requests_by_proxy_b1"] > 0
        and evidence["requests_by_proxy_b2"] > 0
        and 0 < evidence["seconds_to_remove_proxy"] < 10
    )


@pytest.mark.parametrize(("scenario", "proved"), [("l7", l7_proved), ("two-tier", two_tier_proved)])
def test_a_tour_shows_what_it_is_there_for(scenario: str, proved: Callable[[dict[str, float]], bool]) -> None:
    code, shown = demo("--scenario", scenario)
    if code == 3:
        pytest.skip(shown["why"])
    assert (code, shown["ok"], shown["why"]) == (0, True, None)
    assert shown["requests"] > sum(backend["requests"] for backend in shown["backends"].values()) > 100
    assert proved(shown["evidence"]), shown["evidence"]


def test_every_scenario_is_tried_and_says_how_to_look_around() -> None:
    counted = {"nat", "dsr", "tunnel", "masquerade", "ipv6", "offload"}
    assert set(SCENARIOS) == counted | {"failover", "drain", "reload", "l7", "two-tier"}
    for scenario in SCENARIOS.values():
        lab = Lab("test", shape=scenario.shape)
        lines = how_to_use(scenario, lab)
        assert all("{" not in line for line in lines)
        assert {line.split()[4] for line in lines if " exec " in line} <= set(lab.hosts)


WEB_AND_ECHO = (Load("http", "web", VIP4, 80, share=0.5), Load("udp", "echo", VIP4, 7))


@pytest.mark.parametrize(
    ("scenario", "datapath", "complaints"),
    [
        # Answers of direct return that are made to come back by the gateway.
        (
            replace(dsr.SCENARIO, shape="through-gateway", loads=WEB_AND_ECHO),
            "mark",
            ("replies_through_gateway is ", "replies_past_gateway is 0"),
        ),
        (
            replace(tunnel.SCENARIO, config=dsr.SCENARIO.config),
            "mark",
            ("encapsulated is 0", "outer_sources is 0"),
        ),
        (
            replace(
                masquerade.SCENARIO,
                config=offload.SCENARIO.config,
                shape="through-gateway",
                loads=WEB_AND_ECHO,
            ),
            "mark",
            ("it was 10.1.0.2", "hairpin_requests is 0"),
        ),
        (
            replace(ipv6.SCENARIO, loads=(*ipv6.SCENARIO.loads, Load("http", "web-v4", VIP4, 80))),
            "mark",
            ("ipv4_packets is ",),
        ),
        # Every packet of short connections begins or ends one.
        (
            replace(offload.SCENARIO, per_flow=1),
            "offload",
            ("packets_to_user_space is ", "flows_offloaded is "),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Scenario) else "",
)
def test_a_scenario_fails_where_its_evidence_does(
    scenario: Scenario, datapath: str, complaints: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "REQUEST_TIMEOUT_S", 0.5)
    monkeypatch.setattr(traffic, "ECHO_TIMEOUT_S", 0.5)
    monkeypatch.setattr(compare, "COUNTS_TIMEOUT_S", 1.0)
    monkeypatch.setattr(tunnel, "ARRIVAL_TIMEOUT_S", 1.0)
    result = Result(scenario.name)
    with Lab(unique_prefix("test"), shape=scenario.shape) as lab:
        play(scenario, Stage(lab, datapath, False, lambda _: None, requests=6), result)
    assert not result.ok
    for complaint in complaints:
        assert complaint in str(result.as_json()["why"])


def without_checks(directory: Path) -> Story:
    """Failover with nobody who looks."""
    config = yaml.safe_load(failover.CONFIG.read_text())
    del config["l4"]["services"][0]["health"]
    path = directory / "unchecked.yaml"
    path.write_text(yaml.safe_dump(config))
    return replace(failover.SCENARIO, config=path)


def test_failover_fails_where_nobody_checks(tmp_path: Path) -> None:
    result = Result("failover")
    with Lab(unique_prefix("test")) as lab:
        play(without_checks(tmp_path), Stage(lab, None, False, lambda _: None), result)
    why = str(result.as_json()["why"])
    for complaint in ("seconds_to_remove is ", "requests_to_dead_backend is ", "_requests_after_removal is "):
        assert complaint in why


def test_reload_fails_where_a_backend_goes_from_under_its_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    def remove_first(services: reload.Services) -> None:
        del services[0]["backends"][0]

    monkeypatch.setattr(reload, "CHANGES", ((remove_first, reload.nothing),))
    result = Result("reload")
    with Lab(unique_prefix("test"), 4) as lab:
        play(reload.SCENARIO, Stage(lab, None, False, lambda _: None), result)
    assert "broken_flows is " in str(result.as_json()["why"])


def test_a_story_takes_no_number_of_requests() -> None:
    done = subprocess.run(
        ["./scripts/demo", "--scenario", "drain", "--requests", "60"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "leave --requests out" in done.stderr


def test_a_terminated_demo_removes_its_lab() -> None:
    with subprocess.Popen(
        ["./scripts/demo"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        assert run.stdout is not None
        prefix = None
        for line in run.stdout:
            if "making the lab" in line:
                prefix = line.split("making the lab ")[1].split(":")[0]
            if "starting l4lb" in line:
                run.send_signal(signal.SIGTERM)
                break
        rest = run.stdout.read()
    assert "interrupted by SIGTERM" in rest
    assert run.returncode == 128 + signal.SIGTERM
    assert prefix is not None
    assert prefix not in existing_labs()
