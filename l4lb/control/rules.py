"""The nftables rules that bring packets to the workers and carry marks out.

Way in (`way_in`, prerouting): before connection tracking, a packet to a service is taken out of tracking and
queued; ten priorities later it has been decided. In `rewrite` it is then no longer addressed to the VIP; in
`mark` its mark says where it goes. In `offload` the mark of an established flow is remembered, and its next
packets meet it before they would be queued. What is sent by user space itself (tunnels, masquerade) does
not come back.

Way back (`way_back`, postrouting, where a source may become a VIP that is local to the host): in `rewrite`
answers are queued; in `mark` a map names the VIP of each backend endpoint, and only endpoints that answer
for several are queued. With direct return the destination becomes the VIP again here, behind the route.

Every packet of the host passes these hooks, so each begins with the quickest question: is this the address of
a VIP or of a backend at all?

The queue number is a hash of the client's address and port with the same seed in both directions, so that
the two meet in one worker; a masqueraded flow's answers find it by the range of their port.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from l4lb.control.elements import (
    SIZES,
    collect_elements,
    families,
    frontends,
    frontends_with_other_ports,
)
from l4lb.control.pool import MAX_ADDRESSES
from l4lb.control.rule_plan import RulePlan
from l4lb.control.rule_words import CHECK_KEY, address_type, flow, learning_chains, quoted_destination
from l4lb.control.ruleset import Ruleset
from l4lb.control.translation import translations
from l4lb.control.way_back import WayBack, answer_rules
from l4lb.control.way_in import WayIn
from l4lb.dataplane.table import MAX_FRONTENDS, MAX_SLOTS, Table
from l4lb.model import Service

FAMILIES = tuple(SIZES)
LEASE_S = 60
"""Seconds that the kernel remembers a flow; then one packet of it comes to user space and renews both."""
_ENDPOINTS = 2 * MAX_SLOTS  # each backend by TCP and by UDP
_DIRECT_SIZE = 65536
_CHECKED_SIZE = 65536
_ASKERS_SIZE = 256
_DIRECT_TIMEOUT = "15m"
_HOOKS = {
    "queue_in": "type filter hook prerouting priority -300",
    "apply_in": "type filter hook prerouting priority -290",
    "queue_out": "type filter hook postrouting priority 80",
    "apply_out": "type filter hook postrouting priority 90",
    "local_out": "type filter hook output priority 0",
}
COUNTERS = ("undecided", "fragments", "denied", "martians", "hashed", "passed", "icmp_excess")


def describe_rules(
    table: Table, services: Sequence[Service], plan: RulePlan, previous: Table | None = None
) -> Ruleset:
    """The rules for `table`, which was made of `services`.

    The marks of `previous`, the table before it, stay known.
    """
    elements = collect_elements(table, services, previous, marks=plan.marks)
    hurried = list(translations(table, services)) if plan.fast_path else []
    elements["hurried"] = [f"{one.mark:#x}" for one in hurried]
    present = families(table)
    # Sets of known size take their memory at once: none for a family that nobody uses.
    declared = sorted({*present, *(families(previous) if previous else ())})
    queues = {
        name: [f"queue flags bypass to {number}"] if plan.native_queue else []
        for name, number in plan.queues().items()
    }
    learning: dict[str, list[str]] = {name: [] for family in FAMILIES for name in learning_chains(family)}
    chains: tuple[tuple[str, Iterable[str]], ...] = (
        *queues.items(),
        *learning.items(),
        *_answer_chains(table, {(one.vip, port) for one in hurried for port in (one.vip_port, 0)}),
        *WayIn(table, services, plan, elements, present).chains(),
        *WayBack(table, services, plan, elements, present).chains(),
    )
    return Ruleset(
        counters=COUNTERS,
        sets=dict(_sets_declared(declared, plan)),
        elements={name: frozenset(found) for name, found in elements.items()},
        hooks=_HOOKS,
        chains={name: tuple(rules) for name, rules in chains},
        filled_elsewhere=frozenset(learning) if plan.native_queue else frozenset({*learning, *queues}),
    )


def _answer_chains(
    table: Table, hurried: Collection[tuple[bytes, int]]
) -> Iterator[tuple[str, Iterable[str]]]:
    """With `hurried`, the frontends whose answers the fast path may learn; port 0 is one that stays."""
    other_ports = frontends_with_other_ports(table)
    for index, (protocol, frontend) in frontends(table).items():
        learns = (frontend.address, frontend.port) in hurried
        yield answer_rules(protocol, frontend, writes_port=index in other_ports, learns=learns)


def _sets_declared(declared: Sequence[int], plan: RulePlan) -> Iterator[tuple[str, str]]:
    # A set whose size is known is a plain hash, and one of 4-byte keys the quickest there is.
    for family in FAMILIES:  # the chains that learn are there from the start, and name the map
        learned = f"size {plan.learned_size}; flags dynamic,timeout; timeout {LEASE_S}s"
        yield f"learned{family}", f"map {{ typeof {flow(family)} : meta mark; {learned}; }}"
    for family in declared:
        address = address_type(family)
        key = f"type {address} . inet_proto . inet_service"
        for name in ("services", "whole", "endpoints", "asked"):
            yield f"{name}{family}", f"set {{ {key}; size {_ENDPOINTS}; }}"
            yield f"{name}_ranges{family}", f"set {{ {key}; flags interval; }}"
        for name in ("guards", "failing"):
            yield f"{name}{family}", f"map {{ {key} : verdict; size {_ENDPOINTS}; }}"
            yield f"{name}_ranges{family}", f"map {{ {key} : verdict; flags interval; }}"
        # Answers are counted here, for user space does not see them.
        yield f"answers{family}", f"map {{ {key} : verdict; size {_ENDPOINTS}; counter; }}"
        yield f"answers_ranges{family}", f"map {{ {key} : verdict; flags interval; counter; }}"
        yield f"answer_marks{family}", f"map {{ type mark : verdict; size {MAX_FRONTENDS}; }}"
        direct = f"type {address} . {address} . inet_proto . inet_service . inet_service"
        bounds = f"size {_DIRECT_SIZE}; flags dynamic,timeout; timeout {_DIRECT_TIMEOUT}"
        yield f"direct{family}", f"set {{ {direct}; {bounds}; }}"
        yield f"askers{family}", f"set {{ type {address}; size {_ASKERS_SIZE}; flags dynamic,timeout; }}"
        checked = f"{CHECK_KEY} : {address}; size {_CHECKED_SIZE}; flags dynamic,timeout"
        yield f"checked{family}", f"map {{ type {checked}; }}"
        yield f"vips{family}", f"set {{ type {address}; size {MAX_FRONTENDS}; }}"
        yield f"servers{family}", f"set {{ type {address}; size {MAX_SLOTS}; }}"
        yield f"pools{family}", f"set {{ type {address}; size {MAX_ADDRESSES}; }}"
        yield f"icmp_targets{family}", f"set {{ type {address}; flags interval; }}"
        yield f"quoted{family}", f"set {{ typeof {quoted_destination(family)}; size {MAX_SLOTS}; }}"
        yield f"backends{family}", f"map {{ type mark : {address}; size {MAX_SLOTS}; }}"
        yield f"recalled{family}", f"map {{ type mark : {address}; size {MAX_SLOTS}; counter; }}"
        yield f"restored{family}", f"map {{ type mark : {address}; size {MAX_SLOTS}; }}"
        yield f"kept{family}", f"set {{ type mark; size {MAX_SLOTS}; }}"
    yield "hurried", f"set {{ type mark; size {MAX_SLOTS}; }}"
    yield "tunnelled", f"set {{ type mark; size {MAX_SLOTS}; }}"
    yield "ports", f"map {{ type mark : inet_service; size {MAX_SLOTS}; }}"
