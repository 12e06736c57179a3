"""The nft script: what is in it for which configuration. That the kernel takes it is an integration test."""

from __future__ import annotations

import re

import pytest

from l4lb.control.config import parse_config
from l4lb.control.expand import expand
from l4lb.control.rules import RulePlan, render_drain, render_rules
from l4lb.control.slots import SlotRegistry
from l4lb.dataplane.table import Table

ONE = """
l4:
  services:
    - {name: web, listen: 203.0.113.10:80/tcp, backends: [10.2.0.11:8080, 10.2.0.12:8080]}
"""
RANGE = ONE + "    - {name: many, listen: 203.0.113.10:8000-8100/udp, backends: [10.2.0.11]}\n"
SHARED = ONE + "    - {name: too, listen: 203.0.113.11:80/tcp, backends: [10.2.0.11:8080]}\n"
IPV6 = ONE + '    - {name: six, listen: "[2001:db8:f::1]:53/udp", backends: ["[2001:db8:2::1]:53"]}\n'


def table_of(text: str, slots: SlotRegistry | None = None) -> Table:
    config = parse_config(text, "test.yaml")
    registry = slots or SlotRegistry()
    registry.assign(config, lambda slot: 0)
    return expand(config, registry, replies_seen=False, key=bytes(16))


def plan(**changes) -> RulePlan:
    return RulePlan(
        **{"marks": True, "workers": 2, "first_queue": 0, "seed": 7, "native_queue": True, **changes}
    )


def rules(script: str, chain: str) -> list[str]:
    return re.findall(rf"^add rule inet l4lb {chain} (.*)$", script, re.MULTILINE)


def elements(script: str, name: str) -> list[str]:
    found = re.findall(rf"^add element inet l4lb {name} {{ (.*) }}$", script, re.MULTILINE)
    return found[0].split(", ") if found else []


def test_installing_replaces_the_table_and_changing_keeps_its_base_chains():
    table = table_of(ONE)
    assert "delete table inet l4lb" in render_rules(table, plan())
    changed = render_rules(table, plan(), table)
    assert "delete" not in changed
    assert changed.count("type filter hook") == 4


def test_the_maps_of_the_mark_datapath():
    script = render_rules(table_of(ONE), plan())
    assert elements(script, "services4") == ["203.0.113.10 . tcp . 80"]
    assert elements(script, "backends4") == ["0x1 : 10.2.0.11", "0x2 : 10.2.0.12"]
    assert elements(script, "ports") == ["0x1 : 8080", "0x2 : 8080"]
    assert elements(script, "answers4") == [
        "10.2.0.11 . tcp . 8080 : goto from_0",
        "10.2.0.12 . tcp . 8080 : goto from_0",
    ]
    assert elements(script, "asked4") == []
    assert rules(script, "from_0")[-2:] == ["tcp sport set 80", "ip saddr set 203.0.113.10 accept"]


def test_in_rewrite_answers_are_queued_and_nothing_is_mapped():
    script = render_rules(table_of(ONE), plan(marks=False))
    assert elements(script, "asked4") == ["10.2.0.11 . tcp . 8080", "10.2.0.12 . tcp . 8080"]
    assert not any(elements(script, name) for name in ("answers4", "backends4", "ports"))
    assert "vmap" not in " ".join(rules(script, "queue_out"))


def test_only_an_endpoint_of_several_services_is_asked_about():
    script = render_rules(table_of(SHARED), plan())
    assert elements(script, "asked4") == ["10.2.0.11 . tcp . 8080"]
    assert elements(script, "answers4") == ["10.2.0.12 . tcp . 8080 : goto from_0"]
    assert len(elements(script, "answer_marks4")) == 2


def test_no_rule_asks_an_empty_set():
    script = render_rules(table_of(RANGE), plan())
    assert elements(script, "services_ranges4") == ["203.0.113.10 . udp . 8000-8100"]
    for text in (ONE, RANGE, SHARED, IPV6):
        for marks in (True, False):
            script = render_rules(table_of(text), plan(marks=marks))
            for chain in ("queue_in", "apply_in", "queue_out", "apply_out"):
                for name in re.findall(r"@(\w+)", " ".join(rules(script, chain))):
                    if not name.startswith("direct"):
                        assert elements(script, name), f"{chain} asks {name}"


@pytest.mark.parametrize("text", [ONE, IPV6])
def test_only_the_families_that_are_used_are_declared(text):
    assert ("services6" in render_rules(table_of(text), plan())) == (text is IPV6)


def test_both_directions_are_hashed_alike():
    script = render_rules(table_of(ONE), plan(marks=False, workers=3))
    (to_worker,) = (rule for rule in rules(script, "incoming4") if "jhash" in rule)
    (back,) = (rule for rule in rules(script, "ask4") if "jhash" in rule)
    assert back == to_worker.replace("saddr . th sport", "daddr . th dport")
    assert "mod 3 seed 0x7" in to_worker


def test_a_single_worker_needs_no_hash():
    script = render_rules(table_of(ONE), plan(workers=1))
    assert "jhash" not in script
    assert rules(script, "queue_0") == ["queue num 0"]


def test_without_native_queueing_the_queue_chains_stay_empty():
    assert rules(render_rules(table_of(ONE), plan(native_queue=False)), "queue_0") == []


def test_a_change_keeps_the_marks_of_before_and_drops_chains_that_are_not_used():
    slots = SlotRegistry()
    before = table_of(SHARED, slots)
    after = table_of(ONE.replace("10.2.0.11:8080, ", ""), slots)
    script = render_rules(after, plan(), before)
    assert elements(script, "backends4") == ["0x1 : 10.2.0.11", "0x2 : 10.2.0.12", "0x3 : 10.2.0.11"]
    assert "delete chain inet l4lb from_1" in script
    assert elements(script, "services4") == ["203.0.113.10 . tcp . 80"]


def test_draining_stops_queueing_only():
    assert render_drain().splitlines() == [
        "flush chain inet l4lb queue_in",
        "flush chain inet l4lb queue_out",
    ]
