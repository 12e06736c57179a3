"""Rows of the table of decisions: what was before, a packet in; a reason, slot, mark and packet out.

A row runs over a core with `check`, once carried out in the packet and once by mark. Rows are made by
`refused`, `forwarded`, `answered`, `marked`, `sent` and `told`, so that they read as one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from l4lb.dataplane.decision import Decision, Reason
from l4lb.dataplane.table import Table
from tests.support.cores import KEY, Core

PORTS = (20_000, 4)
"""The masquerade ports of every balancer in rows: four an address."""

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
    sent: bool = False
    """`out` goes out whether or not packets are rewritten."""


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


def marked(
    name: str, packet: bytes, reason: Reason, slot: int, mark: int, *before: Step, **kernel: Any
) -> Row:
    """The packet is left to the kernel in any case."""
    return Row(name, packet, reason, slot, mark, before=before, kernel=kernel)


def sent(
    name: str, packet: bytes, reason: Reason, slot: int, out: bytes, *before: Step, **kernel: Any
) -> Row:
    """`out` is sent to the backend in `slot`, or from it to the client, in any case."""
    return Row(name, packet, reason, slot, 0, out, before=before, kernel=kernel, sent=True)


def told(name: str, packet: bytes, reason: Reason, out: bytes, *before: Step, **kernel: Any) -> Row:
    """The sender gets `out`, an ICMP error or a reset."""
    return Row(name, packet, reason, -1, 0, out, before=before, kernel=kernel, sent=True)


def rows(*given: Row) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", given, ids=lambda row: row.name)


both_ways = pytest.mark.parametrize("rewrite", [True, False], ids=["rewrite", "mark"])


def check(core: Core, row: Row, table: Table, *, rewrite: bool) -> None:
    """Decide `row.packet` after `row.before`, which begins with `table`, and compare."""
    balancer = start(core, table)
    now_ms = play(balancer, row.before)
    counted = balancer.reasons()
    decision = balancer.decide(row.packet, now_ms, rewrite=rewrite, **row.kernel)
    out = row.out if rewrite or row.sent else None
    expected = Decision(row.reason.verdict, row.reason, row.slot, row.mark, out, row.sent)
    assert decision == expected, compared(row.packet, expected=expected, decided=decision)
    assert balancer.reasons() == counted | {row.reason: counted[row.reason] + 1}


def compared(packet: bytes, **decisions: Decision) -> str:
    """A packet and what was decided about it, for people."""
    lines = [f"packet {packet.hex()}"]
    for whose, decision in decisions.items():
        out = "untouched" if decision.packet is None else decision.packet.hex()
        lines.append(f"{whose}: {decision.reason.name}, slot {decision.slot}, mark {decision.mark:#x}")
        lines.append(f"    {'sent' if decision.sent else 'out'} {out}")
    return "\n".join(lines)


def start(core: Core, *steps: Step, **options: Any) -> Any:
    """A balancer, the smallest with `PORTS` unless `options` say otherwise, that `steps` were played to."""
    balancer = core.balancer.Balancer(**{"capacity": 16, "key": KEY, "ports": PORTS, **options})
    play(balancer, steps)
    return balancer


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
