"""Whatever changes come, in whatever order: what is true ends as what is wanted, and stays so."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from l4lb.control.config import parse_config
from l4lb.control.design import Design, Designer
from l4lb.control.expand import expand, frontend_indices
from l4lb.control.member import Admin
from l4lb.control.pool import AddressPool
from l4lb.control.roster import Roster
from l4lb.control.rule_plan import RulePlan
from l4lb.control.rules import describe_rules
from l4lb.control.ruleset import render_change, render_install
from l4lb.control.slots import SlotRegistry
from l4lb.model import Datapath, L4Config, Scheduler
from tests.support.cores import KEY
from tests.support.nft_table import NftTable

trying = settings(deadline=None, derandomize=settings.get_current_profile_name() != "fuzz")

# Services may share backends, and then user space has to say of which VIP an answer is.
ADDRESSES = ("10.2.0.11", "10.2.0.12", "10.2.0.13")
LISTENS = {
    "web": ["203.0.113.10:80/tcp", "203.0.113.10:80-82/tcp", "203.0.113.11:80/tcp"],
    "dns": ["203.0.113.10:53/udp", "203.0.113.10:53/tcp+udp"],
    "six": ["[2001:db8::10]:80/tcp"],
}
NUMBERED = ("answer_marks", "backends", "recalled", "restored", "kept", "ports")
"""Sets that are keyed by marks: what stands there depends on which numbers were given out before."""


def backends_of(name: str, port: int | None) -> list[str]:
    ends = [f"[fd00::{n}]" if name == "six" else address for n, address in enumerate(ADDRESSES, 11)]
    return [f"{end}:{port}" if port else end for end in ends]


@st.composite
def services(draw: st.DrawFn) -> list[dict[str, Any]]:
    names = draw(st.lists(st.sampled_from(sorted(LISTENS)), min_size=1, unique=True))
    found = []
    for name in names:
        listen = draw(st.sampled_from(LISTENS[name]))
        port = None if "-" in listen else draw(st.sampled_from([None, 80, 8080]))
        found.append(
            {
                "name": name,
                "listen": listen,
                "backends": draw(st.lists(st.sampled_from(backends_of(name, port)), min_size=1, unique=True)),
                "on_failure": draw(st.sampled_from(["drop", "pass", "hash"])),
                **({"deny": ["192.0.2.0/24"]} if name != "six" and draw(st.booleans()) else {}),
            }
        )
    return found


configs = services().map(lambda found: parse_config(json.dumps({"l4": {"services": found}}), "drawn"))


class Gateway:
    """A table of the kernel that is brought from one configuration to the next, as the daemon does it."""

    def __init__(self, datapath: Datapath) -> None:
        plan = RulePlan(
            marks=datapath is not Datapath.REWRITE,
            workers=2,
            first_queue=0,
            seed=7,
            native_queue=True,
            masquerade_ports=((1024, 2000), (2001, 3000)),
            learned_size=1024,
            defragments=True,
            fast_path=False,
        )
        self.designer = Designer(KEY, datapath, plan, AddressPool(()))
        self.table = NftTable()
        self.design: Design | None = None

    def carry_out(self, config: L4Config) -> str:
        """Makes a configuration true; the script that it took."""
        before = self.design
        slots = before.slots.copy() if before else SlotRegistry()
        self.design = self.designer.design(config, slots, {}, flows_of=lambda slot: 0, previous=before)
        rules = self.design.rules
        script = render_change(before.rules, rules) if before else render_install(rules)
        self.table.apply(script)
        self.table.matches(rules)
        return script

    def seen(self) -> dict[str, Any]:
        """What packets meet, numbers apart."""
        elements = {
            name: set(found.values())
            for name, found in self.table.elements.items()
            if found and not name.startswith(NUMBERED)
        }
        chains = {
            name: rules for name, rules in self.table.chains.items() if rules and "mark" not in str(rules)
        }
        return {"elements": elements, "chains": chains}


datapaths = st.sampled_from([Datapath.MARK, Datapath.OFFLOAD, Datapath.REWRITE])


@trying
@given(datapath=datapaths, wanted=st.lists(configs, min_size=1, max_size=5))
def test_every_change_makes_the_table_what_is_wanted_and_again_nothing(
    datapath: Datapath, wanted: list[L4Config]
) -> None:
    gateway = Gateway(datapath)
    for config in wanted:
        gateway.carry_out(config)
    # Marks of the table before stay known once, for packets that are on their way.
    gateway.carry_out(wanted[-1])
    assert gateway.carry_out(wanted[-1]) == ""


@trying
@given(datapath=datapaths, wanted=st.lists(configs, min_size=2, max_size=4), data=st.data())
def test_the_way_to_a_configuration_leaves_no_trace(
    datapath: Datapath, wanted: list[L4Config], data: st.DataObject
) -> None:
    *_, last = wanted
    gateway, fresh = Gateway(datapath), Gateway(datapath)
    for config in (*data.draw(st.permutations(wanted[:-1])), last, last, last):
        gateway.carry_out(config)
    for _ in range(3):
        fresh.carry_out(last)
    assert gateway.seen() == fresh.seen()


@st.composite
def reweighted(draw: st.DrawFn, config: L4Config) -> L4Config:
    """What checks, slow starts and operators make of a configuration; also nothing at all."""
    weights = st.sampled_from([0, 1, 1, 2])
    schedulers = st.sampled_from([Scheduler.MAGLEV, Scheduler.MAGLEV, Scheduler.WEIGHTED_ROUND_ROBIN])
    changed = [
        replace(
            service,
            scheduler=draw(schedulers),
            backends=tuple(replace(backend, weight=draw(weights)) for backend in service.backends),
        )
        for service in config.services
    ]
    return replace(config, services=tuple(changed))


@trying
@given(datapath=datapaths, wanted=st.lists(configs, min_size=1, max_size=3), data=st.data())
def test_what_is_taken_over_of_the_design_before_is_what_would_be_made_anew(
    datapath: Datapath, wanted: list[L4Config], data: st.DataObject
) -> None:
    gateway = Gateway(datapath)
    for config in wanted:
        for step in (config, data.draw(reweighted(config)), data.draw(reweighted(config)), config, config):
            before = gateway.design
            gateway.carry_out(step)
            assert gateway.design is not None
            made, table = gateway.design, before.table if before else None
            indices = frontend_indices(table) if table else None
            anew = expand(step, made.slots, made.expansion.around, indices=indices)
            assert made.table == anew
            assert made.rules == describe_rules(anew, step.services, gateway.designer.plan, table)


ROSTER = parse_config(
    json.dumps(
        {
            "l4": {
                "services": [
                    {
                        "name": name,
                        "listen": listen,
                        "health": {"type": "tcp"},
                        "passive": {"failures": 3},
                        "slow_start": "30s",
                        "backends": [
                            {"address": f"{ADDRESSES[0]}:80", "weight": 3},
                            f"{ADDRESSES[1]}:80",
                            {"address": f"{ADDRESSES[2]}:80", "backup": True},
                        ],
                    }
                    for name, listen in (("web", "203.0.113.10:80/tcp"), ("api", "203.0.113.10:81/tcp"))
                ]
            }
        }
    ),
    "roster",
)
NAMES = [f"{address}:80" for address in ADDRESSES]
# One for each backend and aspect: of two wishes for the same thing the later one counts.
changes = st.lists(
    st.tuples(
        st.sampled_from(["web", "api"]),
        st.sampled_from(NAMES),
        st.one_of(
            st.tuples(st.just("admin"), st.sampled_from(Admin)),
            st.tuples(st.just("weight"), st.integers(0, 5)),
            st.tuples(st.just("health"), st.sampled_from([(False, False), (True, True), (False, True)])),
        ),
    ),
    unique_by=lambda change: (change[0], change[1], change[2][0]),
    max_size=8,
)
NOW = 100.0


def apply(roster: Roster, change: tuple[str, str, tuple[str, Any]]) -> None:
    service, backend, (aspect, value) = change
    if aspect == "admin":
        roster.set_admin(service, backend, value, NOW)
    elif aspect == "weight":
        roster.set_weight(service, backend, value)
    else:
        roster.report((service, backend), up=value[0], out=value[1], why="drawn", now_s=NOW)


@trying
@given(wished=changes, data=st.data())
def test_changes_in_any_order_end_alike(wished: list[Any], data: st.DataObject) -> None:
    ends = []
    for order in (wished, data.draw(st.permutations(wished))):
        roster = Roster(ROSTER)
        settles = data.draw(st.booleans())
        for change in order:
            apply(roster, change)
            if settles:
                roster.settle(NOW)
        roster.settle(NOW)
        assert not roster.settle(NOW)
        members = roster.dump()["members"]
        for member in members:
            del member["why"]  # the last word
        ends.append((roster.effective_config(), sorted(roster.ended()), members))
    assert ends[0] == ends[1]


@trying
@given(wished=changes)
def test_what_was_done_twice_was_done_once(wished: list[Any]) -> None:
    once, twice = Roster(ROSTER), Roster(ROSTER)
    for change in wished:
        apply(once, change)
        apply(twice, change)
        apply(twice, change)
        twice.adopt(ROSTER)
    once.settle(NOW)
    twice.settle(NOW)
    assert twice.effective_config() == once.effective_config()
    assert twice.dump() == once.dump()


@trying
@given(wished=changes)
def test_a_copy_and_a_roster_that_was_handed_on_say_the_same(wished: list[Any]) -> None:
    roster = Roster(ROSTER)
    for change in wished:
        apply(roster, change)
    heir = Roster(ROSTER)
    heir.restore(json.loads(json.dumps(roster.dump())))
    for one in (roster, copy := roster.copy(), heir):
        one.settle(NOW + 60)  # behind every slow start
    assert copy.effective_config() == heir.effective_config() == roster.effective_config()
