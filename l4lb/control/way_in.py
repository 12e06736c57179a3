"""The rules on the way in: to the workers, and what their decisions make of a packet (prerouting).

Before the queue (`queue_in`):

    to a VIP ─▶ guard? ─▶ ICMP error? ─▶ learned flow? ─▶ recalled ─▶ carried ─▶ (routing)
                                              │ no            │ its backend is gone
                                              ▼               ▼
                                          incoming / incoming_whole ─▶ queue

Behind it (`apply_in`): decided ─▶ learn? ─▶ carried ─▶ (routing); undecided ─▶ what `on_failure` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from l4lb.control.check_way import lease_s
from l4lb.control.elements import SIZES, failure_chain, guard_chain, is_guarded, text
from l4lb.control.rule_plan import RulePlan
from l4lb.control.rule_words import (
    CHECK_BACK,
    CHECK_OUT,
    CLEAR_MARK,
    IS_FORWARD_MARK,
    IS_LEARNED,
    IS_UNDECIDED,
    LEAVES,
    OUR_MARK,
    STAYS,
    flow,
    flow_back,
    from_,
    icmp_errors,
    ip,
    pending,
    to,
)
from l4lb.dataplane.icmp_words import Hook
from l4lb.dataplane.table import MARK_LEARN, MARK_PENDING, MARK_REPLY, ServiceEntry, Table, forward_mark
from l4lb.model import Forward, OnFailure, Scheduler, Service

_NOBODY = {4: "0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/3", 6: "::/127, ff00::/8"}
"""Source addresses that no single host has (RFC 1812, section 5.3.7; RFC 4291, section 2.5 and 2.7)."""
_NOTE = Hook.PREROUTING.mark & ~MARK_PENDING
_ICMP_RATE = "limit rate over 1000/second burst 200 packets counter name icmp_excess drop"


class WayIn:
    """The chains of prerouting, for the families `present`."""

    def __init__(
        self,
        table: Table,
        services: Sequence[Service],
        plan: RulePlan,
        elements: Mapping[str, Sequence[str]],
        present: Sequence[int],
    ) -> None:
        self.table = table
        self.services = services
        self.plan = plan
        self.elements = elements
        self.present = present
        self.rejects = any(entry.rejects for entry in table.services)
        self.keeps_marks = any(entry.forward is Forward.DSR for entry in table.services)
        self.check_lease_s = lease_s(services)

    def chains(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Every chain with its rules; those that are jumped to come first."""
        yield "icmp_in", self._icmp_in()
        yield "pass", ["counter name passed", CLEAR_MARK, "accept"]
        yield "defragment", _defragment() if self.plan.defragments else ()
        for service in self.services:
            if is_guarded(service):
                yield guard_chain(service), _guard(service)
        for worker, _ in enumerate(self.plan.masquerade_ports):
            yield f"pool_{worker}", ["notrack", pending(MARK_REPLY), f"goto whole_{worker}"]
        for family in self.present:
            yield f"carried{family}", self._carried(family)
            yield f"incoming{family}", self._incoming(family, "queue")
            yield f"incoming_whole{family}", self._incoming(family, "whole")
            yield f"recalled{family}", self._recalled(family)
            yield f"to_vip{family}", self._to_vip(family)
            yield f"to_pool{family}", self._to_pool(family)
            yield f"to_server{family}", self._to_server(family)
            yield f"from_server{family}", self._from_server(family)
            yield f"failed{family}", self._failed(family)
            yield f"apply{family}", self._apply(family)
        for service, entry in zip(self.services, self.table.services, strict=True):
            if service.on_failure is OnFailure.HASH:
                yield failure_chain(service), self._hash(entry)
        yield "queue_in", self._queue_in()
        yield "apply_in", self._apply_in()
        yield "local_out", self._local_out()

    # Before the queue.

    def _queue_in(self) -> Iterator[str]:
        for family in self.present:
            header = ip(family)
            yield f"{header} daddr @vips{family} goto to_vip{family}"
            if self.check_lease_s is not None:
                # A backend answers a check from the VIP, which must not reach the route as the source.
                source = f"{header} saddr set {CHECK_BACK} map @checked{family}"
                yield f"{header} saddr @vips{family} {header} daddr @askers{family} {source} accept"
            if self.elements[f"pools{family}"]:
                yield f"{header} daddr @pools{family} goto to_pool{family}"
            if self.elements[f"icmp_targets{family}"]:
                yield f"{icmp_errors(family)} {header} daddr @icmp_targets{family} goto icmp_in"
            if self.elements[f"servers{family}"]:
                yield f"{header} daddr @servers{family} jump to_server{family}"
                yield f"{header} saddr @servers{family} goto from_server{family}"

    def _to_vip(self, family: int) -> Iterator[str]:
        for name in self._sets("guards", family):
            yield f"{to(family)} vmap @{name}"
        yield f"{icmp_errors(family)} goto icmp_in"
        if self.elements[f"recalled{family}"]:
            recall = f"meta mark set {flow(family)} map @learned{family} goto recalled{family}"
            yield f"{STAYS} {recall}"
            yield f"meta l4proto udp {recall}"
        for name in self._sets("services", family):
            yield f"{to(family)} @{name} goto incoming{family}"
        for name in self._sets("whole", family):
            yield f"{to(family)} @{name} goto incoming_whole{family}"
        if family == 4:
            # Only where the kernel could not be made to put fragments together: later ones carry no ports.
            yield "ip frag-off & 0x1fff != 0 counter name fragments drop"

    def _incoming(self, family: int, kind: str) -> Iterator[str]:
        if kind == "queue" and self.elements[f"recalled{family}"]:
            # The port may begin another flow, and an element that is there is not changed by `update`.
            yield f"{LEAVES} jump forget{family}"
        if kind == "whole" or self.rejects:
            # What is sent from user space may be an answer to the source: it must be somebody's address.
            yield f"{ip(family)} saddr {{ {_NOBODY[family]} }} counter name martians drop"
        yield "notrack"
        yield pending()
        yield dispatch(self.plan, f"{ip(family)} saddr . th sport", kind)

    def _recalled(self, family: int) -> Iterator[str]:
        """A flow that the kernel has learned. Without its backend it is forgotten, and user space asked."""
        if not self.elements[f"recalled{family}"]:
            return
        yield "notrack"
        yield f"{ip(family)} daddr set {OUR_MARK} map @recalled{family} goto carried{family}"
        yield f"jump forget{family}"
        yield f"goto incoming{family}"

    def _to_pool(self, family: int) -> Iterator[str]:
        if not self.elements[f"pools{family}"]:
            return
        yield f"{icmp_errors(family)} goto icmp_in"
        ranges = ", ".join(
            f"{first}-{last} : goto pool_{worker}"
            for worker, (first, last) in enumerate(self.plan.masquerade_ports)
        )
        yield f"meta l4proto {{ tcp, udp }} th dport vmap {{ {ranges} }}"

    def _to_server(self, family: int) -> Iterator[str]:
        for name in self._sets("endpoints", family):
            yield f"{to(family)} @{name} update @direct{family} {{ {flow(family)} }}"

    def _from_server(self, family: int) -> Iterator[str]:
        for name in self._sets("endpoints", family):
            yield f"{from_(family)} @{name} {flow_back(family)} != @direct{family} notrack"

    def _icmp_in(self) -> Iterator[str]:
        yield _ICMP_RATE
        yield "notrack"
        yield pending(_NOTE)
        yield "goto queue_icmp"

    # Behind the queue.

    def _apply_in(self) -> Iterator[str]:
        for family in self.present:
            yield f"{ip(family)} daddr @vips{family} goto apply{family}"
            if self.elements[f"pools{family}"]:
                undecided = f"meta mark & {MARK_PENDING:#x} != 0 counter name undecided drop"
                yield f"meta l4proto {{ tcp, udp }} {ip(family)} daddr @pools{family} {undecided}"

    def _apply(self, family: int) -> Iterator[str]:
        """Carries a mark out. A look-up that fails ends its rule, so an unknown mark reaches the last one."""
        if self.elements[f"recalled{family}"]:
            yield f"meta mark & {MARK_LEARN:#x} == {MARK_LEARN:#x} jump learn{family}"
        if self.elements[f"backends{family}"]:
            yield f"{ip(family)} daddr set {OUR_MARK} map @backends{family} goto carried{family}"
        yield f"{IS_UNDECIDED} goto failed{family}"

    def _carried(self, family: int) -> Iterator[str]:
        """The address is written; the port, and what becomes of the mark."""
        if self.elements["ports"]:
            port = f"{OUR_MARK} map @ports"
            yield f"tcp dport set {port}"
            # A UDP checksum of 0 means none, and must stay so (RFC 768); the kernel would count on from it.
            yield f"udp checksum 0 udp dport set {port} udp checksum set 0"
            yield f"udp checksum != 0 udp dport set {port}"
        if self.elements["hurried"]:
            # The egress hook learns the flow, and clears the mark (`l4lb.control.fastpath`).
            yield f"{IS_LEARNED} {OUR_MARK} @hurried accept"
        if self.keeps_marks:
            yield f"{OUR_MARK} != @kept{family} {CLEAR_MARK}"
        else:
            yield CLEAR_MARK
        yield "accept"

    def _failed(self, family: int) -> Iterator[str]:
        yield f"meta l4proto {{ icmp, ipv6-icmp }} {CLEAR_MARK} accept"
        for name in self._sets("failing", family):
            yield f"{to(family)} vmap @{name}"
        yield "counter name undecided drop"

    def _hash(self, entry: ServiceEntry) -> Iterator[str]:
        """Chooses as the cores do that have no flow: the same hash, the same table."""
        runs = list(_runs(entry.lookup))
        if not runs:
            yield "counter name undecided drop"
            return
        family = 4 if len(next(iter(self._vips_of(entry)))) == SIZES[4] else 6
        client = f"{ip(family)} saddr" + ("" if entry.scheduler is Scheduler.SOURCE_HASH else " . th sport")
        choice = f"jhash {client} mod {len(entry.lookup) // 2} seed {entry.kernel_seed:#x} map"
        for n, address in enumerate(entry.vips if entry.forward is Forward.DSR else (b"",)):
            marks = ", ".join(f"{places} : {forward_mark(slot, n):#x}" for places, slot in runs)
            of_vip = f"{ip(family)} daddr {text(address)} " if len(entry.vips) > 1 else ""
            yield f"{of_vip}meta mark set {choice} {{ {marks} }}"
        yield "counter name hashed"
        yield f"{ip(family)} daddr set {OUR_MARK} map @backends{family} goto carried{family}"
        yield "counter name undecided drop"

    def _vips_of(self, entry: ServiceEntry) -> Iterator[bytes]:
        for (address, _), ranges in self.table.vips.items():
            if any(self.table.services[r.service] is entry for r in ranges):
                yield address

    def _local_out(self) -> Iterator[str]:
        if self.check_lease_s is not None:
            lease = f"timeout {self.check_lease_s}s"
            for family in self.present:
                check = f"{IS_FORWARD_MARK} meta l4proto {{ tcp, udp }}"
                asker, asked = f"{ip(family)} saddr", f"{ip(family)} daddr"
                # Two elements: for one with our address in its key, too, nft 1.0.6 has not enough registers.
                yield f"{check} update @askers{family} {{ {asker} {lease} }}"
                yield f"{check} update @checked{family} {{ {CHECK_OUT} {lease} : {asked} }}"
        if self.elements["tunnelled"]:
            yield f"{OUR_MARK} @tunnelled goto queue_icmp"
        # IPv6 has no sysctl against redirects, which would lead clients past a one-armed gateway.
        if self.keeps_marks and 6 in self.present:
            yield "icmpv6 type nd-redirect drop"

    def _sets(self, name: str, family: int) -> Iterator[str]:
        return used_sets(self.elements, name, family)


