"""The words of a decision are complete, and the native core numbers them alike."""

from __future__ import annotations

from enum import IntEnum
from importlib import import_module
from typing import Any

import pytest

from l4lb.dataplane.decision import Decision, Reason, State, Verdict
from l4lb.dataplane.table import (
    MARK_DECIDED,
    MARK_INDEX,
    MARK_LEARN,
    MARK_MASK,
    MARK_PENDING,
    MARK_REPLY,
    MAX_FRONTENDS,
    MAX_MARKED_VIPS,
    MAX_SLOTS,
    Timeouts,
    forward_mark,
    reply_mark,
)


@pytest.fixture(scope="module")
def native() -> Any:
    try:
        return import_module("l4lb.dataplane.reasons")
    except ImportError as error:
        pytest.fail(f"the native core does not load ({error}): run ./scripts/setup")


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_one_verdict_and_one_line_of_text(reason: Reason) -> None:
    assert reason.verdict in Verdict
    assert reason.text
    assert "\n" not in reason.text


def test_no_two_reasons_read_alike() -> None:
    assert len({reason.text for reason in Reason}) == len(Reason)


def test_numbers_begin_at_0_without_gaps() -> None:
    """They index arrays of the native core."""
    for words in (Verdict, Reason, State):
        assert [word.value for word in words] == list(range(len(words)))


@pytest.mark.parametrize("words", [Reason, Verdict, State])
def test_the_native_core_has_the_same_numbers(native: Any, words: type[IntEnum]) -> None:
    prefix = words.__name__.upper() + "_"
    theirs = {
        word.name.removeprefix(prefix): word.value for word in getattr(native, f"Native{words.__name__}")
    }
    theirs.pop("COUNT", None)
    assert theirs == {word.name: word.value for word in words}


def test_a_decision_is_a_value() -> None:
    decision = Decision(Verdict.DROP, Reason.FRAGMENT, -1, 0, None)
    assert decision == Decision(Verdict.DROP, Reason.FRAGMENT, -1, 0, None)
    with pytest.raises(AttributeError):
        decision.slot = 1  # type: ignore[misc]


def test_every_state_but_none_has_a_timeout() -> None:
    assert [Timeouts().of(state) // 1000 for state in State] == [0, 60, 900, 120, 120, 10, 60, 300]


def test_marks_are_disjoint_never_0_and_inside_the_mask() -> None:
    assert MARK_PENDING | MARK_DECIDED | MARK_REPLY | MARK_INDEX == MARK_MASK
    forward = {forward_mark(slot) for slot in range(MAX_SLOTS)}
    reply = {reply_mark(frontend) for frontend in range(MAX_FRONTENDS)}
    assert len(forward) == MAX_SLOTS
    assert len(reply) == MAX_FRONTENDS
    assert not forward & reply
    for mark in forward | reply:
        assert mark != 0
        assert mark & MARK_MASK & ~MARK_PENDING == mark


def test_marks_tell_the_vips_of_a_service_apart() -> None:
    slots = (0, 1, MAX_SLOTS - 1)
    marks = {forward_mark(slot, vip) for slot in slots for vip in range(MAX_MARKED_VIPS)}
    assert len(marks) == len(slots) * MAX_MARKED_VIPS
    for mark in marks:
        assert mark & MARK_MASK & ~MARK_PENDING & ~MARK_REPLY == mark


def test_a_mark_to_be_learned_is_the_same_but_for_one_bit() -> None:
    for mark in (forward_mark(0), forward_mark(MAX_SLOTS - 1, MAX_MARKED_VIPS - 1), reply_mark(0)):
        learned = mark | MARK_LEARN
        assert learned ^ mark == MARK_PENDING
        assert learned & MARK_MASK == learned


def test_only_a_decision_that_says_so_is_sent() -> None:
    assert not Decision(Verdict.FORWARD, Reason.FLOW, 0, forward_mark(0), None).sent
    assert [reason for reason in Reason if reason.verdict is Verdict.ANSWER] == [
        Reason.TOO_BIG,
        Reason.TTL_EXPIRED,
        Reason.RESET,
        Reason.REJECTED,
    ]
