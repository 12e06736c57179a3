"""Waits for a number to fall to 0, as `backends drain --wait` does."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from l4lb.errors import L4lbError

_POLL_S = 0.5


def wait_for_none(left: Callable[[], int], whose: str, what: str, timeout_s: float, *, quiet: bool) -> int:
    """Asks `left` until it is 0, and says how many `what` there are; L4lbError when it takes too long."""
    deadline = time.monotonic() + timeout_s
    said = None
    while True:
        count = left()
        if count == 0:
            return 0
        if time.monotonic() > deadline:
            raise L4lbError(f"{whose} still has {count} {what} after {timeout_s:g} s")
        if count != said and not quiet:
            print(f"{whose}: {count} {what} left", file=sys.stderr)
            said = count
        time.sleep(_POLL_S)
