"""What the kernel alone has counted: packets of flows that it learned, and answers that it rewrites
itself."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from l4lb.control.elements import families
from l4lb.control.fastpath import COUNTS_IN, COUNTS_OUT, DIRECT_COUNTS, FAMILY
from l4lb.control.ruleset import TABLE
from l4lb.dataplane.table import MARK_VIP_SHIFT, Table
from l4lb.model import Protocol
from l4lb.net import nft


@dataclass(slots=True)
class KernelCount:
    """Packets and bytes of one backend slot that user space has not seen, in each direction."""

    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0


def read_kernel_counts(table: Table) -> dict[int, KernelCount]:
    """The counts of the kernel's maps by slot, as the rules of `table` fill them."""
    slots = _slots_by_endpoint(table)
    present = families(table)
    answers = [f"{name}{family}" for family in present for name in ("answers", "answers_ranges")]
    counted_in = {f"recalled{family}" for family in present} if table.learns else set()
    counted = nft.read_element_counters(TABLE, [*answers, *sorted(counted_in)])
    if table.learns:
        # Where there is no fast path nothing is found.
        counted |= nft.read_element_counters(TABLE, [DIRECT_COUNTS], family=FAMILY, kind="set")
        maps = [counts[family] for family in present for counts in (COUNTS_IN, COUNTS_OUT)]
        counted |= nft.read_element_counters(TABLE, maps, family=FAMILY)
        counted_in |= {DIRECT_COUNTS, *COUNTS_IN.values()}
    found: dict[int, KernelCount] = {}
    for name, elements in counted.items():
        for key, (packets, octets) in elements.items():
            slot = slots.get(key) if name in answers else _slot_of_mark(key)
            if slot is None:
                continue
            count = found.setdefault(slot, KernelCount())
            if name in counted_in:
                count.packets_in += packets
                count.bytes_in += octets
            else:
                count.packets_out += packets
                count.bytes_out += octets
    return found


def _slot_of_mark(mark: str) -> int:
    return (int(mark, 0) & (1 << MARK_VIP_SHIFT) - 1) - 1


def _slots_by_endpoint(table: Table) -> dict[str, int]:
    """The slot behind each key of the maps of answers, where it is one alone."""
    found = {}
    for (address, protocol), segments in table.endpoints.items():
        for segment in segments:
            slots = {frontend.slot for frontend in segment.frontends}
            if len(slots) == 1:
                start = f"{ip_address(address)} . {int(Protocol(protocol))} . {segment.first}"
                key = start if segment.first == segment.last else f"{start}-{segment.last}"
                found[key] = slots.pop()
    return found
