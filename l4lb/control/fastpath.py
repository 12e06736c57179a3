"""The rules that forward learned flows of direct return past the IP stack: the table `netdev l4lb`.

    wan0 ─▶ ingress  in_N      an ordinary packet to a VIP? ─▶ of a known flow? ─▶ known
                                          │ no                   │ no              │ the backend's link-layer
                                          ▼                      ▼                 ▼ address is written
    lan0 ◀─ egress   out_N ◀── routing ◀── IP stack, `inet l4lb`                 lan0
                       └ to be learned? ─▶ learn

The hook behind the route sees a decided packet last, with the VIP as its destination again, and learns the
flow there: a map knows the mark of each flow, for as long as `LEASE_S`. The first hook of the way in looks
the flow up, and in the links of each device what the mark stands for: the frame's new addresses. A look-up
that fails lets the packet go the ordinary way, and the flow is forgotten, for the ordinary way may choose
another backend. So a backend gets nothing more as soon as its links are deleted: when it is removed, and
while its link-layer address is unknown.

What does not come this way, because the IP stack or user space has something to say about it: packets that
begin or end a connection (the flow is forgotten), fragments, packets with IPv4 options or IPv6 extension
headers, those whose TTL has run out or that somebody has marked, frames with a VLAN tag or for another host,
and services that not everybody may use, for a list that changes must act on known flows too.

The TTL is not counted down here. Devices with a larger MTU than the way to the backends are left out, for
nobody would say that a packet is too big.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from l4lb.control.elements import SIZES, is_guarded, text
from l4lb.control.rule_words import (
    CLEAR_MARK,
    IS_LEARNED,
    OUR_MARK,
    STAYS,
    address_type,
    ip,
    learning_chains,
)
from l4lb.control.rules import LEASE_S
from l4lb.control.ruleset import Ruleset
from l4lb.dataplane.table import MAX_FRONTENDS, MAX_SLOTS, ServiceEntry, Table, forward_mark
from l4lb.model import Address, Forward, Service

FAMILY = "netdev"
COUNTED = "passed"
"""The set that counts the packets of each mark; it outlives changes of the links."""
FLOWS = tuple(f"flows{family}" for family in SIZES)
"""The maps of learned flows."""
# Behind the filters that an operator has there, and before anybody who could see our mark on the way out.
_PRIORITIES = {"ingress": 500, "egress": -500}
_LINKS = f"map {{ typeof meta mark : @ll,0,96; size {4 * MAX_SLOTS}; }}"


@dataclass(frozen=True, slots=True)
class Device:
    """A network device that is up.

    `address` is its link-layer address of 6 bytes, empty where it is no ethernet; `enslaved` says that its
    packets are another device's (a bridge's, a bond's).
    """

    index: int
    name: str
    mtu: int
    address: bytes = b""
    enslaved: bool = False


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of the host's links: devices, and the link-layer addresses (6 bytes) of backends as far
    as they are known, by address and index of the device."""

    devices: tuple[Device, ...]
    neighbours: Mapping[tuple[Address, int], bytes]


@dataclass(frozen=True, slots=True)
class FastPlan:
    """What the fast path depends on besides the host's links.

    `services` are those that `table` was made of. `backends` are those with direct return, each with the name
    of the device that leads to it; `learned_size` bounds the flows of each family.
    """

    table: Table
    services: Sequence[Service]
    backends: Collection[tuple[Address, str]]
    learned_size: int


def ways_in(plan: FastPlan, sight: Sight) -> list[Device]:
    """The devices whose packets may take the fast path."""
    largest = min((device.mtu for device in _ways_to_link(plan, sight)), default=0)
    return [d for d in sight.devices if d.address and not d.enslaved and d.mtu <= largest]


def describe_fast_path(plan: FastPlan, sight: Sight) -> Ruleset:
    """The table as it has to be now."""
    entries = list(_fast_services(plan))
    vips = {vip for entry in entries for vip in entry.vips}
    present = [family for family, size in SIZES.items() if any(len(vip) == size for vip in vips)]
    marks = frozenset(f"{mark:#x}" for entry in entries for mark, _ in _marks(plan.table, entry))
    links = {device: _links(plan, sight, entries, device) for device in _ways_to_link(plan, sight)}
    filled = [name for family in SIZES for name in learning_chains(family)]
    return Ruleset(
        counters=(),
        sets={**dict(_sets_declared(plan)), **{_links_name(device): _LINKS for device in links}},
        elements={
            **{
                f"vips{family}": frozenset(text(vip) for vip in vips if len(vip) == size)
                for family, size in SIZES.items()
            },
            "fast": marks,
            COUNTED: marks,
            **{_links_name(device): frozenset(found) for device, found in links.items()},
        },
        hooks={
            **{f"in_{device.index}": _hook("ingress", device) for device in ways_in(plan, sight)},
            **{f"out_{device.index}": _hook("egress", device) for device in _ways_out(plan, sight)},
        },
        chains={**dict.fromkeys(filled, ()), **dict(_chains(plan, sight, links, present))},
        filled_elsewhere=frozenset(filled),
        family=FAMILY,
    )


