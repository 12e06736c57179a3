"""Who may take new flows of one service, and how many: what operators, checks and time say of its backends.

The configuration says what a backend's weight is, an operator may drain or disable it or give it another
weight, a check may find it down, and one that comes up starts slowly. From all this follows an *effective*
weight, by which new flows are given. A weight of 0 takes none; known flows stay.

Order of the rules:

1. Backends that are drained, disabled or in maintenance take nothing.
2. Of the others, those that checks find down take nothing, unless fewer than `panic_threshold` of them
would be left: then the checks are not believed, and all are used.
3. Backups take nothing while the ordinary backends that are left make a quorum. Where they do not, those of
the lowest number that work join them, then those of the next. (Without a configured quorum that is 1: backups
are used when no ordinary backend is.)
4. Where those that are left, backups included, are no quorum (`l4lb.control.quorum`), and `below_quorum` is
`refuse`, nobody takes anything. So panic goes before quorum: what is not believed does not count against it.
5. Where nobody takes anything the sorry server does.
6. A backend that has come up less than `slow_start_s` ago takes part of its weight, and of the connections
that it may have: a tenth at first. Where the scheduler knows no weights, the weighted one of its kind is at
work meanwhile, with equal weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from l4lb.control.member import Admin, Member, State
from l4lb.control.quorum import ServiceState, Standing, has_quorum, needed_for
from l4lb.model import BelowQuorum, Scheduler, Service

SLOW_STEPS = 10
"""In so many steps the weight of a starting backend grows."""
MAX_WEIGHT = 65535

WEIGHTED = {
    Scheduler.ROUND_ROBIN: Scheduler.WEIGHTED_ROUND_ROBIN,
    Scheduler.LEAST_CONNECTIONS: Scheduler.WEIGHTED_LEAST_CONNECTIONS,
}
"""What stands in for a scheduler without weights while a backend starts."""

Judged = tuple[Member, State, int, int | None]
"""A backend with its state, its effective weight and its limit of connections."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is judged of each backend, and what the service is by it."""

    members: Sequence[Judged]
    standing: Standing


def judge(service: Service, members: Sequence[Member], before: Standing, now_s: float) -> Judgement:
    """`members` are all backends of the service, and its sorry server; `before` is how the service stood."""
    backends = [member for member in members if not member.backend.sorry]
    wanted = [member for member in backends if member.admin is Admin.ENABLED]
    ordinary = [member for member in wanted if not member.backend.backup]
    working = [member for member in ordinary if member.works]
    backups = [member for member in wanted if member.backend.backup and member.works]
    panics = len(working) < service.panic_threshold * len(ordinary)
    believed = ordinary if panics else working

    needed = needed_for(service.quorum, sum(1 for member in backends if not member.backend.backup))
    up = _able([*believed, *backups])
    stays = has_quorum(before.has_quorum, up, needed, service.quorum.hysteresis, len(backends))
    taking = _with_backups(believed, backups, needed)
    if not stays and service.below_quorum is BelowQuorum.REFUSE:
        taking = []
    sorry = [m for m in members if m.backend.sorry and m.admin is Admin.ENABLED and not _able(taking)]

    judged = _weigh(service, members, {id(member) for member in (*taking, *sorry)}, now_s)
    if _able(taking):
        state = ServiceState.UP if stays and not panics else ServiceState.DEGRADED
    else:
        state = ServiceState.SORRY if _able(sorry) else ServiceState.DOWN
    standing = replace(
        before, has_quorum=stays, state=state, up=up, backends=len(backends), needed=needed, panics=panics
    )
    if state is not before.state:
        standing.since_s = now_s
    return Judgement(judged, standing)


def _able(members: Iterable[Member]) -> int:
    """How many of them can take something."""
    return sum(1 for member in members if member.full_weight)


def _with_backups(ordinary: Sequence[Member], backups: Sequence[Member], needed: int) -> list[Member]:
    taking = list(ordinary)
    ranked = sorted(backups, key=lambda member: member.backend.backup)
    for _, group in groupby(ranked, key=lambda member: member.backend.backup):
        if _able(taking) >= needed:
            break
        taking += group
    return taking


def _weigh(service: Service, members: Sequence[Member], used: set[int], now_s: float) -> list[Judged]:
    # Parts of a weight need room below 1; the others are scaled alike, so that the proportions stay.
    starts = {id(m): part for m in members if id(m) in used and (part := _started(service, m, now_s)) < 1}
    scale = SLOW_STEPS if starts else 1
    found = []
    for member in members:
        part = starts.get(id(member), 1.0)
        if member.admin is not Admin.ENABLED:
            state = State(member.admin)
        elif id(member) in used:
            state = State.STARTING if part < 1 else State.UP
        else:
            state = _idle(member)
        full, weight, limit = member.full_weight, 0, _limit(service, member)
        if starts and service.scheduler in WEIGHTED:
            full = min(full, 1)
        if state in (State.UP, State.STARTING) and full:
            weight = min(max(round(full * scale * part), 1), MAX_WEIGHT)
        if limit is not None:
            limit = max(round(limit * part), 1)
        found.append((member, state, weight, limit))
    return found


def _limit(service: Service, member: Member) -> int | None:
    """Connections that a backend may have when it has started; with overflow the weight says it if nothing
    else does."""
    limit = member.backend.max_connections
    if limit is None and service.scheduler is Scheduler.OVERFLOW and not member.backend.sorry:
        return member.full_weight
    return limit


def _idle(member: Member) -> State:
    """Why an enabled backend takes nothing."""
    if member.backend.sorry:
        return State.SORRY
    if not member.works:
        return State.DOWN
    return State.BACKUP if member.backend.backup else State.WAITING


def _started(service: Service, member: Member, now_s: float) -> float:
    """How much of its weight a backend has: in tenths, from the moment it came up."""
    if member.up_since is None or not service.slow_start_s:
        return 1.0
    step = int((now_s - member.up_since) / service.slow_start_s * SLOW_STEPS)
    if step >= SLOW_STEPS:
        member.up_since = None
        return 1.0
    return (step + 1) / SLOW_STEPS
