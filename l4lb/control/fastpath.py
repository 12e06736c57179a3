"""The rules that forward learned flows past the IP stack, of direct return and of NAT in both directions:
the table `netdev l4lb`.

    wan0 ─▶ ingress  in_N    an ordinary packet to a VIP? ─▶ of a known flow? ─▶ known
                                         │ no                   │ no             │ its link header is written,
                                         ▼                      ▼                ▼ and for NAT its endpoint
    lan0 ◀─ egress   out_N ◀── routing ◀── IP stack, `inet l4lb`               lan0
                       └ to be learned? ─▶ learn

Answers of NAT go the same way back: from a backend, with the VIP written as their source.

The hook behind the route sees a packet last, and learns what became of it: the device, and the addresses of
the frame as the kernel has resolved them, by the flow's key as the packet came in. The first hook of the way
in looks the flow up, and asks of its mark whether it still leads to a backend: a backend gets nothing more as
soon as its marks are gone. A look-up that fails lets the packet go the ordinary way. Where the backends, a
route or a neighbour change, everything is forgotten (`l4lb.net.fastpath`) and learned anew from the next
packets.

| flows | who learns them asks | a known packet's mark is asked in |
|---|---|---|
| `direct_flows`, of direct return | `direct_marks`: is it one? | `passed` |
| `request_flows`, of NAT | `origins`: which VIP did it come for? | `passed_in`: the backend |
| `answer_flows`, of NAT | `request_flows`, `ends`: whose answer is it? | `passed_out`: the VIP |

The last column is counted, for user space does not see these packets. Rules in which one look-up asks for
what the one before has found are written by `l4lb.net.fastrules`; the others are here.

What does not come this way, because the IP stack or user space has something to say about it: packets that
begin or end a connection (the flow is forgotten), fragments, packets with IPv4 options or IPv6 extension
headers, UDP without a checksum through NAT, those whose TTL has run out or that somebody has marked, frames
with a VLAN tag or for another host, packets that are larger than the smallest MTU of all devices, for nobody
would say that they are too big, and services that not everybody may use, for a list that changes must act on
known flows too. The TTL is not counted down here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from l4lb.control.elements import SIZES, families, is_guarded, text
from l4lb.control.rule_words import CLEAR_MARK, address_type, ip
from l4lb.control.rules import LEASE_S
from l4lb.control.ruleset import Ruleset
from l4lb.control.translation import Translation, translations
from l4lb.dataplane.table import (
    MARK_LEARN,
    MAX_SLOTS,
    ServiceEntry,
    Table,
    forward_mark,
    learned_slots,
)
from l4lb.model import Forward, Service

FAMILY = "netdev"
DIRECT, REQUEST, ANSWER = KINDS = ("direct", "request", "answer")
PROTOCOLS = {"tcp": 6, "udp": 17}
FLOWS = tuple(f"{kind}_flows{family}" for kind in KINDS for family in SIZES)
"""The maps of learned flows, of families that are in use."""
DIRECT_COUNTS = "passed"
"""The set that counts packets of direct return by mark."""
COUNTS_IN, COUNTS_OUT = (
    {family: f"{name}{family}" for family in SIZES} for name in ("passed_in", "passed_out")
)
"""The maps by family that count NAT's packets by mark, from clients and from backends."""
COUNTED = (DIRECT_COUNTS, *COUNTS_IN.values(), *COUNTS_OUT.values())
_ASKED = {"direct_vips": DIRECT, "nat_vips": REQUEST, "servers": ANSWER}
"""The sets of addresses that packets are looked up in first, and of which flows they may be then."""
_KNOWN = "meta oif . meta mark . @ll,0,96"
"""What is known of a flow: the device, the mark, the two addresses of the frame."""
# Behind the filters that an operator has there, and before anybody who could see our mark on the way out.
_PRIORITIES = {"ingress": 500, "egress": -500}


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

    @property
    def is_a_way(self) -> bool:
        """Whether packets can come and go by it past the IP stack."""
        return bool(self.address) and not self.enslaved


