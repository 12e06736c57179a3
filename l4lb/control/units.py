"""Durations and sizes as operators write them: `250ms`, `5s`, `2m`, `1h`; `512B`, `64KiB`, `4MiB`, `1GiB`."""

from __future__ import annotations

import re

from l4lb.control.message import quoted

_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h)")
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB)")
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_duration(text: str) -> float:
    """Seconds. A number without a unit is an error, for nobody agrees on which is meant."""
    if not (match := _DURATION.fullmatch(text)):
        raise ValueError(
            f"{quoted(text)} is not a duration; write a whole number and ms, s, m or h, as in 250ms"
        )
    return int(match[1]) * _MILLISECONDS[match[2]] / 1000


def parse_size(text: str) -> int:
    """Bytes."""
    if not (match := _SIZE.fullmatch(text)):
        raise ValueError(
            f"{quoted(text)} is not a size; write a whole number and B, KiB, MiB or GiB, as in 64KiB"
        )
    return int(match[1]) * _BYTES[match[2]]
