"""What is believed of a backend after a sequence of results."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4lb.control.health import Dampener, PassiveJudge, State, Transition
from l4lb.model import PassiveCheck

LETTERS = {State.UP: "U", State.DOWN: "D"}


def states(rise: int, fall: int, results: str, initial: State = State.UP) -> str:
    """The state after each result: `+` is a success, `-` a failure; U is up, D down."""
    dampener = Dampener(rise, fall, initial)
    found = ""
    for second, result in enumerate(results):
        before = dampener.state
        change = dampener.observe(result == "+", f"result {second}", float(second))
        assert (change is not None) == (dampener.state is not before)
        if change is not None:
            assert change == Transition(before, dampener.state, f"result {second}", float(second))
        found += LETTERS[dampener.state]
    return found


@pytest.mark.parametrize(
    ("rise", "fall", "results", "expected"),
    [
        (2, 3, "+++", "UUU"),
        (2, 3, "--", "UU"),
        (2, 3, "---", "UUD"),
        (2, 3, "--+--+---", "UUUUUUUUD"),
        (2, 3, "---+", "UUDD"),
        (2, 3, "---++", "UUDDU"),
        (2, 3, "---+-+-++", "UUDDDDDDU"),
        (2, 3, "---++--", "UUDDUUU"),
        (2, 3, "---++---", "UUDDUUUD"),
        (2, 3, "-----++", "UUDDDDU"),
        (1, 1, "-+-+", "DUDU"),
        (3, 1, "+-++-+++", "UDDDDDDU"),
        (1, 3, "---+---", "UUDUUUD"),
    ],
)
def test_state_after_each_result(rise, fall, results, expected):
    assert states(rise, fall, results) == expected


@pytest.mark.parametrize(
    ("results", "expected"), [("+", "D"), ("++", "DU"), ("+-++", "DDDU"), ("----", "DDDD")]
)
def test_a_backend_may_begin_down(results, expected):
    assert states(2, 3, results, State.DOWN) == expected


def naive(rise: int, fall: int, history: list[bool], initial: State) -> State:
    """The newest row that was long enough decides."""
    for end in range(len(history), 0, -1):
        if end >= rise and all(history[end - rise : end]):
            return State.UP
        if end >= fall and not any(history[end - fall : end]):
            return State.DOWN
    return initial


@given(
    rise=st.integers(1, 5),
    fall=st.integers(1, 5),
    initial=st.sampled_from(State),
    history=st.lists(st.booleans(), max_size=40),
)
def test_as_the_newest_long_row_says(rise, fall, initial, history):
    dampener = Dampener(rise, fall, initial)
    for count, ok in enumerate(history, 1):
        dampener.observe(ok, "", float(count))
        assert dampener.state is naive(rise, fall, history[:count], initial)
        assert min(dampener.successes, dampener.failures) == 0
        row = dampener.successes or dampener.failures
        assert row > 0 and len(set(history[count - row : count])) == 1


def test_it_remembers_reasons_and_times():
    dampener = Dampener(2, 2)
    assert (dampener.is_known, dampener.since_s, dampener.why, dampener.last) == (False, None, "", None)
    dampener.observe(True, "connected", 10.0)
    assert (dampener.is_known, dampener.since_s, dampener.is_failing) == (True, 10.0, False)
    dampener.observe(False, "connection refused", 15.0)
    assert (dampener.state, dampener.is_failing, dampener.failures) == (State.UP, True, 1)
    assert dampener.observe(False, "no answer in 3 s", 20.0) is dampener.last
    assert (dampener.since_s, dampener.seen_s, dampener.why) == (20.0, 20.0, "no answer in 3 s")
    dampener.observe(True, "connected", 25.0)
    assert (dampener.since_s, dampener.is_failing, dampener.successes) == (20.0, True, 1)
    assert dampener.last is not None and dampener.last.why == "no answer in 3 s"


def test_other_numbers_hold_from_the_next_result_on():
    dampener = Dampener(2, 5)
    for second in range(3):
        dampener.observe(False, "", second)
    dampener.configure(2, 3)
    assert dampener.state is State.UP
    assert dampener.observe(False, "", 3) is not None


@given(st.lists(st.booleans(), max_size=12))
def test_it_is_the_same_after_dump_and_load(history):
    dampener = Dampener(2, 3)
    for second, ok in enumerate(history):
        dampener.observe(ok, f"result {second}", float(second))
    twin = Dampener.load(json.loads(json.dumps(dampener.dump())))
    assert vars(twin) == vars(dampener)


CHECK = PassiveCheck(failures=3, inhibit_s=10, longest_s=35)


def test_failures_in_a_row_take_it_out():
    judge = PassiveJudge(CHECK)
    assert judge.observe(0, 2, 1) is None
    assert judge.observe(4, 0, 2) is None  # a flow began: the row ends
    assert judge.observe(0, 2, 3) is None
    assert judge.observe(0, 0, 4) is None  # no news does not end it
    assert not judge.is_out(4)
    assert judge.observe(0, 1, 5) == Transition(
        State.UP, State.DOWN, "3 flows in a row never began; tried again in 10 s", 5
    )
    assert judge.is_out(5) and judge.is_out(14.9) and not judge.is_out(15)


def test_many_failures_in_one_call_count_once():
    judge = PassiveJudge(CHECK)
    assert judge.observe(0, 900, 0) is not None
    assert judge.out_until_s == 10


def test_a_flow_that_began_among_failures_ends_the_row():
    judge = PassiveJudge(CHECK)
    assert judge.observe(1, 900, 0) is None
    assert judge.observe(0, 2, 1) is None
    assert judge.observe(0, 1, 2) is not None


def test_nothing_counts_while_it_is_out():
    judge = PassiveJudge(CHECK)
    judge.observe(0, 3, 0)
    assert judge.observe(0, 50, 5) is None
    assert judge.observe(50, 0, 6) is None
    assert judge.out_until_s == 10 and judge.is_on_trial
    assert judge.failures == 0


def test_after_its_time_one_failure_is_enough_and_the_time_doubles_up_to_the_longest():
    judge = PassiveJudge(CHECK)
    judge.observe(0, 3, 0)
    times, now_s = [], 10.0
    for _ in range(4):
        assert not judge.is_out(now_s)
        change = judge.observe(0, 1, now_s)
        assert change is not None and change.why.startswith("1 flow never began")
        assert judge.out_until_s is not None
        times.append(judge.out_until_s - now_s)
        now_s = judge.out_until_s
    assert times == [20, 35, 35, 35]


def test_a_flow_that_begins_on_trial_resets_the_time():
    judge = PassiveJudge(CHECK)
    judge.observe(0, 3, 0)
    judge.observe(0, 1, 10)
    assert judge.is_on_trial
    assert judge.observe(1, 0, 30) is None
    assert not judge.is_on_trial and judge.out_until_s is None
    assert judge.observe(0, 2, 31) is None
    assert judge.observe(0, 1, 32) is not None
    assert judge.out_until_s == 42


@given(
    check=st.builds(
        PassiveCheck, failures=st.integers(1, 4), inhibit_s=st.integers(1, 5), longest_s=st.integers(5, 40)
    ),
    steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 15)), max_size=40),
)
def test_times_out_grow_and_end(check, steps):
    judge, now_s, times = PassiveJudge(check), 0, []
    for begun, failed, pause in steps:
        now_s += pause
        was_out = judge.is_out(now_s)
        change = judge.observe(begun, failed, now_s)
        if begun and not was_out:
            times = []
        if change is not None:
            assert not was_out and not begun and failed
            assert judge.out_until_s is not None
            times.append(judge.out_until_s - now_s)
        assert times == [min(check.inhibit_s * 2**n, check.longest_s) for n in range(len(times))]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(1, 40)), max_size=12))
def test_a_judge_is_the_same_after_dump_and_load(history):
    judge, now_s = PassiveJudge(CHECK), 0
    for begun, failed, seconds in history:
        now_s += seconds
        judge.observe(begun, failed, now_s)
    twin = PassiveJudge.load(CHECK, json.loads(json.dumps(judge.dump())))
    assert vars(twin) == vars(judge)