@dataclass(frozen=True, slots=True)
class FastPlan:
    """What the fast path depends on besides the host's devices.

    `services` are those that `table` was made of. `learned_size` bounds the flows of each kind and family.
    """

    table: Table
    services: Sequence[Service]
    learned_size: int


def describe_fast_path(plan: FastPlan, devices: Sequence[Device]) -> Ruleset:
    """The table as it has to be now, with the host's devices."""
    direct = list(_direct(plan))
    learned = learned_slots(plan.table)
    marks = frozenset(f"{mark:#x}" for entry in direct for mark in _marks(entry, learned))
    natted = list(translations(plan.table, plan.services))
    addresses = {
        "direct_vips": {vip for entry in direct for vip in entry.vips},
        "nat_vips": {one.vip for one in natted},
        "servers": {one.backend for one in natted},
    }
    present = families(plan.table)
    ways = [device for device in devices if device.is_a_way]
    smallest = min((device.mtu for device in ways), default=0)
    filled = [name for family in present for name in (*chains_of(family), learning_chain(family))]
    return Ruleset(
        counters=(),
        sets=dict(_sets_declared(plan, present)),
        elements={
            **{
                f"{name}{family}": frozenset(f"0x{one.hex()}" for one in found if len(one) == size)
                for name, found in addresses.items()
                for family, size in SIZES.items()
                if family in present
            },
            "direct_marks": marks,
            DIRECT_COUNTS: marks,
            **dict(_by_mark(natted, present)),
        },
        hooks={
            f"{name}_{device.index}": _hook(hook, device)
            for device in ways
            for name, hook in (("in", "ingress"), ("out", "egress"))
        },
        chains={
            **dict.fromkeys(filled, ()),
            "learn": (
                *(f"meta protocol {ip(family)} jump {learning_chain(family)}" for family in present),
                CLEAR_MARK,
            ),
            **{f"in_{device.index}": tuple(_in(device, smallest, _asked(addresses))) for device in ways},
            **dict.fromkeys(
                (f"out_{device.index}" for device in ways),
                (f"meta mark & {MARK_LEARN:#x} == {MARK_LEARN:#x} goto learn",),
            ),
        },
        filled_elsewhere=frozenset(filled),
        family=FAMILY,
    )


def chain_of(kind: str, protocol: str, family: int) -> str:
    """The chain that forwards the known flows of a kind."""
    return f"{kind}_{protocol}{family}"


def chains_of(family: int) -> Iterator[str]:
    """All of them of one family."""
    return (chain_of(kind, protocol, family) for kind in KINDS for protocol in PROTOCOLS)


def learning_chain(family: int) -> str:
    """The chain that learns flows of a family."""
    return f"learn{family}"


def _asked(addresses: dict[str, set[bytes]]) -> Iterator[tuple[str, str, int]]:
    """Set, kind of flows and family, of everything that a packet is looked up for."""
    for name, kind in _ASKED.items():
        for family, size in SIZES.items():
            if any(len(address) == size for address in addresses[name]):
                yield name, kind, family


def _in(device: Device, smallest: int, asked: Iterable[tuple[str, str, int]]) -> Iterator[str]:
    """An ordinary packet that may be of a known flow, addressed to this host and without a VLAN tag: who asks
    the link header still sees the tag that the device has taken off.

    Headers are asked by their place and in words of four bytes, which the kernel answers without a call. By
    their names nft would ask each time whether the header is there.
    """
    small_enough = f" meta length <= {smallest}" if device.mtu > smallest else ""
    for name, kind, family in asked:
        address = _address(name, family)
        if family == 4:
            # The type of the frame, and IP without options. One word: fragment, TTL and protocol.
            frame, unspent, protocol = "@ll,96,24 0x080045", "@nh,48,32 & 0xfe00", "@nh,48,32 & 0x3fff00ff"
        else:
            frame, unspent, protocol = "@ll,96,16 0x86dd", "@nh,32,32 & 0xfe", "@nh,48,8"
        chains = ", ".join(
            f"{number} : jump {chain_of(kind, word, family)}" for word, number in PROTOCOLS.items()
        )
        yield (
            f"{address} @{name}{family} {frame} meta pkttype host meta mark 0 {unspent} != 0{small_enough} "
            f"{protocol} vmap {{ {chains} }}"
        )


