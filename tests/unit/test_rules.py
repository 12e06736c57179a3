"""The nft script: what is in it for which configuration. That the kernel takes it is an integration test."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from l4lb.control.config import parse_config
from l4lb.control.expand import Surroundings, expand
from l4lb.control.pool import AddressPool, Path
from l4lb.control.rule_plan import RulePlan
from l4lb.control.rules import describe_rules
from l4lb.control.ruleset import Ruleset, render_change, render_drain, render_install
from l4lb.control.slots import SlotRegistry
from l4lb.dataplane.table import Table
from l4lb.model import Service

ONE = """
l4:
  services:
    - {name: web, listen: 203.0.113.10:80/tcp, backends: [10.2.0.11:8080, 10.2.0.12:8080]}
"""
RANGE = ONE + "    - {name: many, listen: 203.0.113.10:8000-8100/udp, backends: [10.2.0.11]}\n"
SHARED = ONE + "    - {name: too, listen: 203.0.113.11:80/tcp, backends: [10.2.0.11:8080]}\n"
IPV6 = ONE + '    - {name: six, listen: "[2001:db8:f::1]:53/udp", backends: ["[2001:db8:2::1]:53"]}\n'
PATHS = {ip_address(f"10.2.0.{n}"): Path("lan0", ip_address("10.2.0.1"), None, 1500) for n in range(11, 14)}
DSR = """
l4:
  services:
    - name: web
      forward: dsr
      listen: [203.0.113.10:80/tcp, 203.0.113.11:80/tcp]
      backends: [10.2.0.11, 10.2.0.12]
