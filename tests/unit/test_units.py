"""Durations and sizes."""

from __future__ import annotations

import pytest

from l4lb.control.units import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("5s", 5), ("2m", 120), ("1h", 3600), ("0s", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("512B", 512), ("64KiB", 65536), ("4MiB", 4 << 20), ("1GiB", 1 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "1.5s", "5 s", "5d", "5s\n", "9" * 10 + "s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write a whole number and ms, s, m or h"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "5", "KiB", "-1B", "1KB", "1 KiB", "1kib"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size; write a whole number and B, KiB, MiB or GiB"):
        parse_size(text)