def used_sets(elements: Mapping[str, Sequence[str]], name: str, family: int) -> Iterator[str]:
    """Those of a pair of sets that have elements, so that no packet is looked up in an empty one."""
    return (pair for pair in (f"{name}{family}", f"{name}_ranges{family}") if elements[pair])


def dispatch(plan: RulePlan, key: str, kind: str) -> str:
    """Sends a packet to the chain `kind`_n of the worker that `key` hashes to."""
    if plan.workers == 1:
        return f"goto {kind}_0"
    chains = ", ".join(f"{n} : goto {kind}_{n}" for n in range(plan.workers))
    return f"jhash {key} mod {plan.workers} seed {plan.seed:#x} vmap {{ {chains} }}"


def _runs(lookup: bytes) -> Iterator[tuple[str, int]]:
    """The places of a lookup table as nft's ranges, each with the slot that stands in all of them."""
    slots = memoryview(lookup).cast("H")
    first = 0
    for place in range(1, len(slots) + 1):
        if place == len(slots) or slots[place] != slots[first]:
            yield (f"{first}-{place - 1}" if place - 1 > first else f"{first}"), slots[first]
            first = place


def _guard(service: Service) -> Iterator[str]:
    header = ip(service.listens[0].address.version)
    if service.deny:
        yield f"{header} saddr {{ {_networks(service.deny)} }} counter name denied drop"
    if service.allow:
        yield f"{header} saddr != {{ {_networks(service.allow)} }} counter name denied drop"


def _networks(networks: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, networks)))


def _defragment() -> Iterator[str]:
    """Nothing comes here. That the kernel knows these expressions makes it put fragments together, before
    all hooks.

    Its reassembly is bounded in memory and time and drops overlaps (ipfrag_high_thresh, RFC 5722), and what
    is larger than the next link is cut up again on the way out. Connection tracking would do the same, at
    the cost of tracking.
    """
    yield "meta l4proto udp tproxy ip to :1"
    yield "meta l4proto udp tproxy ip6 to :1"