"""
MASQUERADE = ONE.replace("name: web,", "name: web, forward: masquerade,")
TUNNEL = ONE.replace("name: web,", "name: web, forward: ipip,").replace(":8080", "")


@dataclass(frozen=True)
class Made:
    """A table with the services that it was made of."""

    table: Table
    services: tuple[Service, ...]


def table_of(text: str, slots: SlotRegistry | None = None, **around) -> Made:
    config = parse_config(text, "test.yaml")
    registry = slots or SlotRegistry()
    registry.assign(config, lambda slot: 0)
    pool = AddressPool()
    pool.assign(config, PATHS)
    surroundings = Surroundings(key=bytes(16), paths=PATHS, pool=pool, **around)
    return Made(expand(config, registry, surroundings), config.services)


def plan(**changes) -> RulePlan:
    ports = [(1024, 16895), (16896, 32767)]
    given = {"marks": True, "workers": 2, "first_queue": 0, "seed": 7, "native_queue": True}
    return RulePlan(**{**given, "masquerade_ports": ports, **changes})


def describe(made: Made, plan: RulePlan, previous: Made | None = None) -> Ruleset:
    return describe_rules(made.table, made.services, plan, previous.table if previous else None)


def render_rules(made: Made, plan: RulePlan, previous: Made | None = None) -> str:
    """Installs the rules of `made`, or changes those of `previous` into them."""
    if previous is None:
        return render_install(describe(made, plan))
    return render_change(describe(previous, plan), describe(made, plan, previous))


def rules(script: str, chain: str) -> list[str]:
    return re.findall(rf"^add rule inet l4lb {re.escape(chain)} (.*)$", script, re.MULTILINE)


def elements(script: str, name: str) -> list[str]:
    found = re.findall(rf"^add element inet l4lb {name} {{ (.*) }}$", script, re.MULTILINE)
    return found[0].split(", ") if found else []


def test_installing_replaces_the_table_that_a_former_run_left():
    script = render_rules(table_of(ONE), plan())
    assert script.startswith("add table inet l4lb\ndelete table inet l4lb\nadd table inet l4lb\n")
    assert script.count("type filter hook") == 4


def test_a_hook_behind_the_answers_queue_is_there_only_if_it_has_work():
    one, shared = table_of(ONE), table_of(SHARED)
    assert "apply_out" not in render_rules(one, plan())
    assert "add chain inet l4lb apply_out { type filter hook" in render_rules(shared, plan(), one)
    # Deleting the hook would drop what is queued: it stays, empty.
    back = render_rules(one, plan(), shared)
    assert "flush chain inet l4lb apply_out" in back
    assert "delete chain inet l4lb apply_out" not in back


def test_the_same_configuration_changes_nothing():
    table = table_of(RANGE)
    assert render_rules(table, plan(), table) == ""


def test_another_weight_or_scheduler_changes_no_rule():
    weighed = ONE.replace("10.2.0.12:8080", '{address: "10.2.0.12:8080", weight: 7}')
    assert render_rules(table_of(weighed), plan(), table_of(ONE)) == ""


def test_a_new_service_touches_only_what_is_new():
    slots = SlotRegistry()
    before = table_of(ONE, slots)
    script = render_rules(
        table_of(SHARED.replace("10.2.0.11:8080]}\n", "10.2.0.14:8080]}\n"), slots), plan(), before
    )
    assert "flush" not in script and "delete" not in script
    assert elements(script, "services4") == ["203.0.113.11 . tcp . 80"]
    assert elements(script, "backends4") == ["0x40000003 : 10.2.0.14"]


def test_the_maps_of_the_mark_datapath():
    script = render_rules(table_of(ONE), plan())
    assert elements(script, "services4") == ["203.0.113.10 . tcp . 80"]
    assert elements(script, "backends4") == ["0x40000001 : 10.2.0.11", "0x40000002 : 10.2.0.12"]
    assert elements(script, "ports") == ["0x40000001 : 8080", "0x40000002 : 8080"]
    assert elements(script, "answers4") == [
        "10.2.0.11 . tcp . 8080 : goto from_203.0.113.10_tcp_80",
        "10.2.0.12 . tcp . 8080 : goto from_203.0.113.10_tcp_80",
    ]
    assert elements(script, "asked4") == []
    assert elements(script, "vips4") == ["203.0.113.10"]
    assert elements(script, "servers4") == ["10.2.0.11", "10.2.0.12"]
    assert rules(script, "from_203.0.113.10_tcp_80")[-2:] == [
        "tcp sport set 80",
        "ip saddr set 203.0.113.10 accept",
    ]


def test_a_port_that_stays_the_same_is_not_written():
    script = render_rules(table_of(ONE.replace(":8080", ":80")), plan())
    assert elements(script, "ports") == []
    assert "port set" not in script


def test_in_rewrite_answers_are_queued_and_nothing_is_mapped():
    script = render_rules(table_of(ONE), plan(marks=False))
    assert elements(script, "asked4") == ["10.2.0.11 . tcp . 8080", "10.2.0.12 . tcp . 8080"]
    assert not any(elements(script, name) for name in ("answers4", "backends4", "ports"))
    assert "vmap" not in " ".join(rules(script, "queue_out"))


def test_only_an_endpoint_of_several_services_is_asked_about():
    script = render_rules(table_of(SHARED), plan())
    assert elements(script, "asked4") == ["10.2.0.11 . tcp . 8080"]
    assert elements(script, "answers4") == ["10.2.0.12 . tcp . 8080 : goto from_203.0.113.10_tcp_80"]
    assert len(elements(script, "answer_marks4")) == 2


def test_no_rule_asks_an_empty_set():
    script = render_rules(table_of(RANGE), plan())
    assert elements(script, "services_ranges4") == ["203.0.113.10 . udp . 8000-8100"]
    for text in (ONE, RANGE, SHARED, IPV6):
        for marks in (True, False):
            script = render_rules(table_of(text), plan(marks=marks))
            for chain in ("queue_in", "apply_in", "queue_out", "apply_out"):
                for name in re.findall(r"@(\w+)", " ".join(rules(script, chain))):
                    if name != "th" and not name.startswith("direct"):
                        assert elements(script, name), f"{chain} asks {name}"


def test_both_directions_are_hashed_alike():
    script = render_rules(table_of(ONE), plan(marks=False, workers=3))
    (to_worker,) = (rule for rule in rules(script, "incoming4") if "jhash" in rule)
    (back,) = (rule for rule in rules(script, "ask4") if "jhash" in rule)
    assert back == to_worker.replace("saddr . th sport", "daddr . th dport")
    assert "mod 3 seed 0x7" in to_worker


def test_a_single_worker_needs_no_hash():
    script = render_rules(table_of(ONE), plan(workers=1))
    assert "jhash" not in script
    assert rules(script, "queue_0") == ["queue flags bypass to 0"]


def test_without_native_queueing_the_queue_chains_stay_empty():
    assert rules(render_rules(table_of(ONE), plan(native_queue=False)), "queue_0") == []


def test_a_change_keeps_the_marks_of_before_and_removes_chains_that_are_not_used():
    slots = SlotRegistry()
    before = table_of(SHARED, slots)
    after = table_of(ONE.replace("10.2.0.11:8080, ", ""), slots)
    script = render_rules(after, plan(), before)
    assert "backends4" not in script
    assert "delete chain inet l4lb from_203.0.113.11_tcp_80" in script
    assert "delete element inet l4lb services4 { 203.0.113.11 . tcp . 80 }" in script
    # One change later no packet can carry them any more.
    later = render_change(describe(after, plan(), before), describe(after, plan(), after))
    assert "delete element inet l4lb backends4 { 0x40000001, 0x40000003 }" in later


def test_draining_drops_what_would_be_queued():
    script = render_drain(describe(table_of(ONE), plan()))
    assert rules(script, "incoming4") == ["counter name undecided drop"]
    assert "flush chain inet l4lb queue_out" in script
    assert "queue_in" not in script and "apply" not in script


def test_direct_return_writes_the_backend_in_and_the_vip_back():
    for marks in (True, False):
        script = render_rules(table_of(DSR), plan(marks=marks))
        assert elements(script, "backends4") == [
            "0x40000001 : 10.2.0.11",
            "0x40000002 : 10.2.0.12",
            "0x40020001 : 10.2.0.11",
            "0x40020002 : 10.2.0.12",
        ]
        assert elements(script, "restored4")[2:] == [
            "0x40020001 : 203.0.113.11",
            "0x40020002 : 203.0.113.11",
        ]
        assert rules(script, "queue_out")[0] == "meta mark & 0x40080000 == 0x40000000 goto restore"
        # Its answers do not come by: nobody's source is rewritten.
        assert elements(script, "endpoints4") == elements(script, "servers4") == []


def test_checks_through_the_vip_are_remembered_on_the_way_out_and_written_on_the_way_back():
    script = render_rules(table_of(DSR + "      health: {type: tcp, timeout: 3s}\n"), plan())
    check = "meta mark & 0x40080000 == 0x40000000 meta l4proto { tcp, udp } update"
    assert rules(script, "local_out") == [
        f"{check} @askers4 {{ ip saddr timeout 4s }}",
        f"{check} @checked4 {{ meta l4proto . th sport . th dport timeout 4s : ip daddr }}",
    ]
    source = "ip saddr set meta l4proto . th dport . th sport map @checked4"
    assert rules(script, "queue_in")[1] == f"ip saddr @vips4 ip daddr @askers4 {source} accept"
    # What writes the VIP is what writes it for clients.
    assert "0x40000001 : 203.0.113.10" in elements(script, "restored4")


def test_checks_of_tunnels_are_queued_to_be_sent_inside_other_packets():
    checked = TUNNEL.replace("name: web,", "name: web, health: {type: tcp},")
    script = render_rules(table_of(checked), plan())
    assert rules(script, "local_out")[-1] == "meta mark & 0x400fffff @tunnelled goto queue_icmp"
    assert elements(script, "tunnelled") == ["0x40000001", "0x40000002"]
    assert "tunnelled goto" not in render_rules(table_of(DSR + "      health: {type: tcp}\n"), plan())


def test_no_packet_pays_for_checks_that_ask_the_backends_themselves():
    asking = "      health: {type: tcp, via: backend}\n"
    plain, asked = (render_rules(table_of(text), plan()) for text in (DSR, DSR + asking))
    assert plain == asked
    assert rules(plain, "local_out") == []


def test_tunnels_and_masquerade_need_whole_packets():
    for text in (MASQUERADE, TUNNEL):
        script = render_rules(table_of(text), plan())
        assert elements(script, "services4") == []
        assert elements(script, "whole4") == ["203.0.113.10 . tcp . 80"]
        assert elements(script, "backends4") == []


def test_masqueraded_answers_go_to_the_worker_that_owns_their_port():
    script = render_rules(table_of(MASQUERADE), plan())
    assert elements(script, "pools4") == ["10.2.0.1"]
    assert rules(script, "to_pool4")[-1].endswith(
        "vmap { 1024-16895 : goto pool_0, 16896-32767 : goto pool_1 }"
    )
    # NOT_BALANCED must be told from undecided there: a local program may have the port.
    assert "meta mark set meta mark & 0x3ff00000 | 0x80080000" in rules(script, "pool_1")


def test_what_sends_icmp_errors_to_us_is_asked_about():
    assert elements(render_rules(table_of(TUNNEL), plan()), "icmp_targets4") == ["198.18.0.0/15"]
    assert elements(render_rules(table_of(MASQUERADE), plan()), "icmp_targets4") == ["10.2.0.1/32"]
    assert elements(render_rules(table_of(ONE), plan()), "quoted4") == ["0x0a02000b", "0x0a02000c"]


def test_a_learned_flow_is_recalled_before_it_would_be_queued():
    script = render_rules(table_of(ONE, learns=True), plan())
    chain = rules(script, "to_vip4")
    recall = next(n for n, rule in enumerate(chain) if "goto recalled4" in rule)
    assert recall < chain.index("ip daddr . meta l4proto . th dport @services4 goto incoming4")
    assert "jump forget4" in rules(script, "incoming4")[0]
    assert elements(script, "recalled4") == elements(script, "backends4")
    assert "recalled4" not in " ".join(rules(render_rules(table_of(ONE), plan()), "to_vip4"))


def test_a_removed_backend_is_not_recalled_though_its_mark_stays_known():
    slots = SlotRegistry()
    before = table_of(ONE, slots, learns=True)
    after = table_of(ONE.replace("10.2.0.11:8080, ", ""), slots, learns=True)
    script = render_rules(after, plan(), before)
    assert "delete element inet l4lb recalled4 { 0x40000001 }" in script
    assert "backends4" not in script


def test_who_may_be_served_is_asked_first():
    text = ONE.replace("name: web,", "name: web, allow: [198.51.100.0/24], deny: [198.51.100.7/32],")
    script = render_rules(table_of(text), plan())
    assert rules(script, "to_vip4")[0] == "ip daddr . meta l4proto . th dport vmap @guards4"
    assert rules(script, "guard_web") == [
        "ip saddr { 198.51.100.7/32 } counter name denied drop",
        "ip saddr != { 198.51.100.0/24 } counter name denied drop",
    ]


@pytest.mark.parametrize("marks", [True, False])
def test_what_was_not_decided_is_hashed_into_the_same_table(marks):
    text = ONE.replace("name: web,", "name: web, on_failure: hash,").replace(
        "10.2.0.12:8080", '{address: "10.2.0.12:8080", weight: 3}'
    )
    made = table_of(text, seed=7)
    script = render_rules(made, plan(marks=marks))
    assert elements(script, "failing4") == ["203.0.113.10 . tcp . 80 : goto failed_web"]
    rule = rules(script, "failed_web")[0]
    assert rule.startswith("meta mark set jhash ip saddr . th sport mod 251 seed 0x7 map { 0")
    lookup = memoryview(made.table.services[0].lookup).cast("H")
    assert [mark - 0x40000001 for mark in places(rule)] == lookup.tolist()
    assert elements(script, "backends4") == ["0x40000001 : 10.2.0.11", "0x40000002 : 10.2.0.12"]
    assert len(elements(script, "answers4")) == 2


def places(rule: str) -> list[int]:
    """What a map of ranges of numbers gives for each number."""
    found: list[int] = []
    for element in re.search(r"{ (.*) }", rule)[1].split(", "):
        numbers, _, mark = element.partition(" : ")
        first, _, last = numbers.partition("-")
        assert int(first) == len(found)
        found += [int(mark, 0)] * (int(last or first) - int(first) + 1)
    return found


def test_what_was_not_decided_may_pass():
    text = ONE.replace("name: web,", "name: web, on_failure: pass,")
    script = render_rules(table_of(text), plan())
    assert elements(script, "failing4") == ["203.0.113.10 . tcp . 80 : goto pass"]
    assert rules(script, "pass")[-1] == "accept"


def test_what_may_be_answered_has_a_source_that_can_be():
    rejecting = ONE.replace("name: web,", "name: web, on_no_backend: reject,")
    assert not any("martians" in rule for rule in rules(render_rules(table_of(ONE), plan()), "incoming4"))
    first, *_ = rules(render_rules(table_of(rejecting), plan()), "incoming4")
    assert first.endswith("counter name martians drop")
