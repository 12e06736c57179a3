"""When a service has its quorum, and what its backends and its sorry server take when it has not."""

from __future__ import annotations

import pytest

from l4lb.control.config import parse_config
from l4lb.control.member import Admin
from l4lb.control.quorum import has_quorum, needed_for
from l4lb.control.roster import Roster
from l4lb.model import BelowQuorum, OnDown, Quorum
from tests.support.configs import error_of, rows, web

A, B, C, SORRY = "10.2.0.11:80", "10.2.0.12:80", "10.2.0.13:80", "10.2.0.99:80"
THREE = f"[{A}, {B}, {C}]"


def config_of(*keys: str, backends: str = THREE) -> str:
    """A checked service; the first of `keys` stands at 6:7."""
    lines = "".join(f"      {key}\n" for key in (*keys, "health: {type: tcp}"))
    return web(backends=backends, more=lines)


def roster(*keys: str, backends: str = THREE) -> Roster:
    made = Roster(parse_config(config_of(*keys, backends=backends), "test"))
    made.settle(0)
    return made


def only(made: Roster, *names: str) -> Roster:
    """With exactly these up."""
    for member in made.members():
        if not member.backend.sorry:
            made.report(member.key, up=member.backend.name in names, out=False, why="", now_s=1)
    made.settle(1)
    return made


def stands(made: Roster) -> tuple[str, list[int]]:
    return made.standing("web").state, [member.effective for member in made.members()]


@pytest.mark.parametrize(
    ("had", "up", "needed", "hysteresis", "has"),
    [
        # keepalived's rule, either side of both thresholds
        (True, 1, 1, 0, True),
        (True, 0, 1, 0, False),
        (False, 0, 1, 0, False),
        (False, 1, 1, 0, True),
        (True, 3, 4, 1, True),
        (True, 2, 4, 1, False),
        (False, 4, 4, 1, False),
        (False, 5, 4, 1, True),
        (True, 1, 2, 1, True),
        (True, 0, 2, 2, False),  # none is never enough
    ],
)
def test_quorum_is_lost_below_and_regained_above(had, up, needed, hysteresis, has):
    assert has_quorum(had, up, needed, hysteresis, most=10) is has


def test_when_all_there_are_are_up_no_more_is_waited_for():
    """Backends that are removed at run time may make the upper threshold impossible."""
    assert has_quorum(False, 3, 3, 1, most=3)
    assert not has_quorum(False, 2, 3, 1, most=2)


@pytest.mark.parametrize(
    ("quorum", "ordinary", "needed"),
    [
        (Quorum(), 5, 1),
        (Quorum(3), 5, 3),
        (Quorum(part=0.5), 4, 2),
        (Quorum(part=0.5), 5, 3),
        (Quorum(part=0.07), 100, 7),  # 7.000000000000001 in floats
        (Quorum(part=0.01), 5, 1),
        (Quorum(part=1), 5, 5),
    ],
)
def test_a_part_is_rounded_up(quorum, ordinary, needed):
    assert needed_for(quorum, ordinary) == needed


LEFT = {
    # keys, who is up, state, effective weights
    "nothing configured": ([], [A], "up", [1, 0, 0]),
    "nothing configured, none up": ([], [], "down", [0, 0, 0]),
    "quorum": (["quorum: 2"], [A, B], "up", [1, 1, 0]),
    "below it who is left serves": (["quorum: 2"], [A], "degraded", [1, 0, 0]),
    "below it nobody shall": (["quorum: 2", "below_quorum: refuse"], [A], "down", [0, 0, 0]),
    "sorry, all up": ([f"sorry_server: {SORRY}"], [A, B, C], "up", [1, 1, 1, 0]),
    "sorry, one up": ([f"sorry_server: {SORRY}"], [C], "up", [0, 0, 1, 0]),
    "sorry, none up": ([f"sorry_server: {SORRY}"], [], "sorry", [0, 0, 0, 1]),
    "sorry in the place of who is left": (
        ["quorum: 2", f"sorry_server: {SORRY}"],
        [A],
        "sorry",
        [0, 0, 0, 1],
    ),
    "sorry only for nobody": (
        ["quorum: 2", "below_quorum: serve", f"sorry_server: {SORRY}"],
        [A],
        "degraded",
        [1, 0, 0, 0],
    ),
    "sorry at last": (
        ["quorum: 2", "below_quorum: serve", f"sorry_server: {SORRY}"],
        [],
        "sorry",
        [0, 0, 0, 1],
    ),
    "a part": (["quorum: 51%", "below_quorum: refuse"], [A], "down", [0, 0, 0]),
    "hysteresis holds": (["quorum: 2", "hysteresis: 1", "below_quorum: refuse"], [A], "up", [1, 0, 0]),
    # Panic goes first: what is not believed does not count.
    "panic, not quorum": (["panic_threshold: 50%", "quorum: 2"], [A], "degraded", [1, 1, 1]),
    "panic, not sorry": (["panic_threshold: 50%", f"sorry_server: {SORRY}"], [], "degraded", [1, 1, 1, 0]),
    "quorum above panic": (
        ["panic_threshold: 50%", "quorum: 3", f"sorry_server: {SORRY}"],
        [A, B],
        "sorry",
        [0, 0, 0, 1],
    ),
}


