"""Rows of the table of decisions: what was before, a packet in; a reason, slot, mark and packet out.

A row runs over a core with `check`, once carried out in the packet and once by mark. Rows are made by
`refused`, `forwarded` and `answered`, so that they read as one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from l4lb.dataplane.decision import Decision, Reason
from l4lb.dataplane.table import Table
from tests.support.cores import KEY, Core

Step = bytes | Table | int
"""What was before: a packet that was decided, a table that was published, milliseconds that went by."""


@dataclass(frozen=True)
class Row:
    name: str
    packet: bytes
    reason: Reason
    slot: int = -1
    mark: int = 0
    out: bytes | None = None
    before: Sequence[Step] = ()
    kernel: Mapping[str, Any] = field(default_factory=dict)
    """`length`, `checksum_ready` and `gso` of `Balancer.decide`."""


def refused(name: str, packet: bytes, reason: Reason, *before: Step, **kernel: Any) -> Row:
    """The packet is dropped or left alone."""
    return Row(name, packet, reason, before=before, kernel=kernel)


def forwarded(
    name: str, packet: bytes, reason: Reason, slot: int, out: bytes, *before: Step, **kernel: Any
) -> Row:
    """The packet goes to the backend in `slot`, as `out`."""
    return Row(name, packet, reason, slot, 0x40000000 + slot + 1, out, before, kernel)


def answered(
    name: str, packet: bytes, reason: Reason, slot: int, frontend: int, out: bytes, *before: Step
) -> Row:
    """The packet goes back to the client from `frontend`, as `out`."""
    return Row(name, packet, reason, slot, 0x40080000 + frontend + 1, out, before)


def rows(*given: Row) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", given, ids=lambda row: row.name)


both_ways = pytest.mark.parametrize("rewrite", [True, False], ids=["rewrite", "mark"])


def check(core: Core, row: Row, table: Table, *, rewrite: bool) -> None:
    """Decide `row.packet` after `row.before`, which begins with `table`, and compare."""
    balancer = core.balancer.Balancer(capacity=16, key=KEY)
    balancer.publish(table)
    now_ms = play(balancer, row.before)
    counted = balancer.reasons()
    decision = balancer.decide(row.packet, now_ms, rewrite=rewrite, **row.kernel)
    out = row.out if rewrite else None
    assert decision == Decision(row.reason.verdict, row.reason, row.slot, row.mark, out)
    assert balancer.reasons() == counted | {row.reason: counted[row.reason] + 1}


def play(balancer: Any, steps: Sequence[Step], now_ms: int = 0) -> int:
    """Carry out `steps`; returns the time after them."""
    for step in steps:
        if isinstance(step, bytes):
            balancer.decide(step, now_ms)
        elif isinstance(step, Table):
            balancer.publish(step)
        else:
            now_ms += step
    return now_ms