def _address(name: str, family: int) -> str:
    """The address of a packet that is looked up in a set: its source in that of backends."""
    source, destination = ("@nh,96,32", "@nh,128,32") if family == 4 else ("@nh,64,128", "@nh,192,128")
    return source if name == "servers" else destination


def _direct(plan: FastPlan) -> Iterator[ServiceEntry]:
    for service, entry in zip(plan.services, plan.table.services, strict=True):
        if entry.forward is Forward.DSR and not is_guarded(service):
            yield entry


def _marks(entry: ServiceEntry, learned: Collection[int]) -> Iterator[int]:
    """The marks of every backend whose slot is among the learned; user space has to see the others'."""
    for backend in entry.backends:
        if backend.slot in learned:
            yield from (forward_mark(backend.slot, n) for n, _ in enumerate(entry.vips))


def _by_mark(natted: Sequence[Translation], present: Iterable[int]) -> Iterator[tuple[str, frozenset[str]]]:
    for family in present:
        ours = [one for one in natted if len(one.vip) == SIZES[family]]
        vips = [(f"{one.mark:#x}", f"{text(one.vip)} . {one.vip_port}") for one in ours]
        backends = [(f"{one.mark:#x}", f"{text(one.backend)} . {one.backend_port}") for one in ours]
        # A key is completed from behind an unused word (`l4lb.net.fastrules`).
        yield f"origins{family}", frozenset(f"{mark} : 0 . {vip}" for mark, vip in vips)
        yield f"ends{family}", frozenset(f"{mark} : 0 . {backend}" for mark, backend in backends)
        yield COUNTS_IN[family], frozenset(f"{mark} : {backend}" for mark, backend in backends)
        yield COUNTS_OUT[family], frozenset(f"{mark} : {vip}" for mark, vip in vips)


def _hook(hook: str, device: Device) -> str:
    return f'type filter hook {hook} device "{device.name}" priority {_PRIORITIES[hook]}'


def _sets_declared(plan: FastPlan, present: Iterable[int]) -> Iterator[tuple[str, str]]:
    """Those of known size take their memory at once: none for a family that nobody uses."""
    learned = f"size {plan.learned_size}; flags dynamic,timeout; timeout {LEASE_S}s"
    for family in present:
        for name in _ASKED:
            yield f"{name}{family}", f"set {{ typeof {_address(name, family)}; size {MAX_SLOTS}; }}"
        address = address_type(family)
        endpoint = f"{address} . inet_service"
        for kind in KINDS:
            yield f"{kind}_flows{family}", f"map {{ typeof {_key(kind, family)} : {_KNOWN}; {learned}; }}"
        # Only who learns asks the first two: they take memory as they need it.
        for name in ("origins", "ends"):
            yield f"{name}{family}", f"map {{ type mark : mark . {endpoint}; }}"
        for name in (COUNTS_IN[family], COUNTS_OUT[family]):
            yield name, f"map {{ type mark : {endpoint}; size {MAX_SLOTS}; counter; }}"
    yield "direct_marks", f"set {{ type mark; size {4 * MAX_SLOTS}; }}"
    yield DIRECT_COUNTS, f"set {{ type mark; size {4 * MAX_SLOTS}; counter; }}"


def _key(kind: str, family: int) -> str:
    """The client's endpoint, the other's, and the protocol."""
    header, protocol = ("ip", "protocol") if family == 4 else ("ip6", "nexthdr")
    source, destination = f"{header} saddr . th sport", f"{header} daddr . th dport"
    client, other = (destination, source) if kind == ANSWER else (source, destination)
    return f"{client} . {other} . {header} {protocol}"
