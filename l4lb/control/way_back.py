"""The rules on the way back and out: answers get their VIP, direct return gets its own again
(postrouting)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from l4lb.control.elements import answer_chain, text
from l4lb.control.rule_plan import RulePlan
from l4lb.control.rule_words import (
    CLEAR_MARK,
    IS_FORWARD_MARK,
    IS_LEARNED,
    LEARN_ANSWER,
    OUR_MARK,
    STAYS,
    flow_back,
    from_,
    icmp_errors,
    ip,
    pending,
    quoted_destination,
)
from l4lb.control.way_in import dispatch, used_sets
from l4lb.dataplane.icmp_words import Hook
from l4lb.dataplane.table import MARK_PENDING, ReplyFrontend, Table
from l4lb.model import Forward, Protocol, Service

_NOTE = Hook.POSTROUTING.mark & ~MARK_PENDING
_ICMP_RATE = "limit rate over 1000/second burst 200 packets counter name icmp_excess accept"


class WayBack:
    """The chains of postrouting, for the families `present`."""

    def __init__(
        self,
        table: Table,
        services: Sequence[Service],
        plan: RulePlan,
        elements: Mapping[str, Sequence[str]],
        present: Sequence[int],
    ) -> None:
        self.table = table
        self.plan = plan
        self.elements = elements
        self.present = present
        self.asks = {family: list(used_sets(elements, "asked", family)) for family in present}
        # A reset of a backend that passive checks watch is told to user space, which counts it.
        self.tells_resets = any(service.passive for service in services)
        self.restores = any(entry.forward is Forward.DSR for entry in table.services)

    def chains(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Every chain with its rules; those that are jumped to come first."""
        yield "icmp_out", self._icmp_out()
        yield "restore", self._restore()
        for family in self.present:
            yield f"ask{family}", self._ask(family)
            yield f"answer{family}", self._answer(family)
            yield f"apply_answer{family}", self._apply_answer(family)
        yield "queue_out", self._queue_out()
        if any(self.asks.values()) or self.tells_resets:
            yield "apply_out", self._apply_out()

    def _queue_out(self) -> Iterator[str]:
        if self.restores or self.elements["hurried"]:
            yield f"{IS_FORWARD_MARK} goto restore"
        for family in self.present:
            if self.elements[f"quoted{family}"]:
                yield f"{icmp_errors(family)} {quoted_destination(family)} @quoted{family} goto icmp_out"
        for family in self.present:
            if self.elements[f"servers{family}"]:
                yield f"{ip(family)} saddr @servers{family} goto answer{family}"

    def _restore(self) -> Iterator[str]:
        for family in self.present if self.restores else ():
            restored = f"{ip(family)} daddr set {OUR_MARK} map @restored{family}"
            if self.plan.fast_path:
                # The egress hook learns the flow, and clears the mark (`l4lb.control.fastpath`).
                yield f"{IS_LEARNED} {restored} accept"
            yield f"{restored} {CLEAR_MARK} accept"
        if self.elements["hurried"]:
            yield f"meta oiftype != ether {CLEAR_MARK}"

    def _icmp_out(self) -> Iterator[str]:
        yield _ICMP_RATE
        yield pending(_NOTE)
        yield "goto queue_icmp"

    def _answer(self, family: int) -> Iterator[str]:
        yield f"{flow_back(family)} @direct{family} accept"
        if self.tells_resets:
            for name in used_sets(self.elements, "endpoints", family):
                yield f"tcp flags & rst != 0 {from_(family)} @{name} goto ask{family}"
        if self.plan.marks:
            for name in used_sets(self.elements, "answers", family):
                yield f"{from_(family)} vmap @{name}"
        for name in self.asks[family]:
            yield f"{from_(family)} @{name} goto ask{family}"

    def _ask(self, family: int) -> Iterator[str]:
        yield pending()
        yield dispatch(self.plan, f"{ip(family)} daddr . th dport", "queue")

    def _apply_out(self) -> Iterator[str]:
        for family in self.present:
            known = used_sets(self.elements, "endpoints", family) if self.tells_resets else self.asks[family]
            for name in known:
                source = f"{ip(family)} saddr @servers{family}"
                yield f"{source} {from_(family)} @{name} goto apply_answer{family}"

    def _apply_answer(self, family: int) -> Iterator[str]:
        yield f"{OUR_MARK} vmap @answer_marks{family}"
        if not self.plan.marks:
            # Undecided, and the kernel may say so itself where `on_failure: hash` made it keep the map.
            for name in used_sets(self.elements, "answers", family):
                yield f"meta mark & {MARK_PENDING:#x} != 0 {from_(family)} vmap @{name}"
        yield f"meta mark & {MARK_PENDING:#x} != 0 counter name undecided drop"


def answer_rules(
    protocol: Protocol, frontend: ReplyFrontend, *, writes_port: bool, learns: bool
) -> tuple[str, Iterable[str]]:
    """The chain that writes a VIP, and its port if that differs, as the source of an answer. With `learns`
    the egress hook gets to know, and learns the flow if it knows that of the requests."""
    family = 4 if len(frontend.address) == 4 else 6
    rules = []
    if writes_port and protocol is Protocol.TCP:
        rules.append(f"tcp sport set {frontend.port}")
    elif writes_port:
        rules.append(f"udp checksum 0 udp sport set {frontend.port} udp checksum set 0")
        rules.append(f"udp checksum != 0 udp sport set {frontend.port}")
    if learns:
        stays = f"{STAYS} " if protocol is Protocol.TCP else ""
        rules.append(f"{stays}meta oiftype ether {LEARN_ANSWER}")
    rules.append(f"{ip(family)} saddr set {text(frontend.address)} accept")
    return answer_chain(protocol, frontend), rules
