"""What the steward knows of backends: changes, what workers hear, and what is handed on."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from l4lb.errors import ConfigError, L4lbError
from l7.model import Backend, BackendAddress, L7Config, Pool
from l7.process.operator import Operator
from l7.process.roster import Member, Roster


def backend(host: str, weight: int = 1) -> Backend:
    address = ip_address(host) if host[0].isdigit() else host
    return Backend(BackendAddress(address, 80), weight)


def config(*pools: Pool) -> L7Config:
    return L7Config((), (), pools or (WEB,))


WEB = Pool("web", (backend("10.0.0.1"), backend("10.0.0.2", 3), backend("api.internal")))


def states(roster: Roster) -> dict[str, tuple[str, int]]:
    return {member.backend.name: (member.state, member.full_weight) for member in roster.members()}


def change(roster: Roster, action: str, name: str, **more: object) -> list[dict[str, object]]:
    return Operator(roster).change(action, {"pool": "web", "backend": name, **more}, 5.0)[1]


def test_a_worker_hears_of_every_backend_and_of_what_names_stand_for():
    roster = Roster(config())
    roster.member("web", "api.internal:80").endpoints = [("10.9.9.9", 80)]
    messages = list(roster.all_messages())
    assert [message["do"] for message in messages] == ["state", "state", "endpoints", "state"]
    assert messages[2]["addresses"] == [["10.9.9.9", 80]]
    assert messages[1] | {"why": ""} == {
        "do": "state",
        "pool": "web",
        "backend": "10.0.0.2:80",
        "state": "up",
        "weight": 3,
        "why": "",
    }


def test_an_operators_wish_is_above_what_checks_say():
    roster = Roster(config())
    change(roster, "drain", "10.0.0.1:80")
    assert roster.report(("web", "10.0.0.1:80"), up=False, why="refused", now_s=1.0)
    assert states(roster)["10.0.0.1:80"] == ("draining", 1)
    change(roster, "enable", "10.0.0.1:80")
    assert states(roster)["10.0.0.1:80"] == ("down", 1)
    assert not roster.report(("web", "10.0.0.1:80"), up=False, why="again", now_s=2.0)
    assert not roster.report(("web", "gone:80"), up=False, why="late", now_s=2.0)


def test_added_backends_get_places_for_their_counters_that_nobody_has():
    roster = Roster(config())
    first, second = (change(roster, "add", f"10.0.1.{n}:80", weight=n)[0] for n in (1, 2))
    assert (first["spare"], second["spare"], second["weight"]) == (0, 1, 2)
    assert change(roster, "remove", "10.0.1.1:80") == [
        {"do": "remove", "pool": "web", "backend": "10.0.1.1:80"}
    ]
    assert change(roster, "add", "other.internal:80")[0] == {
        "do": "add",
        "pool": "web",
        "backend": "other.internal:80",
        "host": "other.internal",
        "port": 80,
        "is_name": True,
        "weight": 1,
        "spare": 0,
    }


def test_a_backend_of_the_file_that_is_removed_and_added_again_is_itself():
    roster = Roster(config())
    change(roster, "remove", "10.0.0.2:80")
    assert {"do": "remove", "pool": "web", "backend": "10.0.0.2:80"} in list(roster.all_messages())
    assert change(roster, "add", "10.0.0.2:80", weight=7)[0]["spare"] is None
    assert states(roster)["10.0.0.2:80"] == ("up", 7)
    assert "remove" not in [message["do"] for message in roster.all_messages()]


@pytest.mark.parametrize(
    ("action", "name", "more", "error", "text"),
    [
        ("drain", "10.0.0.9:80", {}, L4lbError, "pool web has no backend 10.0.0.9:80; it has 10.0.0.1:80"),
        ("add", "10.0.0.1:80", {}, L4lbError, "has a backend 10.0.0.1:80 already"),
        ("add", "10.0.0.1", {}, ConfigError, "port"),
        ("weight", "10.0.0.1:80", {"weight": -1}, ConfigError, "whole number from 0"),
        ("explode", "10.0.0.1:80", {}, ConfigError, "unknown action explode"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(action, name, more, error, text):
    roster = Roster(config())
    before = states(roster)
    with pytest.raises(error, match=text):
        change(roster, action, name, **more)
    assert states(roster) == before


def test_the_last_backend_stays():
    roster = Roster(config(Pool("web", (backend("10.0.0.1"),))))
    with pytest.raises(L4lbError, match="the last backend"):
        change(roster, "remove", "10.0.0.1:80")


def test_there_may_be_no_such_pool():
    with pytest.raises(L4lbError, match="there is no pool db; there are web"):
        Roster(config()).of("db")


def known(roster: Roster) -> list[Member]:
    return sorted(roster.members(), key=lambda member: member.key)


def changed_roster() -> Roster:
    roster = Roster(config())
    change(roster, "disable", "10.0.0.1:80")
    change(roster, "weight", "10.0.0.2:80", weight=9)
    change(roster, "add", "10.0.1.1:80", weight=4)
    change(roster, "remove", "api.internal:80")
    roster.report(("web", "10.0.0.2:80"), up=False, why="refused", now_s=7.0)
    return roster


def test_the_next_roster_goes_on_from_what_this_one_knew():
    roster = changed_roster()
    successor = Roster(config())
    successor.restore(roster.dump())
    assert known(successor) == known(roster)
    assert list(successor.all_messages()) == list(roster.all_messages())


def test_with_another_file_what_does_not_fit_any_more_is_forgotten():
    dumped = changed_roster().dump()
    pool = replace(WEB, backends=(backend("10.0.0.2", 5), backend("10.0.1.1", 6), backend("10.0.0.3")))
    successor = Roster(config(pool))
    successor.restore(dumped)
    # Another weight in the file ends the operator's; what was added is the file's own now.
    assert states(successor) == {
        "10.0.0.2:80": ("down", 5),
        "10.0.1.1:80": ("up", 6),
        "10.0.0.3:80": ("up", 1),
    }
    assert [member.spare for member in successor.members()] == [None, None, None]
    other = Roster(config(Pool("db", (backend("10.0.0.1"),))))
    other.restore(dumped)
    assert states(other) == {"10.0.0.1:80": ("up", 1)}


def test_ejections_end_by_time():
    member = Member("web", backend("10.0.0.1"))
    member.ejections[100] = "5 requests failed", 10.0
    member.ejections[200] = "5 requests failed", 20.0
    assert [len(member.ejected(now_s)) for now_s in (5.0, 15.0, 25.0)] == [2, 1, 0]


def test_an_ejection_is_handed_on_until_a_check_finds_the_backend_up():
    roster, successor = Roster(config()), Roster(config())
    member = roster.member("web", "10.0.0.1:80")
    member.ejections[100] = "5 requests failed", 10.0
    member.ejections[200] = "6 requests failed", 20.0
    successor.restore(roster.dump())
    ejected = {"do": "eject", "pool": "web", "backend": "10.0.0.1:80"}
    assert {**ejected, "why": "6 requests failed", "until_s": 20.0} in successor.all_messages()
    for up in (False, True):
        successor.report(member.key, up=up, why="asked", now_s=5.0)
    assert "eject" not in {message["do"] for message in successor.all_messages()}
