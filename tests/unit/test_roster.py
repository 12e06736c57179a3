"""Effective weights: what operators, checks and time make of the configured ones."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4lb.control.config import parse_config
from l4lb.control.member import Admin, State
from l4lb.control.roster import Roster
from l4lb.errors import L4lbError
from l4lb.model import Backend, L4Config, OnDown

A, B, C, SPARE, LAST = "10.2.0.11:80", "10.2.0.12:80", "10.2.0.13:80", "10.2.0.14:80", "10.2.0.15:80"


def config(more: str = "", weights: str = "1, 2, 3", spare: int = 1) -> L4Config:
    a, b, c = weights.split(", ")
    text = f"""
l4:
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      backends:
        - {{address: "{A}", weight: {a}}}
        - {{address: "{B}", weight: {b}}}
        - {{address: "{C}", weight: {c}}}
        - {{address: "{SPARE}", backup: true, weight: {spare}}}
        - {{address: "{LAST}", backup: 2, weight: {spare}}}
{more}
"""
    return parse_config(text, "test")


def health(more: str = "") -> str:
    return f"      health: {{type: tcp}}\n{more}"


def roster(more: str = "") -> Roster:
    made = Roster(config(more))
    made.settle(0)
    return made


def weights(made: Roster) -> list[int]:
    return [member.effective for member in made.members()]


def states(made: Roster) -> list[str]:
    return [member.state for member in made.members()]


def down(made: Roster, *names: str, now: float = 1) -> None:
    for name in names:
        assert made.report(("web", name), up=False, out=False, why="no answer", now_s=now)
    made.settle(now)


def up(made: Roster, *names: str, now: float = 2) -> None:
    for name in names:
        assert made.report(("web", name), up=True, out=False, why="answers", now_s=now)
    made.settle(now)


def test_backups_wait():
    made = roster()
    assert weights(made) == [1, 2, 3, 0, 0]
    assert states(made) == ["up", "up", "up", "backup", "backup"]


def test_one_that_is_down_takes_nothing_until_it_is_up():
    made = roster()
    down(made, B)
    assert weights(made) == [1, 0, 3, 0, 0]
    assert made.member("web", B).state is State.DOWN
    up(made, B)
    assert weights(made) == [1, 2, 3, 0, 0]


def test_backups_stand_in_by_priority():
    made = roster()
    down(made, A, B, C)
    assert weights(made) == [0, 0, 0, 1, 0]
    down(made, SPARE)
    assert weights(made) == [0, 0, 0, 0, 1]
    up(made, A)
    assert weights(made) == [1, 0, 0, 0, 0]


def test_below_the_panic_threshold_the_checks_are_not_believed():
    made = roster(health("      panic_threshold: 50%\n"))
    down(made, A)
    assert weights(made) == [0, 2, 3, 0, 0]
    down(made, B)
    assert weights(made) == [1, 2, 3, 0, 0]
    made.set_admin("web", A, Admin.DISABLED, 3)
    made.settle(3)
    assert weights(made)[0] == 0


@pytest.mark.parametrize(
    ("admin", "state"),
    [(Admin.DRAINING, "draining"), (Admin.DISABLED, "disabled"), (Admin.MAINTENANCE, "maintenance")],
)
def test_an_operator_has_the_last_word(admin, state):
    made = roster()
    made.set_admin("web", C, admin, 1)
    assert made.settle(1)
    assert (weights(made)[2], states(made)[2]) == (0, state)
    made.set_admin("web", C, Admin.ENABLED, 2)
    assert made.settle(2)
    assert weights(made)[2] == 3


@pytest.mark.parametrize(
    ("admin", "checks", "after"),
    [
        (Admin.DISABLED, True, "up"),
        (Admin.MAINTENANCE, True, "down"),
        (Admin.MAINTENANCE, False, "up"),  # nobody would say that it is up
    ],
)
def test_after_maintenance_checks_have_to_find_a_backend_up(admin, checks, after):
    made = roster(health() if checks else "")
    made.set_admin("web", C, admin, 1)
    assert not made.member("web", C).is_checked
    made.set_admin("web", C, Admin.ENABLED, 2)
    made.settle(2)
    assert made.member("web", C).is_checked
    assert states(made)[2] == after
    if after == "down":
        up(made, C, now=3)
        assert states(made)[2] == "up"


def test_flows_of_one_that_is_out_end_if_an_operator_says_so():
    made = roster()
    made.set_admin("web", C, Admin.MAINTENANCE, 1)
    made.settle(1)
    assert list(made.ended()) == []
    made.set_admin("web", C, Admin.MAINTENANCE, 2, ends_flows=True)
    assert list(made.ended()) == [(("web", C), OnDown.RESET)]
    made.set_admin("web", C, Admin.ENABLED, 3)
    assert list(made.ended()) == []


def maintained(*numbers: int) -> L4Config:
    """The configuration with some of its backends in maintenance."""
    base = config(health())
    (web,) = base.services
    backends = tuple(
        replace(backend, maintenance=number in numbers) for number, backend in enumerate(web.backends)
    )
    return replace(base, services=(replace(web, backends=backends),))


def test_the_file_puts_a_backend_into_maintenance_and_back():
    made = Roster(maintained(0))
    made.settle(0)
    assert states(made)[:3] == ["maintenance", "up", "up"]
    made.set_admin("web", A, Admin.ENABLED, 1)
    made.set_admin("web", B, Admin.DRAINING, 1)
    made.adopt(maintained(0), 2)  # the file says what it said before: operators' wishes hold
    made.settle(2)
    assert states(made)[:3] == ["down", "draining", "up"]
    made.adopt(maintained(2), 3)
    made.settle(3)
    assert states(made)[:3] == ["down", "draining", "maintenance"]
    assert made.member("web", C).why == "by the configuration"
    made.adopt(maintained(), 4)
    made.settle(4)
    assert states(made)[:3] == ["down", "draining", "down"]


def test_a_successor_goes_by_a_file_that_says_something_else_of_maintenance():
    made = Roster(maintained(0, 1))
    made.set_admin("web", A, Admin.ENABLED, 1)
    successor = handed_over(made, maintained(0, 2))
    successor.settle(2)
    assert states(successor)[:3] == ["down", "down", "maintenance"]


def test_a_drain_that_takes_too_long_moves_what_is_left():
    made = roster("      drain_timeout: 60s\n")
    made.set_admin("web", C, Admin.DRAINING, 100)
    made.settle(100)
    assert made.next_step_s(130) == 30
    assert list(made.ended()) == []
    assert made.settle(160)
    assert list(made.ended()) == [(("web", C), OnDown.MOVE)]
    assert made.next_step_s(160) is None
    made.set_admin("web", C, Admin.ENABLED, 170)
    made.settle(170)
    assert list(made.ended()) == []


def test_a_slow_start_grows_in_tenths_and_keeps_the_others_proportions():
    made = roster(health("      slow_start: 100s\n"))
    down(made, C)
    up(made, C, now=1000)
    assert weights(made) == [10, 20, 3, 0, 0]
    assert states(made)[2] == "starting"
    assert made.next_step_s(1000) == 10
    assert made.settle(1055)
    assert weights(made) == [10, 20, 18, 0, 0]
    assert made.settle(1100)
    assert weights(made) == [1, 2, 3, 0, 0]
    assert made.next_step_s(1100) is None


def test_limits_start_slowly_and_hold_for_what_is_added():
    made = roster(health("      slow_start: 100s\n      max_connections: 50\n"))
    down(made, C)
    up(made, C, now=1000)
    assert [member.limit for member in made.members()] == [50, 50, 5, 50, 50]
    made.settle(1055)
    (web,) = made.effective_config().services
    assert [backend.max_connections for backend in web.backends] == [50, 50, 30, 50, 50]
    assert made.settle(1100)
    assert made.member("web", C).limit == 50
    assert made.max_connections("web") == 50
    assert roster().max_connections("web") is None


@pytest.mark.parametrize("kind", ["round-robin", "least-connections"])
def test_a_scheduler_without_weights_has_some_while_a_backend_starts(kind):
    made = roster(health(f"      slow_start: 100s\n      scheduler: {kind}\n"))
    assert (made.effective_config().services[0].scheduler, weights(made)[:3]) == (kind, [1, 2, 3])
    down(made, C)
    up(made, C, now=1000)
    assert made.effective_config().services[0].scheduler == f"weighted-{kind}"
    assert weights(made) == [10, 10, 1, 0, 0]
    made.settle(1089)
    assert weights(made) == [10, 10, 9, 0, 0]
    made.settle(1100)
    assert (made.effective_config().services[0].scheduler, weights(made)[:3]) == (kind, [1, 2, 3])


def test_with_overflow_the_weight_is_the_limit_where_no_other_is():
    made = roster("      scheduler: overflow\n      max_connections: 50\n")
    assert [member.limit for member in made.members()] == [50] * 5
    made = Roster(config("      scheduler: overflow\n      sorry_server: 10.2.0.99:80\n", "4, 2, 3", spare=8))
    made.settle(0)
    assert [member.limit for member in made.members()] == [4, 2, 3, 8, 8, None]
    made.set_weight("web", A, 9)
    assert made.settle(1)
    assert made.member("web", A).limit == 9


def test_weights_of_operators_stay_over_a_reload_unless_the_file_changed_them():
    made = roster()
    made.set_weight("web", A, 7)
    made.set_weight("web", B, 7)
    made.set_admin("web", C, Admin.DRAINING, 1)
    made.adopt(config(weights="1, 5, 3"))
    made.settle(2)
    assert weights(made) == [7, 5, 0, 0, 0]
    assert made.member("web", C).state is State.DRAINING


def test_what_is_added_and_removed_at_run_time_is_in_the_effective_configuration():
    made = roster()
    (web,) = made.config.services
    made.remove("web", B)
    made.settle(1)
    assert [backend.name for backend in made.effective_config().services[0].backends] == [A, C, SPARE, LAST]
    made.add("web", web.backends[1])
    made.settle(2)
    assert made.effective_config().services[0].backends[-1].name == B


def test_unknown_names_and_the_last_backend_are_errors_that_help():
    made = roster()
    with pytest.raises(L4lbError, match="there is no service wbe; there are web"):
        made.member("wbe", A)
    with pytest.raises(L4lbError, match=r"has no backend 10\.9\.9\.9:80; it has 10\.2\.0\.11:80"):
        made.member("web", "10.9.9.9:80")
    for name in (A, B, C, SPARE):
        made.remove("web", name)
    with pytest.raises(L4lbError, match="the last backend"):
        made.remove("web", LAST)


def test_the_flows_of_one_that_is_down_end_as_configured():
    made = roster(health("      on_down: move\n"))
    assert list(made.ended()) == []
    down(made, A)
    assert list(made.ended()) == [(("web", A), OnDown.MOVE)]


@given(st.lists(st.tuples(st.sampled_from([A, B, C, SPARE, LAST]), st.booleans()), max_size=30))
def test_settling_twice_changes_nothing_and_order_does_not_matter(reports):
    made = roster()
    for name, works in reports:
        made.report(("web", name), up=works, out=False, why="", now_s=1)
    made.settle(2)
    assert not made.settle(2)
    last = dict(reports)
    other = roster()
    for name in sorted(last):
        other.report(("web", name), up=last[name], out=False, why="", now_s=1)
    other.settle(2)
    assert weights(other) == weights(made)
    working = [name for name in (A, B, C, SPARE, LAST) if last.get(name, True)]
    assert any(weights(made)) == bool(working)


def test_what_checks_found_ends_with_the_checks():
    made = roster(health("      passive: true\n"))
    made.report(("web", A), up=False, out=False, why="no answer", now_s=1)
    made.report(("web", B), up=True, out=True, why="flows never began", now_s=1)
    made.adopt(config(health("      passive: true\n")))
    made.settle(2)
    assert states(made)[:2] == ["down", "down"]
    made.adopt(config())
    made.settle(3)
    assert states(made)[:2] == ["up", "up"]


def handed_over(made: Roster, to: L4Config | None = None) -> Roster:
    """What a program makes of it that replaces the running one."""
    found = Roster(made.config if to is None else to)
    found.restore(json.loads(json.dumps(made.dump())))
    return found


def test_a_successor_knows_everything_of_every_backend():
    made = roster(health("      slow_start: 10s\n"))
    down(made, A)
    up(made, A, now=7)
    down(made, B, now=8)
    made.set_admin("web", C, Admin.DRAINING, 9)
    made.set_weight("web", SPARE, 9)
    successor = handed_over(made)
    for one in (made, successor):
        one.settle(11)
    assert list(successor.members()) == list(made.members())
    assert states(successor)[0] == State.STARTING
    assert successor.next_step_s(11) == made.next_step_s(11)


def test_what_came_and_went_at_run_time_is_handed_over():
    made = roster()
    made.add("web", Backend(ip_address("10.2.0.20"), 80, 4))
    made.add("web", Backend(ip_address("fd00::20"), None, 5))
    made.remove("web", B)
    made.set_weight("web", "10.2.0.20:80", 6)
    made.settle(1)
    successor = handed_over(made)
    successor.settle(1)
    assert list(successor.members()) == list(made.members())
    assert successor.effective_config() == made.effective_config()
    successor.adopt(config())
    assert [member.backend.name for member in successor.members()] == [A, B, C, SPARE, LAST]


def test_a_successor_with_another_configuration_goes_by_that():
    made = roster()
    made.add("web", Backend(ip_address("10.2.0.14"), 90, 4))
    made.set_weight("web", A, 9)
    made.set_weight("web", C, 9)
    text = """
l4:
  services:
    - {name: other, listen: 203.0.113.11:80/tcp, backends: [10.2.0.30]}
    - name: web
      listen: 203.0.113.10:80/tcp
      backends: [{address: "10.2.0.11:80", weight: 2}, "10.2.0.14:90", {address: "10.2.0.13:80", weight: 3}]
"""
    successor = handed_over(made, parse_config(text, "test"))
    successor.settle(1)
    assert [(member.backend.name, member.effective, member.added) for member in successor.members()] == [
        ("10.2.0.30", 1, False),
        (A, 2, False),
        ("10.2.0.14:90", 1, False),
        (C, 9, False),
    ]


def test_a_removed_backend_that_is_the_last_of_another_configuration_stays():
    made = roster()
    made.remove("web", B)
    text = """
l4:
  services:
    - {name: web, listen: 203.0.113.10:80/tcp, backends: ["10.2.0.12:80"]}
"""
    assert [m.backend.name for m in handed_over(made, parse_config(text, "test")).members()] == [B]
