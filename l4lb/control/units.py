"""Durations, fractions and sizes as operators write them: `250ms`, `5s`, `2m`; `50%`, `0.5`; `64KiB`."""

from __future__ import annotations

import re

from l4lb.control.message import quoted

_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h)")
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_SIZE = re.compile(r"(0|[1-9][0-9]{0,11})(B|KiB|MiB|GiB)?")
_BYTES = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_FRACTION = re.compile(r"0|1|0\.[0-9]{1,6}|1\.0{1,6}")


def parse_duration(text: str) -> float:
    """Seconds. A number without a unit is an error, for nobody agrees on which is meant."""
    if not (match := _DURATION.fullmatch(text)):
        raise ValueError(
            f"{quoted(text)} is not a duration; write a whole number and ms, s, m or h, as in 250ms"
        )
    return int(match[1]) * _MILLISECONDS[match[2]] / 1000


def show_duration(seconds: float) -> str:
    """The duration in the largest unit that it is a whole number of; the inverse of `parse_duration`."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    unit = max(
        (u for u in _MILLISECONDS if milliseconds % _MILLISECONDS[u] == 0), key=_MILLISECONDS.__getitem__
    )
    return f"{milliseconds // _MILLISECONDS[unit]}{unit}"


def parse_fraction(text: str) -> float:
    """A part of a whole, 0 to 1. A percentage has its sign, so that `1` is all of it and `1%` is little."""
    if match := _PERCENT.fullmatch(text):
        if (value := float(match[1]) / 100) <= 1:
            return value
    elif _FRACTION.fullmatch(text):
        return float(text)
    raise ValueError(f"{quoted(text)} is not a part of a whole; write 0% to 100%, or 0 to 1 as in 0.5")


def parse_size(text: str) -> int:
    """Bytes. Units are powers of 1024, and say so."""
    if not (match := _SIZE.fullmatch(text)):
        raise ValueError(
            f"{quoted(text)} is not a size; write a whole number and B, KiB, MiB or GiB, as in 64KiB"
        )
    return int(match[1]) * _BYTES[match[2]]


def show_size(size: int) -> str:
    """The size in the largest unit that it is a whole number of; the inverse of `parse_size`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return str(size)
