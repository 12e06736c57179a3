"""Holds an answer against what is expected of it."""

from __future__ import annotations

import re

from l4lb.model import Expectation
from l4lb.net.checks.judge import CheckFailedError

_SHOWN = 40


def require_text(expect: Expectation, content: bytes, name: str) -> None:
    """Raises CheckFailedError unless `content`, taken for UTF-8, is as expected; `name` is what to call
    it."""
    text = content.decode(errors="replace")
    if expect.body is not None and expect.body not in text:
        raise CheckFailedError(f"the {name} does not have {_short(expect.body)}")
    if expect.pattern is not None and re.search(expect.pattern, text) is None:
        raise CheckFailedError(f"the {name} does not match {_short(expect.pattern)}")


def require_status(expect: Expectation, status: int) -> None:
    """Raises CheckFailedError unless the HTTP status is in one of the ranges."""
    if not any(first <= status <= last for first, last in expect.status):
        ranges = (str(first) if first == last else f"{first}-{last}" for first, last in expect.status)
        raise CheckFailedError(f"status {status}, wanted {', '.join(ranges)}")


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
