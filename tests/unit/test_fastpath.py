"""The netdev table as a value: what is in it for which services, devices and neighbours."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address

import pytest

from l4lb.control.config import parse_config
from l4lb.control.expand import Surroundings, expand
from l4lb.control.fastpath import COUNTED, FLOWS, Device, FastPlan, Sight, describe_fast_path, ways_in
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
    - {name: near, listen: 203.0.113.12:80/tcp, backends: [10.2.0.11]}
"""
GUARDED = CONFIG.replace("name: web\n", "name: web\n      deny: [198.51.100.0/24]\n")
BACKENDS = [ip_address(text) for text in ("10.2.0.11", "10.2.0.12", "2001:db8:2::11")]
WAN = Device(2, "wan0", 1500, bytes.fromhex("020000000002"))
LAN = Device(3, "lan0", 1500, bytes.fromhex("020000000003"))
MACS = {(address, 3): bytes.fromhex(f"0200000000b{n}") for n, address in enumerate(BACKENDS, start=1)}
SIGHT = Sight((Device(1, "lo", 65536), WAN, LAN), MACS)


def plan_of(text: str = CONFIG, device: str = "lan0") -> FastPlan:
    config = parse_config(text, "test.yaml")
    slots = SlotRegistry()
    slots.assign(config, lambda slot: 0)
    paths = {a: Path(device, a, None, 1500) for a in BACKENDS}
    surroundings = Surroundings(key=bytes(16), paths=paths, pool=AddressPool())
    table = expand(config, slots, surroundings)
    return FastPlan(table, config.services, frozenset((address, device) for address in BACKENDS), 1024)


def links(sight: Sight = SIGHT, plan: FastPlan | None = None, device: int = 3) -> dict[int, str]:
    rules = describe_fast_path(plan or plan_of(), sight)
    pairs = (element.split(" : ") for element in rules.elements.get(f"links_{device}", ()))
    return {int(mark, 0): link for mark, link in pairs}


def test_each_mark_of_direct_return_has_the_addresses_of_its_frames():
    assert links() == {
        0x40000001: "0x0200000000b1020000000003",
        0x40020001: "0x0200000000b1020000000003",  # the second VIP
        0x40000002: "0x0200000000b2020000000003",
        0x40020002: "0x0200000000b2020000000003",
        0x40000003: "0x0200000000b3020000000003",
    }


def test_only_vips_of_direct_return_are_asked_for():
    elements = describe_fast_path(plan_of(), SIGHT).elements
    assert elements["vips4"] == {"203.0.113.10", "203.0.113.11"}
    assert elements["vips6"] == {"2001:db8:f::10"}
    assert len(elements["fast"]) == len(elements[COUNTED]) == 5


def test_a_backend_whose_address_is_unknown_has_no_link_and_keeps_its_counter():
    sight = replace(SIGHT, neighbours={key: mac for key, mac in MACS.items() if key[0] != BACKENDS[0]})
    assert set(links(sight)) == {0x40000002, 0x40020002, 0x40000003}
    before, after = (describe_fast_path(plan_of(), seen) for seen in (SIGHT, sight))
    script = render_change(before, after)
    assert script == "delete element netdev l4lb links_3 { 0x40000001, 0x40020001 }\n"


def test_a_changed_address_is_one_change_of_the_links():
    sight = replace(SIGHT, neighbours={**MACS, (BACKENDS[2], 3): bytes.fromhex("0200000000cc")})
    before, after = (describe_fast_path(plan_of(), seen) for seen in (SIGHT, sight))
    assert render_change(before, after).splitlines() == [
        "delete element netdev l4lb links_3 { 0x40000003 }",
        "add element netdev l4lb links_3 { 0x40000003 : 0x0200000000cc020000000003 }",
    ]


def test_a_service_that_not_everybody_may_use_takes_the_ordinary_way():
    elements = describe_fast_path(plan_of(GUARDED), SIGHT).elements
    assert elements["vips4"] == frozenset()
    assert elements["fast"] == {"0x40000003"}
    assert set(links(plan=plan_of(GUARDED))) == {0x40000003}


def test_flows_that_shall_end_are_left_to_user_space():
    plan = plan_of()
    for ended in ({"resets": frozenset({0})}, {"moves": frozenset({0})}):
        gone = replace(plan, table=replace(plan.table, **ended))
        assert set(links(plan=gone)) == {0x40000002, 0x40020002, 0x40000003}
        assert "0x40000001" not in describe_fast_path(gone, SIGHT).elements["fast"]


@pytest.mark.parametrize(
    "device",
    [
        Device(2, "wan0", 9000, WAN.address),
        Device(2, "wan0", 1500),
        Device(2, "wan0", 1500, WAN.address, enslaved=True),
    ],
    ids=["larger MTU", "no ethernet", "port of a bridge"],
)
def test_devices_that_cannot_be_a_way_in(device):
    sight = replace(SIGHT, devices=(device, LAN))
    assert ways_in(plan_of(), sight) == [LAN]
    rules = describe_fast_path(plan_of(), sight)
    assert set(rules.hooks) == {"in_3", "out_3"}


def test_a_device_that_is_no_ethernet_leads_nowhere_but_marks_are_cleared_on_it():
    sight = replace(SIGHT, devices=(WAN, Device(4, "tun0", 1500)))
    rules = describe_fast_path(plan_of(device="tun0"), sight)
    assert set(rules.hooks) == {"out_4"}
    assert not [name for name in rules.sets if name.startswith("links")]


def test_backends_behind_several_devices_are_looked_for_in_each():
    plan = plan_of()
    plan = replace(plan, backends={(BACKENDS[0], "lan0"), (BACKENDS[1], "wan0")})
    sight = replace(SIGHT, neighbours={**MACS, (BACKENDS[1], 2): bytes.fromhex("0200000000b2")})
    assert set(links(sight, plan)) == {0x40000001, 0x40020001}
    assert set(links(sight, plan, device=2)) == {0x40000002, 0x40020002}
    found = describe_fast_path(plan, sight).chains["known4"]
    assert [re.findall(r'@links_\d+|fwd to "\w+"', rule) for rule in found[:2]] == [
        ["@links_2", 'fwd to "wan0"'],
        ["@links_3", 'fwd to "lan0"'],
    ]


def test_a_device_that_goes_leaves_its_hook_empty_and_unhooks_nothing():
    before = describe_fast_path(plan_of(), SIGHT)
    after = describe_fast_path(plan_of(), replace(SIGHT, devices=(Device(2, "wan0", 9000, WAN.address), LAN)))
    assert render_change(before, after) == "flush chain netdev l4lb in_2\n"
    assert "delete chain" not in render_change(before, describe_fast_path(plan_of(), Sight((), {})))


def test_installing_replaces_and_putting_right_keeps_flows_and_counters():
    rules = describe_fast_path(plan_of(), SIGHT)
    assert "delete table netdev l4lb" in render_install(rules)
    again = render_again(rules, kept={COUNTED, *FLOWS})
    assert "delete" not in again and "destroy" not in again
    assert "flush map netdev l4lb links_3" in again
    assert "flush map netdev l4lb flows" not in again and "flush set netdev l4lb passed" not in again
    for name in rules.filled_elsewhere:
        assert f"flush chain netdev l4lb {name}\n" in again


def test_chains_that_are_named_are_there():
    rules = describe_fast_path(plan_of(), SIGHT)
    named = set(
        re.findall(r"(?:goto|jump) (\w+)", " ".join(r for chain in rules.chains.values() for r in chain))
    )
    assert named <= set(rules.chains)
    assert {chain for chain, _ in fast_rules()} == rules.filled_elsewhere


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
