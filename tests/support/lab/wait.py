"""Waiting for something to become true, never for time to pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.lab.errors import LabError

T = TypeVar("T")

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.05


def wait_for(predicate: Callable[[], T | None], timeout: float, what: str) -> T:
    """Ask until the answer is truthy and return it; LabError after `timeout` seconds.

    `what` completes the sentence "waited 5 s in vain for …".
    """
    deadline = time.monotonic() + timeout
    pause = FIRST_PAUSE_S
    while True:
        # The deadline is read first: an answer that took long still counts.
        late = time.monotonic() >= deadline
        answer = predicate()
        if answer:
            return answer
        if late:
            raise LabError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)
