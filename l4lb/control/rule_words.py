"""Pieces that rules are written with: keys, marks and what differs between IPv4 and IPv6."""

from __future__ import annotations

from l4lb.dataplane.table import MARK_DECIDED, MARK_LEARN, MARK_MASK, MARK_PENDING, MARK_REPLY

OTHERS = f"{~MARK_MASK & 0xFFFF_FFFF:#x}"
"""The bits of a mark that belong to others, and are kept."""
CLEAR_MARK = f"meta mark set meta mark & {OTHERS}"
OUR_MARK = f"meta mark & {MARK_MASK & ~MARK_PENDING:#x}"
"""What was decided, with or without `MARK_LEARN`."""
LEAVES = "tcp flags & (fin | syn | rst) != 0"
"""TCP packets that begin or end a connection: user space sees all of them."""
STAYS = "tcp flags & (fin | syn | rst) == 0"
IS_FORWARD_MARK = f"meta mark & {MARK_DECIDED | MARK_REPLY:#x} == {MARK_DECIDED:#x}"
IS_LEARNED = f"meta mark & {MARK_LEARN | MARK_REPLY:#x} == {MARK_LEARN:#x}"
"""Sent to a backend, and the kernel is to remember it, or does already."""
LEARN_ANSWER = f"meta mark set meta mark & {OTHERS} | {MARK_LEARN | MARK_REPLY:#x}"
"""An answer, and the kernel is to remember it if it does its requests."""
CHECK_KEY = "inet_proto . inet_service . inet_service"
"""By what the answers of a check are known."""
CHECK_OUT = "meta l4proto . th sport . th dport"
CHECK_BACK = "meta l4proto . th dport . th sport"
IS_UNDECIDED = f"meta mark & {MARK_PENDING | MARK_DECIDED:#x} != 0"


def pending(note: int = 0) -> str:
    """Says that the packet is being queued; `note` tells the slow path where from."""
    return f"meta mark set meta mark & {OTHERS} | {MARK_PENDING | note:#x}"


def ip(family: int) -> str:
    """nft's word for the header."""
    return "ip" if family == 4 else "ip6"


def address_type(family: int) -> str:
    """nft's word for the type of an address."""
    return "ipv4_addr" if family == 4 else "ipv6_addr"


def flow(family: int) -> str:
    """The key of a flow in one direction."""
    header = ip(family)
    return f"{header} saddr . {header} daddr . meta l4proto . th sport . th dport"


def flow_back(family: int) -> str:
    """The key of the flow that a packet answers."""
    header = ip(family)
    return f"{header} daddr . {header} saddr . meta l4proto . th dport . th sport"


def learning_chains(family: int) -> tuple[str, str]:
    """The chains that make the kernel learn and forget a flow. The `nft` program cannot write their rules:
    `l4lb.net.nft.add_learning_rules` does."""
    return f"learn{family}", f"forget{family}"


def to(family: int) -> str:
    """The endpoint that a packet goes to."""
    return f"{ip(family)} daddr . meta l4proto . th dport"


def from_(family: int) -> str:
    """The endpoint that a packet comes from."""
    return f"{ip(family)} saddr . meta l4proto . th sport"


def icmp_errors(family: int) -> str:
    """Matches ICMP errors; redirects are none, for they are about the router's routes and not about a
    flow."""
    if family == 4:
        return "icmp type { destination-unreachable, time-exceeded, parameter-problem }"
    return "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }"


def quoted_destination(family: int) -> str:
    """The destination of the packet that an ICMP error quotes, without IP options."""
    return "@th,192,32" if family == 4 else "@th,256,128"
