"""Durations and fractions: what is read, what is refused, and that what is shown can be read again."""

from __future__ import annotations

import pytest

from l4lb.control.units import parse_duration, parse_fraction, show_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("5s", 5), ("0s", 0), ("2m", 120), ("1h", 3600), ("1500ms", 1.5), ("007s", 7)],
)
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "5 s", "-5s", "1.5s", "5S", "5sec", "s", "1h30m", "1d", "9999999999s", "٣s", "5s\n"]
)
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write a whole number and ms, s, m or h"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["250ms", "5s", "90s", "2m", "1h", "25h", "0s", "100ms", "1500ms"])
def test_a_duration_is_shown_as_it_would_be_written(text: str) -> None:
    assert show_duration(parse_duration(text)) == text


def test_the_largest_whole_unit_is_shown() -> None:
    assert [show_duration(s) for s in (60, 3600, 1, 0.5, 61)] == ["1m", "1h", "1s", "500ms", "61s"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("50%", 0.5), ("0%", 0), ("100%", 1), ("12.5%", 0.125), ("0.5", 0.5), ("0", 0), ("1", 1), ("1.0", 1)],
)
def test_a_fraction(text: str, value: float) -> None:
    assert parse_fraction(text) == value


@pytest.mark.parametrize(
    "text", ["", "50", "101%", "-1%", "1.1", ".5", "0.5%%", "50 %", "half", "1e-1", "nan"]
)
def test_what_is_not_a_fraction(text: str) -> None:
    with pytest.raises(ValueError, match="is not a part of a whole; write 0% to 100%, or 0 to 1"):
        parse_fraction(text)