@pytest.mark.parametrize(("keys", "up", "state", "weights"), LEFT.values(), ids=LEFT)
def test_who_takes_new_flows(keys, up, state, weights):
    assert stands(only(roster(*keys), *up)) == (state, weights)


def test_hysteresis_remembers_the_way():
    made = roster("quorum: 2", "hysteresis: 1", "below_quorum: refuse")
    assert stands(only(made, A))[0] == "up"
    assert stands(only(made))[0] == "down"
    assert stands(only(made, A, B)) == ("down", [0, 0, 0])
    assert made.standing("web").why == "2 of 3 backends up, quorum 2, lost"
    assert [member.state for member in made.members()] == ["waiting", "waiting", "down"]
    assert stands(only(made, A, B, C)) == ("up", [1, 1, 1])
    assert stands(only(made, A)) == ("up", [1, 0, 0])


BACKUPS = f"[{A}, {B}, {{address: '{C}', backup: 1}}, {{address: '10.2.0.14:80', backup: 2}}]"


@pytest.mark.parametrize(
    ("quorum", "up", "state", "weights"),
    [
        (1, [A, C], "up", [1, 0, 0, 0]),
        (2, [A, B, C], "up", [1, 1, 0, 0]),
        (2, [A, C], "up", [1, 0, 1, 0]),
        (2, [A, "10.2.0.14:80"], "up", [1, 0, 0, 1]),
        (2, [C, "10.2.0.14:80"], "up", [0, 0, 1, 1]),
        (3, [A, C], "degraded", [1, 0, 1, 0]),
    ],
)
def test_backups_make_the_quorum_up(quorum, up, state, weights):
    assert stands(only(roster(f"quorum: {quorum}", backends=BACKUPS), *up)) == (state, weights)


def test_who_takes_nothing_does_not_count():
    """Operators' drains and weights of 0 count against the quorum, as failures do."""
    made = roster("quorum: 2", f"sorry_server: {SORRY}")
    made.set_admin("web", A, Admin.DRAINING, 1)
    made.settle(1)
    assert stands(made) == ("up", [0, 1, 1, 0])
    made.set_weight("web", B, 0)
    assert made.settle(2)
    assert stands(made) == ("sorry", [0, 0, 0, 1])
    assert [member.state for member in made.members()] == ["draining", "waiting", "waiting", "up"]


def test_an_operator_can_take_the_sorry_server_away():
    made = only(roster(f"sorry_server: {SORRY}"))
    made.set_admin("web", SORRY, Admin.DISABLED, 2)
    made.settle(2)
    assert stands(made) == ("down", [0, 0, 0, 0])


def test_flows_at_the_sorry_server_end_when_it_is_not_needed():
    made = roster(f"sorry_server: {SORRY}")
    assert list(made.ended()) == [(("web", SORRY), OnDown.RESET)]
    assert list(only(made).ended()) == []
    assert list(only(made, A).ended()) == [(("web", SORRY), OnDown.RESET)]


def test_a_backend_that_fails_while_it_waits_has_its_flows_ended():
    """Its weight was 0 before, so only its state says that there is something to do."""
    made = only(roster("quorum: 2", f"sorry_server: {SORRY}", "on_down: move"), A)
    made.report(("web", A), up=False, out=False, why="", now_s=2)
    assert made.settle(2)
    assert (("web", A), OnDown.MOVE) in made.ended()


def test_what_is_known_of_a_service_stays_over_a_reload_and_a_copy():
    made = only(roster("quorum: 2", "hysteresis: 1", "below_quorum: refuse"))
    only(made, A, B)
    for twin in (made.copy(), made):
        twin.adopt(made.config)
        twin.settle(3)
        assert stands(twin) == ("down", [0, 0, 0])


def test_a_roster_that_takes_over_knows_that_the_quorum_was_lost():
    made = only(roster("quorum: 2", "hysteresis: 1", "below_quorum: refuse"))
    only(made, A, B)
    heir = Roster(made.config)
    heir.restore(made.dump())
    heir.settle(5)
    assert stands(heir) == ("down", [0, 0, 0])
    assert heir.standing("web").since_s == 1


def test_without_a_sorry_server_who_is_left_serves_as_in_keepalived():
    (plain,) = parse_config(config_of("quorum: 2"), "test").services
    (sorry,) = parse_config(config_of("quorum: 2", f"sorry_server: {SORRY}"), "test").services
    assert (plain.below_quorum, sorry.below_quorum) == (BelowQuorum.SERVE, BelowQuorum.REFUSE)


@pytest.mark.parametrize("text", [SORRY, f"{{address: {SORRY}}}"])
def test_a_sorry_server_is_an_endpoint_or_a_mapping(text):
    (service,) = parse_config(config_of(f"sorry_server: {text}"), "test").services
    assert [backend.name for backend in service.backends if backend.sorry] == [SORRY]