def _chains(
    plan: FastPlan, sight: Sight, links: Collection[Device], present: Sequence[int]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every chain with its rules; those that are jumped to come first.

    Headers are asked by their place where nft would otherwise ask anew whether they are there: each question
    of a rule is about 5 ns.
    """
    for family in SIZES:
        yield f"known{family}", tuple(_known(family, links))
        yield f"tcp{family}", (f"{STAYS} goto known{family}", f"goto forget{family}")
    learn = f"{OUR_MARK} @fast meta protocol"
    yield "learn", (f"{learn} ip jump learn4", f"{learn} ip6 jump learn6", CLEAR_MARK)
    for device in ways_in(plan, sight):
        yield f"in_{device.index}", tuple(_in(device, family) for family in present)
    for device in _ways_out(plan, sight):
        yield f"out_{device.index}", (f"{IS_LEARNED} goto learn",)


def _in(device: Device, family: int) -> str:
    """An ordinary packet to a VIP, addressed to this host and without a VLAN tag: who asks the header still
    sees the tag that the device has taken off."""
    frame, mask = device.address + bytes(6), b"\xff" * 6 + bytes(6)
    if family == 4:
        frame, mask = frame + b"\x08\x00\x45", mask + b"\xff\xff\xff"  # without IP options
        unspent = "@nh,64,8 > 1"
        # One word: that more fragments follow, the fragment's offset, and the protocol.
        protocol = "@nh,48,32 & 0x3fff00ff"
    else:
        frame, mask = frame + b"\x86\xdd", mask + b"\xff\xff"
        unspent = "@nh,56,8 > 1"
        protocol = "@nh,48,8"
    ours = f"@ll,0,{8 * len(frame)} & 0x{mask.hex()} == 0x{frame.hex()}"
    ordinary = f"{ip(family)} daddr @vips{family} {ours} meta mark 0 {unspent}"
    return f"{ordinary} {protocol} vmap {{ 6 : goto tcp{family}, 17 : goto known{family} }}"


def _known(family: int, links: Iterable[Device]) -> Iterator[str]:
    """The flow's mark becomes the packet's for a moment. The device that has a link for it is the one."""
    find = f"meta mark set {_flow(family)} map @flows{family} "
    for device in links:
        rewrite = f"@ll,0,96 set meta mark map @{_links_name(device)}"
        yield f'{find}{rewrite} meta mark @{COUNTED} meta mark set 0 fwd to "{device.name}"'
        find = ""
    yield "meta mark set 0"
    # What is unknown is forgotten in vain; what was found and cannot be forwarded comes this way too.
    yield f"goto forget{family}"


def _ways_out(plan: FastPlan, sight: Sight) -> list[Device]:
    """The devices that lead to backends."""
    names = {name for _, name in plan.backends}
    return [device for device in sight.devices if device.name in names]


def _ways_to_link(plan: FastPlan, sight: Sight) -> list[Device]:
    """Those of them whose frames can be addressed."""
    return [device for device in _ways_out(plan, sight) if device.address]


def _fast_services(plan: FastPlan) -> Iterator[ServiceEntry]:
    for service, entry in zip(plan.services, plan.table.services, strict=True):
        if entry.forward is Forward.DSR and not is_guarded(service):
            yield entry


def _marks(table: Table, entry: ServiceEntry) -> Iterator[tuple[int, bytes]]:
    """Mark and address of every backend whose flows go on; user space has to see the others'."""
    for backend in entry.backends:
        if backend.slot in table.resets or backend.slot in table.moves:
            continue
        for n, _ in enumerate(entry.vips):
            yield forward_mark(backend.slot, n), backend.address


def _links(plan: FastPlan, sight: Sight, entries: Iterable[ServiceEntry], device: Device) -> Iterator[str]:
    """Mark, and the frame's destination and source, of every backend behind `device` that is known."""
    known = {
        address.packed: sight.neighbours[address, device.index] + device.address
        for address, name in plan.backends
        if name == device.name and (address, device.index) in sight.neighbours
    }
    for entry in entries:
        for mark, address in _marks(plan.table, entry):
            if address in known:
                yield f"{mark:#x} : 0x{known[address].hex()}"


def _links_name(device: Device) -> str:
    return f"links_{device.index}"


def _flow(family: int) -> str:
    """The key of a flow: addresses, both ports in one word, protocol. One of IPv4 has 16 bytes."""
    addresses = "@nh,96,32 . @nh,128,32" if family == 4 else "@nh,64,128 . @nh,192,128"
    return f"{addresses} . @th,0,32 . meta l4proto"


def _hook(hook: str, device: Device) -> str:
    return f'type filter hook {hook} device "{device.name}" priority {_PRIORITIES[hook]}'


def _sets_declared(plan: FastPlan) -> Iterator[tuple[str, str]]:
    for family in SIZES:
        yield f"vips{family}", f"set {{ type {address_type(family)}; size {MAX_FRONTENDS}; }}"
        learned = f"size {plan.learned_size}; flags dynamic,timeout; timeout {LEASE_S}s"
        yield f"flows{family}", f"map {{ typeof {_flow(family)} : meta mark; {learned}; }}"
    yield "fast", f"set {{ type mark; size {4 * MAX_SLOTS}; }}"
    yield COUNTED, f"set {{ type mark; size {4 * MAX_SLOTS}; counter; }}"
