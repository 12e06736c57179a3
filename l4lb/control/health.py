"""Whether a backend works, judged from results that come one by one.

`Dampener` judges active checks. A state changes only after results of one kind in a row:

    UP ── `fall` failures in a row ──▶ DOWN
       ◀── `rise` successes in a row ──

A result of the other kind begins the row anew. Before the first result the state is `initial`: UP, so that a
start of the balancer takes no traffic away; the first failures count like all others.

`PassiveJudge` judges how flows begin:

    IN ── `failures` in a row ──▶ OUT ── after its time ──▶ ON TRIAL ── a flow begins ──▶ IN, times reset
                                   ◀── one failure; the time doubles, up to `longest_s` ──

Neither knows a clock: `now_s` is seconds of any clock that never goes back, the same one in all calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from l4lb.model import PassiveCheck


class State(StrEnum):
    """What is believed of a backend."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state: `why` is a sentence for people, `at_s` when."""

    before: State
    after: State
    why: str
    at_s: float


class Dampener:
    """The state of one backend by its checks. `rise` and `fall` are 1 or more."""

    def __init__(self, rise: int, fall: int, initial: State = State.UP) -> None:
        self.rise = rise
        self.fall = fall
        self.state = initial
        self.successes = 0
        """Successful checks in a row up to now."""
        self.failures = 0
        """Failed checks in a row up to now."""
        self.why = ""
        """What the last check said; empty before the first."""
        self.seen_s: float | None = None
        """When the last result came."""
        self.since_s: float | None = None
        """Since when the state is known: the first result, or the last change."""
        self.last: Transition | None = None
        """The last change."""

    @property
    def is_known(self) -> bool:
        """Whether there has been a result yet; before, the state is only assumed."""
        return self.seen_s is not None

    @property
    def is_failing(self) -> bool:
        """Whether it is down or the last check failed: then it is worth checking more often."""
        return self.state is State.DOWN or self.failures > 0

    def observe(self, ok: bool, why: str, now_s: float) -> Transition | None:
        """Takes the result of a check; the change of state that follows from it, if any."""
        self.successes, self.failures = (self.successes + 1, 0) if ok else (0, self.failures + 1)
        self.why = why
        self.seen_s = now_s
        if self.since_s is None:
            self.since_s = now_s
        after = State.UP if ok else State.DOWN
        if after is self.state or (self.successes < self.rise if ok else self.failures < self.fall):
            return None
        self.last = Transition(self.state, after, why, now_s)
        self.state = after
        self.since_s = now_s
        return self.last

    def configure(self, rise: int, fall: int) -> None:
        """Other numbers from the next result on; state and rows stay."""
        self.rise = rise
        self.fall = fall

    def dump(self) -> dict[str, Any]:
        """All that it knows as JSON has it, for `load`."""
        last = self.last
        return {
            "rise": self.rise,
            "fall": self.fall,
            "state": self.state.value,
            "successes": self.successes,
            "failures": self.failures,
            "why": self.why,
            "seen_s": self.seen_s,
            "since_s": self.since_s,
            "last": None if last is None else [last.before.value, last.after.value, last.why, last.at_s],
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> Dampener:
        """The dampener that `dump` was called on. Its clock must be the same."""
        found = cls(dumped["rise"], dumped["fall"], State(dumped["state"]))
        found.successes = dumped["successes"]
        found.failures = dumped["failures"]
        found.why = dumped["why"]
        found.seen_s = dumped["seen_s"]
        found.since_s = dumped["since_s"]
        if dumped["last"] is not None:
            before, after, why, at_s = dumped["last"]
            found.last = Transition(State(before), State(after), why, at_s)
        return found


class PassiveJudge:
    """Whether flows to one backend begin properly.

    While it is out nothing counts: what is told then is about flows from before.
    """

    def __init__(self, check: PassiveCheck) -> None:
        self._check = check
        self._inhibit_s = check.inhibit_s
        self._on_trial = False
        self.failures = 0
        """Flows in a row that never began."""
        self.out_until_s: float | None = None
        """When it is tried again, or was after it had been taken out last; None: not since a flow began."""

    def dump(self) -> dict[str, Any]:
        """All that it knows as JSON has it, for `load`."""
        return {
            "failures": self.failures,
            "out_until_s": self.out_until_s,
            "inhibit_s": self._inhibit_s,
            "on_trial": self._on_trial,
        }

    @classmethod
    def load(cls, check: PassiveCheck, dumped: Mapping[str, Any]) -> PassiveJudge:
        """The judge that `dump` was called on, which went by the same check. Its clock must be the same."""
        found = cls(check)
        found.failures, found.out_until_s = dumped["failures"], dumped["out_until_s"]
        found._inhibit_s, found._on_trial = dumped["inhibit_s"], dumped["on_trial"]
        return found

    def is_out(self, now_s: float) -> bool:
        """Whether it gets no flows for now."""
        return self.out_until_s is not None and now_s < self.out_until_s

    @property
    def is_on_trial(self) -> bool:
        """Whether it was out and no flow has begun since; True while it is out, too."""
        return self._on_trial

    def observe(self, begun: int, failed: int, now_s: float) -> Transition | None:
        """Takes how many flows began, and how many never got beyond their SYN, since the last call.

        With both in one call their order is not known, and the row of failures ends: the backend answers. The
        transition is to DOWN; the way back is by time alone (`is_out`).
        """
        if self.is_out(now_s):
            return None
        if begun > 0:
            self.failures = 0
            self._on_trial = False
            self._inhibit_s = self._check.inhibit_s
            self.out_until_s = None
            return None
        self.failures += failed
        if self.failures < (1 if self._on_trial else self._check.failures):
            return None
        flows = "1 flow" if self.failures == 1 else f"{self.failures} flows in a row"
        why = f"{flows} never began; tried again in {self._inhibit_s:g} s"
        self.failures = 0
        self.out_until_s = now_s + self._inhibit_s
        self._inhibit_s = min(self._inhibit_s * 2, self._check.longest_s)
        self._on_trial = True
        return Transition(State.UP, State.DOWN, why, now_s)
