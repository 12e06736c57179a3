"""The nftables rules that bring packets to the workers and carry marks out.

Way in (prerouting): before connection tracking, a packet to a service is taken out of tracking and
queued; ten priorities later it has been decided. In `rewrite` it is then no longer addressed to the VIP; in
`mark` its mark says where it goes. One that was queued and not decided (the queue overflowed and let it
through) is dropped and counted, never answered by the host.

Way back (postrouting, where a source may become a VIP that is local to the host): in `rewrite` answers are
queued; in `mark` a map names the VIP of each backend endpoint, and only endpoints that answer for
several are queued.

Direct connections to a backend that cross the gateway are not balanced, and their answers must not get a VIP.
The client's packets of one are remembered in a bounded set (`direct`), which answers are looked up in first.

Every packet of the host passes these hooks, so each begins with the quickest question: is this the address of
a VIP or of a backend at all?

The queue number is a hash of the client's address and port with the same seed in both directions, so that
the two meet in one worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from l4lb.control.elements import (
    answer_chain,
    collect_elements,
    families,
    frontends,
    frontends_with_other_ports,
    text,
)
from l4lb.control.ruleset import Ruleset
from l4lb.dataplane.table import (
    MARK_DECIDED,
    MARK_MASK,
    MARK_PENDING,
    MAX_FRONTENDS,
    MAX_SLOTS,
    ReplyFrontend,
    Table,
)
from l4lb.model import Protocol

_OTHERS_MARKS = ~MARK_MASK & 0xFFFF_FFFF
_ENDPOINTS = 2 * MAX_SLOTS  # each backend by TCP and by UDP
_DIRECT_SIZE = 65536
_DIRECT_TIMEOUT = "15m"
_HOOKS = {
    "queue_in": "type filter hook prerouting priority -300",
    "apply_in": "type filter hook prerouting priority -290",
    "queue_out": "type filter hook postrouting priority 80",
    "apply_out": "type filter hook postrouting priority 90",
}


@dataclass(frozen=True, slots=True)
class RulePlan:
    """What the rules depend on besides the table.

    `marks` is true for the `mark` datapath. Worker n reads queue `first_queue + n`. `native_queue` says
    whether the kernel's nftables can queue; otherwise the queue chains are left empty here and
    `l4lb.net.nft.add_queue_rules` fills them by way of xtables' NFQUEUE target.
    """

    marks: bool
    workers: int
    first_queue: int
    seed: int
    native_queue: bool


def queue_chain(worker: int) -> str:
    """The chain that queues for `worker`."""
    return f"queue_{worker}"


def describe_rules(table: Table, plan: RulePlan, previous: Table | None = None) -> Ruleset:
    """The rules for `table`; the marks of `previous`, the table before it, stay known."""
    return _Rules(table, plan, previous).describe()


class _Rules:
    def __init__(self, table: Table, plan: RulePlan, previous: Table | None) -> None:
        self.table = table
        self.plan = plan
        self.families = families(table)
        self.declared = sorted({*self.families, *(families(previous) if previous else ())})
        self.elements = collect_elements(table, previous, marks=plan.marks)

    def describe(self) -> Ruleset:
        queues = {queue_chain(n): self._queue(n) for n in range(self.plan.workers)}
        return Ruleset(
            counters=("undecided", "fragments"),
            sets=dict(self._sets_declared()),
            elements={name: frozenset(elements) for name, elements in self.elements.items()},
            hooks=_HOOKS,
            chains={name: tuple(rules) for name, rules in (*queues.items(), *self._chains())},
            filled_elsewhere=frozenset() if self.plan.native_queue else frozenset(queues),
        )

    def _sets_declared(self) -> Iterator[tuple[str, str]]:
        # A set whose size is known is a plain hash, and one of 4-byte keys the quickest there is.
        for family in self.declared:
            address = _address_type(family)
            key = f"type {address} . inet_proto . inet_service"
            for name in ("services", "endpoints", "asked"):
                yield f"{name}{family}", f"set {{ {key}; size {_ENDPOINTS}; }}"
                yield f"{name}_ranges{family}", f"set {{ {key}; flags interval; }}"
            yield f"answers{family}", f"map {{ {key} : verdict; size {_ENDPOINTS}; }}"
            yield f"answers_ranges{family}", f"map {{ {key} : verdict; flags interval; }}"
            yield f"answer_marks{family}", f"map {{ type mark : verdict; size {MAX_FRONTENDS}; }}"
            direct = f"type {address} . {address} . inet_proto . inet_service . inet_service"
            bounds = f"size {_DIRECT_SIZE}; flags dynamic,timeout; timeout {_DIRECT_TIMEOUT}"
            yield f"direct{family}", f"set {{ {direct}; {bounds}; }}"
            yield f"vips{family}", f"set {{ type {address}; size {MAX_FRONTENDS}; }}"
            yield f"servers{family}", f"set {{ type {address}; size {MAX_SLOTS}; }}"
            yield f"backends{family}", f"map {{ type mark : {address}; size {MAX_SLOTS}; }}"
        yield "ports", f"map {{ type mark : inet_service; size {MAX_SLOTS}; }}"

    def _chains(self) -> Iterator[tuple[str, Iterable[str]]]:
        other_ports = frontends_with_other_ports(self.table)
        for index, (protocol, frontend) in frontends(self.table).items():
            rules = _answer_rules(protocol, frontend, writes_port=index in other_ports)
            yield answer_chain(protocol, frontend), rules
        for family in self.families:
            yield f"to_vip{family}", self._to_vip(family)
            yield f"incoming{family}", self._incoming(family)
            yield f"apply{family}", self._apply(family)
            yield f"to_server{family}", self._to_server(family)
            yield f"from_server{family}", self._from_server(family)
            yield f"answer{family}", self._answer(family)
            yield f"ask{family}", self._ask(family)
            yield f"apply_answer{family}", _apply_answer_rules(family)
        yield "queue_in", self._queue_in()
        yield "apply_in", self._apply_in()
        yield "queue_out", self._queue_out()
        if any(any(self._sets("asked", family)) for family in self.families):
            yield "apply_out", self._apply_out()

    def _queue(self, worker: int) -> list[str]:
        return [f"queue num {self.plan.first_queue + worker}"] if self.plan.native_queue else []

    # Before the queue, on the way in.

    def _queue_in(self) -> Iterator[str]:
        for family in self.families:
            ip = _ip(family)
            yield f"{ip} daddr @vips{family} goto to_vip{family}"
            yield f"{ip} daddr @servers{family} jump to_server{family}"
            yield f"{ip} saddr @servers{family} goto from_server{family}"

    def _to_vip(self, family: int) -> Iterator[str]:
        for name in self._sets("services", family):
            yield f"{_to(family)} @{name} goto incoming{family}"
        if family == 4:
            # Later fragments carry no ports; the first one is queued and counted by the core.
            yield "ip frag-off & 0x1fff != 0 counter name fragments drop"

    def _incoming(self, family: int) -> Iterator[str]:
        yield "notrack"
        yield f"meta mark set meta mark & {_OTHERS_MARKS:#x} | {MARK_PENDING:#x}"
        yield self._dispatch(f"{_ip(family)} saddr . th sport")

    def _to_server(self, family: int) -> Iterator[str]:
        for name in self._sets("endpoints", family):
            yield f"{_to(family)} @{name} update @direct{family} {{ {_direct(family)} }}"

    def _from_server(self, family: int) -> Iterator[str]:
        for name in self._sets("endpoints", family):
            yield f"{_from(family)} @{name} {_answers_direct(family, unless=True)} notrack"

    def _dispatch(self, key: str) -> str:
        if self.plan.workers == 1:
            return f"goto {queue_chain(0)}"
        chains = ", ".join(f"{n} : goto {queue_chain(n)}" for n in range(self.plan.workers))
        return f"jhash {key} mod {self.plan.workers} seed {self.plan.seed:#x} vmap {{ {chains} }}"

    # Behind the queue, on the way in.

    def _apply_in(self) -> Iterator[str]:
        for family in self.families:
            yield f"{_ip(family)} daddr @vips{family} goto apply{family}"

    def _apply(self, family: int) -> Iterator[str]:
        """Carries a mark out. A look-up that fails ends its rule, so an unknown mark reaches the last one."""
        mark = f"meta mark & {MARK_MASK:#x} map"
        if self.elements["ports"]:
            yield f"tcp dport set {mark} @ports"
            # A UDP checksum of 0 means none, and must stay so (RFC 768); the kernel would count on from it.
            yield f"udp checksum 0 udp dport set {mark} @ports udp checksum set 0"
            yield f"udp checksum != 0 udp dport set {mark} @ports"
        if self.plan.marks:
            others = f"meta mark set meta mark & {_OTHERS_MARKS:#x}"
            yield f"{_ip(family)} daddr set {mark} @backends{family} {others} accept"
        yield f"meta mark & {MARK_PENDING | MARK_DECIDED:#x} != 0 counter name undecided drop"

    # On the way back.

    def _queue_out(self) -> Iterator[str]:
        for family in self.families:
            yield f"{_ip(family)} saddr @servers{family} goto answer{family}"

    def _answer(self, family: int) -> Iterator[str]:
        yield f"{_answers_direct(family)} accept"
        for name in self._sets("answers", family):
            yield f"{_from(family)} vmap @{name}"
        for name in self._sets("asked", family):
            yield f"{_from(family)} @{name} goto ask{family}"

    def _ask(self, family: int) -> Iterator[str]:
        yield f"meta mark set meta mark & {_OTHERS_MARKS:#x} | {MARK_PENDING:#x}"
        yield self._dispatch(f"{_ip(family)} daddr . th dport")

    def _apply_out(self) -> Iterator[str]:
        for family in self.families:
            for name in self._sets("asked", family):
                source = f"{_ip(family)} saddr @servers{family}"
                yield f"{source} {_from(family)} @{name} goto apply_answer{family}"

    def _sets(self, name: str, family: int) -> Iterator[str]:
        """Those of a pair of sets that have elements, so that no packet is looked up in an empty one."""
        return (pair for pair in (f"{name}{family}", f"{name}_ranges{family}") if self.elements[pair])


def _answer_rules(protocol: Protocol, frontend: ReplyFrontend, *, writes_port: bool) -> Iterator[str]:
    family = 4 if len(frontend.address) == 4 else 6
    if writes_port and protocol is Protocol.TCP:
        yield f"tcp sport set {frontend.port}"
    elif writes_port:
        yield f"udp checksum 0 udp sport set {frontend.port} udp checksum set 0"
        yield f"udp checksum != 0 udp sport set {frontend.port}"
    yield f"{_ip(family)} saddr set {text(frontend.address)} accept"


def _apply_answer_rules(family: int) -> Iterator[str]:
    yield f"meta mark & {MARK_PENDING:#x} != 0 counter name undecided drop"
    yield f"meta mark & {MARK_MASK:#x} vmap @answer_marks{family}"


def _address_type(family: int) -> str:
    return "ipv4_addr" if family == 4 else "ipv6_addr"


def _ip(family: int) -> str:
    return "ip" if family == 4 else "ip6"


def _direct(family: int) -> str:
    """The key of a direct connection, from a packet of its client."""
    ip = _ip(family)
    return f"{ip} saddr . {ip} daddr . meta l4proto . th sport . th dport"


def _answers_direct(family: int, *, unless: bool = False) -> str:
    """Matches an answer to a direct connection, or all that are none."""
    ip = _ip(family)
    key = f"{ip} daddr . {ip} saddr . meta l4proto . th dport . th sport"
    return f"{key} {'!= ' if unless else ''}@direct{family}"


def _to(family: int) -> str:
    return f"{_ip(family)} daddr . meta l4proto . th dport"


def _from(family: int) -> str:
    return f"{_ip(family)} saddr . meta l4proto . th sport"