def sharing(*asks: bool) -> Roster:
    """Services on one VIP, of which some would withdraw it; the first has one more VIP."""
    text = "l4:\n  services:\n"
    for n, ask in enumerate(asks):
        more = ", 203.0.113.11:80/tcp" if n == 0 else ""
        text += (
            f"    - {{name: s{n}, listen: ['203.0.113.10:{80 + n}/tcp'{more}], quorum: 2,"
            f" withdraw_vip: {str(ask).lower()}, backends: [{A}, {B}], health: {{type: tcp}}}}\n"
        )
    made = Roster(parse_config(text, "test"))
    made.settle(0)
    return made


@pytest.mark.parametrize(
    ("asks", "lost", "withdrawn"),
    [
        ([True], [], []),
        ([True], [0], ["203.0.113.10", "203.0.113.11"]),
        ([False], [0], []),
        ([True, True], [0], ["203.0.113.11"]),
        ([True, True], [0, 1], ["203.0.113.10", "203.0.113.11"]),
        ([True, False], [0], ["203.0.113.10", "203.0.113.11"]),
        ([True, False], [1], []),
        ([False, True], [1], ["203.0.113.10"]),
    ],
)
def test_a_vip_goes_when_nobody_who_would_withdraw_it_is_whole(asks, lost, withdrawn):
    made = sharing(*asks)
    for n in lost:
        made.report((f"s{n}", A), up=False, out=False, why="", now_s=1)
    assert made.settle(1) == bool(lost)
    assert sorted(map(str, made.withdrawn())) == withdrawn
    for n in lost:
        made.report((f"s{n}", A), up=True, out=False, why="", now_s=2)
    made.settle(2)
    assert not made.withdrawn()


_AT = "l4.services[0]"
_NUMBER = "a number of backends from 1 to 10000, or a part of them such as 50%"
KEYS = {
    "quorum 0": (config_of("quorum: 0"), f'6:15: {_AT}.quorum: must be {_NUMBER}, not "0"'),
    "quorum 0%": (config_of("quorum: 0%"), f'6:15: {_AT}.quorum: must be {_NUMBER}, not "0%"'),
    "a fraction": (config_of("quorum: 0.5"), f'6:15: {_AT}.quorum: must be {_NUMBER}, not "0.5"'),
    "more than all": (
        config_of("quorum: 120%"),
        f'6:15: {_AT}.quorum: "120%" is not a part of a whole; write 0% to 100%, or 0 to 1 as in 0.5',
    ),
    "more than there are": (
        config_of("quorum: 4"),
        f"6:15: {_AT}.quorum: 4 backends can never be up, the service has 3; use 3 or less",
    ),
    "the sorry server is none of them": (
        config_of("quorum: 4", f"sorry_server: {SORRY}"),
        f"6:15: {_AT}.quorum: 4 backends can never be up, the service has 3; use 3 or less",
    ),
    "hysteresis without quorum": (
        config_of("hysteresis: 1"),
        f"6:19: {_AT}.hysteresis: must be below the quorum, which is 1 here; "
        "set a quorum of 2 or more, or remove it",
    ),
    "hysteresis as large": (
        config_of("hysteresis: 2", "quorum: 2"),
        f"6:19: {_AT}.hysteresis: must be below the quorum, which is 2 here; use 1 or less",
    ),
    "never regained": (
        config_of("hysteresis: 1", "quorum: 3"),
        f"6:19: {_AT}.hysteresis: once lost, the quorum would be regained with 3 + 1 backends up, and the "
        "service has 3; add backends, or use a smaller quorum",
    ),
    "unknown word": (
        config_of("below_quorum: reject"),
        f'6:21: {_AT}.below_quorum: unknown value "reject"; known here: serve, refuse',
    ),
    "nothing to withdraw": (
        config_of("withdraw_vip: true") + "  vip_interface: none\n",
        f"6:21: {_AT}.withdraw_vip: l4.vip_interface is none, so no address is added that could be "
        "withdrawn; name an interface there, or remove it",
    ),
}
SORRY_SERVERS = {
    "a backend": (
        config_of(f"sorry_server: {B}"),
        f"6:21: {_AT}.sorry_server: {B} is the same server as {_AT}.backends[1]; remove one of the two",
    ),
    "of another family": (
        config_of('sorry_server: "[2001:db8::99]:80"'),
        f"6:21: {_AT}.sorry_server: is IPv6, but the service listens on 203.0.113.10:80/tcp; "
        "use an IPv4 address",
    ),
    "a weight": (
        config_of(f"sorry_server: {{address: {SORRY}, weight: 2}}"),
        f"6:45: {_AT}.sorry_server.weight: unknown key; known here: address",
    ),
    "only backups besides": (
        config_of(f"sorry_server: {SORRY}", backends=f"[{{address: {A}, backup: true}}]"),
        f"5:17: {_AT}.backends: all of them are backups, with nothing to be a backup for; "
        "make at least one an ordinary one",
    ),
}


@pytest.mark.parametrize(("text", "expected"), rows(keys=KEYS, sorry=SORRY_SERVERS))
def test_what_can_be_wrong(text, expected):
    assert error_of(lambda: parse_config(text, "lb.yaml")) == f"lb.yaml:{expected}"
