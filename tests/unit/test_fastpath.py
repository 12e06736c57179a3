"""The netdev table as a value: what is in it for which services and devices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

import pytest

from l4lb.control.config import parse_config
from l4lb.control.elements import families
from l4lb.control.expand import Surroundings, expand
from l4lb.control.fastpath import COUNTED, FLOWS, Device, FastPlan, describe_fast_path
from l4lb.control.pool import AddressPool, Path
from l4lb.control.rule_plan import RulePlan
from l4lb.control.rules import describe_rules
from l4lb.control.ruleset import render_again, render_change, render_install
from l4lb.control.slots import SlotRegistry
from l4lb.net.fastrules import fast_rules

CONFIG = """
l4:
  services:
    - name: web
      forward: dsr
      listen: [203.0.113.10:80/tcp, 203.0.113.11:80/tcp]
      backends: [10.2.0.11, 10.2.0.12]
    - {name: six, forward: dsr, listen: "[2001:db8:f::10]:80/tcp", backends: ["[2001:db8:2::11]"]}
    - {name: near, listen: 203.0.113.12:80/tcp, backends: ["10.2.0.11:8080"]}
"""
GUARDED = CONFIG.replace("name: web\n", "name: web\n      deny: [198.51.100.0/24]\n")
BACKENDS = [ip_address(text) for text in ("10.2.0.11", "10.2.0.12", "2001:db8:2::11")]
WAN = Device(2, "wan0", 1500, bytes.fromhex("020000000002"))
LAN = Device(3, "lan0", 1500, bytes.fromhex("020000000003"))
DEVICES = (Device(1, "lo", 65536), WAN, LAN)


def plan_of(text: str = CONFIG) -> FastPlan:
    config = parse_config(text, "test.yaml")
    slots = SlotRegistry()
    slots.assign(config, lambda slot: 0)
    paths = {a: Path("lan0", a, None, 1500) for a in BACKENDS}
    surroundings = Surroundings(key=bytes(16), paths=paths, pool=AddressPool(), learns=True)
    table = expand(config, slots, surroundings)
    return FastPlan(table, config.services, 1024)


def elements(plan: FastPlan | None = None) -> Mapping[str, frozenset[str]]:
    return describe_fast_path(plan or plan_of(), DEVICES).elements


def test_the_marks_of_direct_return_are_learned_one_for_each_vip():
    found = elements()
    assert found["direct_marks"] == {"0x40000001", "0x40020001", "0x40000002", "0x40020002", "0x40000003"}
    assert found["passed"] == found["direct_marks"]
    assert found["direct_vips4"] == {"0xcb00710a", "0xcb00710b"}
    assert found["direct_vips6"] == {"0x20010db8000f00000000000000000010"}


def test_what_nat_writes_follows_from_the_mark():
    found = elements()
    assert found["nat_vips4"] == {"0xcb00710c"}
    assert found["servers4"] == {"0x0a02000b"}
    assert found["passed_in4"] == {"0x40000004 : 10.2.0.11 . 8080"}
    assert found["passed_out4"] == {"0x40000004 : 203.0.113.12 . 80"}
    assert found["ends4"] == {"0x40000004 : 0 . 10.2.0.11 . 8080"}
    assert found["origins4"] == {"0x40000004 : 0 . 203.0.113.12 . 80"}
    assert not found["nat_vips6"] and not found["passed_in6"]


@pytest.mark.parametrize(
    "changed",
    [
        "[203.0.113.12:80/tcp, 203.0.113.12:81/tcp]",
        "[203.0.113.12:80/tcp, 203.0.113.13:80/tcp]",
        "203.0.113.12:8080-8081/tcp",
        "203.0.113.12:80/tcp, deny: [198.51.100.0/24]",
        "203.0.113.12:80/udp, one_packet: true",
    ],
    ids=["two ports", "two addresses", "a range", "guarded", "without flows"],
)
def test_nat_whose_flows_cannot_be_told_by_their_mark_takes_the_ordinary_way(changed):
    backend = "10.2.0.11" if "-" in changed else "10.2.0.11:8080"
    text = CONFIG.replace("203.0.113.12:80/tcp", changed).replace("10.2.0.11:8080", backend)
    found = elements(plan_of(text))
    assert not any(found[name] for name in ("nat_vips4", "servers4", "origins4", "ends4", "passed_in4"))


def test_both_protocols_of_one_port_are_one_origin():
    found = elements(
        plan_of(CONFIG.replace("203.0.113.12:80/tcp", "[203.0.113.12:80/tcp, 203.0.113.12:80/udp]"))
    )
    assert found["passed_out4"] == {"0x40000004 : 203.0.113.12 . 80"}


def test_a_backend_that_keeps_the_port_gets_the_one_that_clients_ask():
    found = elements(plan_of(CONFIG.replace('["10.2.0.11:8080"]', "[10.2.0.11]")))
    assert found["passed_in4"] == {"0x40000004 : 10.2.0.11 . 80"}


def test_a_service_that_not_everybody_may_use_takes_the_ordinary_way():
    found = elements(plan_of(GUARDED))
    assert found["direct_vips4"] == frozenset()
    assert found["direct_marks"] == {"0x40000003"}


def test_flows_that_shall_end_are_left_to_user_space():
    plan = plan_of()
    for ended in ({"resets": frozenset({0, 3})}, {"moves": frozenset({0, 3})}):
        found = elements(replace(plan, table=replace(plan.table, **ended)))
        assert found["direct_marks"] == {"0x40000002", "0x40020002", "0x40000003"}
        assert not found["passed_in4"] and not found["ends4"]


@pytest.mark.parametrize(
    "device",
    [Device(2, "wan0", 1500), Device(2, "wan0", 1500, WAN.address, enslaved=True)],
    ids=["no ethernet", "port of a bridge"],
)
def test_devices_that_are_no_way(device):
    rules = describe_fast_path(plan_of(), (device, LAN))
    assert set(rules.hooks) == {"in_3", "out_3"}


def test_by_a_device_with_a_larger_mtu_only_small_packets_come():
    rules = describe_fast_path(plan_of(), (replace(WAN, mtu=9000), LAN))
    assert all("meta length <= 1500" in rule for rule in rules.chains["in_2"])
    assert not any("meta length" in rule for rule in rules.chains["in_3"])


def test_only_what_there_is_is_asked_for():
    rules = describe_fast_path(plan_of(), DEVICES)
    asked = [re.findall(r"@(\w+[46]) ", rule)[0] for rule in rules.chains["in_2"]]
    assert asked == ["direct_vips4", "direct_vips6", "nat_vips4", "servers4"]


def test_a_family_that_nobody_uses_takes_no_memory():
    only4 = "\n".join(line for line in CONFIG.split("\n") if "name: six" not in line)
    rules = describe_fast_path(plan_of(only4), DEVICES)
    assert not [name for name in (*rules.sets, *rules.chains) if name.endswith("6")]
    assert {chain for chain, _ in fast_rules([4])} == rules.filled_elsewhere


def test_a_device_that_goes_leaves_its_hook_empty_and_unhooks_nothing():
    before = describe_fast_path(plan_of(), DEVICES)
    after = describe_fast_path(plan_of(), (LAN,))
    assert render_change(before, after) == "flush chain netdev l4lb in_2\nflush chain netdev l4lb out_2\n"
    assert "delete chain" not in render_change(before, describe_fast_path(plan_of(), ()))


def test_installing_replaces_and_putting_right_keeps_flows_and_counters():
    rules = describe_fast_path(plan_of(), DEVICES)
    assert "delete table netdev l4lb" in render_install(rules)
    again = render_again(rules, kept={*COUNTED, *FLOWS})
    assert "delete" not in again and "destroy" not in again
    assert "flush map netdev l4lb origins4" in again
    flushed = set(re.findall(r"flush (?:map|set) netdev l4lb (\w+)", again))
    assert flushed == set(rules.sets) - {*COUNTED, *FLOWS}
    for name in rules.filled_elsewhere:
        assert f"flush chain netdev l4lb {name}\n" in again


def test_chains_that_are_named_are_there():
    rules = describe_fast_path(plan_of(), DEVICES)
    named = set(
        re.findall(r"(?:goto|jump) (\w+)", " ".join(r for chain in rules.chains.values() for r in chain))
    )
    assert named <= set(rules.chains)
    assert {chain for chain, _ in fast_rules(families(plan_of().table))} == rules.filled_elsewhere


def test_what_is_to_be_learned_keeps_its_mark_to_the_egress_hook():
    plan = plan_of()
    ports = [(1024, 16895), (16896, 32767)]
    rule_plan = RulePlan(
        marks=True, workers=2, first_queue=0, seed=1, native_queue=True, masquerade_ports=ports
    )
    for fast in (False, True):
        rules = describe_rules(plan.table, plan.services, replace(rule_plan, fast_path=fast))
        kept = [rule for rule in rules.chains["restore"] if "meta mark set" not in rule]
        assert len(kept) == (2 if fast else 0)
        assert all(rule.startswith("meta mark & 0xc0080000 == 0xc0000000 ") for rule in kept)
        assert rules.elements["hurried"] == ({"0x40000004"} if fast else set())
        marked = [rule for rule in rules.chains["from_203.0.113.12_tcp_80"] if "meta mark set" in rule]
        assert len(marked) == fast
