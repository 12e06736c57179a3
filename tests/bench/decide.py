"""Nanoseconds a decision, in process, on generated packets: no kernel, no network.

The core is what runs in a worker between receiving and answering. It is measured through `decide_all`,
which takes packets in batches of 16 as the queue loop does; what `decide_all` itself does to the list
is measured by a call with no rounds and subtracted. The peer is the Python reference, on few packets.
"""

from __future__ import annotations

import gc
import os
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from l4lb.dataplane import balancer as native
from l4lb.dataplane import hashing as native_hashing
from l4lb.dataplane.decision import Reason
from l4lb.dataplane.nativetable import NativeTable
from l4lb.dataplane.reference import balancer as reference
from l4lb.dataplane.reference import hashing as reference_hashing
from l4lb.dataplane.table import Table
from l4lb.model import Scheduler
from tests.bench.report import Measure, Target
from tests.bench.runner import Sample, Series, Settings, alternate
from tests.bench.usage import resident_mib
from tests.support.tables import Svc, make_table

ABOUT = "nanoseconds a decision in process, flow table bytes, Maglev fill time"
PROGRAMS: tuple[str, ...] = ()
DEFAULTS = Settings(runs=5, seconds=0.3)
QUICK = Settings(runs=1, seconds=0.02, quick=True)
NEEDS_LAB = False

KEY = bytes(range(16))
NOW_MS = 1_000_000
MAGLEV_SIZE = 65537
MAGLEV_BACKENDS = 1000
REFERENCE_PACKETS = 500
_VIP = bytes([203, 0, 113, 10])
_ACK = 0x10
_FEW, _MANY, _REFERENCE = "10k_flows", "1m_flows", "reference"
_KNOWN_LIMITS = {_FEW: 80, _MANY: 250}


def run(settings: Settings) -> list[Measure]:
    """All measures; in quick runs without those of a million flows."""
    table = _table()
    packets = {_FEW: _packets(10_000)}
    if not settings.quick:
        packets[_MANY] = _packets(1_000_000)
    measures = _decisions(packets, table, settings)
    if not settings.quick:
        measures += _table_bytes(packets[_MANY], table)
    return [*measures, _maglev(settings)]


def _decisions(packets: Mapping[str, list[bytes]], table: Table, settings: Settings) -> list[Measure]:
    sample = packets[_FEW][:REFERENCE_PACKETS]
    found = alternate(
        {
            **{label: _native_timer(some, table, settings.seconds) for label, some in packets.items()},
            _REFERENCE: lambda: _time_reference(sample, table),
        },
        settings.runs,
    )
    return [
        _decision_measure(kind, label, found[kind])
        for label in packets
        for kind in ("known", "known_rewrite", "new")
    ]


def _decision_measure(kind: str, label: str, found: Mapping[str, Series]) -> Measure:
    """Beside the reference; that of many known flows also beside that of few."""
    peers, targets = {_REFERENCE: found[_REFERENCE]}, []
    if kind == "known":
        targets.append(Target(_KNOWN_LIMITS[label], sense="at_most"))
        if label == _MANY:
            peers[_FEW] = found[_FEW]
            targets.append(Target(1.5, of=_FEW, sense="at_most"))
    return Measure(f"ns_a_decision/{kind}_{label}", "ns", "less", found[label], peers, targets)


def _native_timer(packets: list[bytes], table: Table, seconds: float) -> Callable[[], Sample]:
    return lambda: _time_native(packets, table, seconds)


def _time_native(packets: list[bytes], table: Table, seconds: float) -> Sample:
    """ns a packet: of unknown flows in a fresh balancer, then of the same flows, now known."""
    balancer = native.Balancer(capacity=2 * len(packets), key=KEY)
    balancer.publish(NativeTable(table))

    def decide(rounds: int, rewrite: bool = False) -> float:
        return _seconds(lambda: balancer.decide_all(packets, NOW_MS, rewrite=rewrite, rounds=rounds))

    decide(0)
    overhead = decide(0)
    new = decide(1) - overhead
    rounds = max(1, round(seconds / max(decide(1) - overhead, 1e-6)))
    known = (decide(rounds) - overhead) / rounds
    rewritten = (decide(rounds, rewrite=True) - overhead) / rounds
    _expect(balancer.reasons()[Reason.SCHEDULED] == len(packets), "every flow is scheduled once")
    scale = 1e9 / len(packets)
    return {"new": new * scale, "known": known * scale, "known_rewrite": rewritten * scale}


def _time_reference(packets: list[bytes], table: Table) -> Sample:
    balancer = reference.Balancer(capacity=2 * len(packets), key=KEY)
    balancer.publish(table)

    def decide(rewrite: bool) -> float:
        def every() -> None:
            for packet in packets:
                balancer.decide(packet, NOW_MS, rewrite=rewrite)

        return _seconds(every) * 1e9 / len(packets)

    return {"new": decide(False), "known": decide(False), "known_rewrite": decide(True)}


def _table_bytes(packets: list[bytes], table: Table) -> list[Measure]:
    """Memory that a flow takes: a place of the table, and a flow when a million stand in 2^20 places."""
    places, many = 1 << 20, 1 << 24
    small = native.Balancer(capacity=places, key=KEY)
    before = _address_space()
    large = native.Balancer(capacity=many, key=KEY)
    # What a balancer has besides its places is 3 MB: a fifth of a byte by so many.
    bytes_a_place = (_address_space() - before) / many
    del large
    small.publish(NativeTable(table))
    small.decide_all(packets, NOW_MS)
    bytes_a_flow = bytes_a_place * places / small.flow_count()
    without_room = float(small.reasons()[Reason.STATELESS])
    del small
    resident_before = resident_mib(os.getpid())
    roomy = native.Balancer(capacity=2 * len(packets), key=KEY)
    roomy.publish(NativeTable(table))
    roomy.decide_all(packets, NOW_MS)
    resident = resident_mib(os.getpid()) - resident_before
    _expect(roomy.flow_count() == len(packets), "every flow is remembered")
    limit = Target(64, sense="at_most")
    return [
        Measure("table_bytes/place", "bytes", "less", Series((bytes_a_place,)), targets=(limit,)),
        Measure("table_bytes/flow_at_95_percent", "bytes", "less", Series((bytes_a_flow,)), targets=(limit,)),
        Measure(
            "resident_mib/1m_flows",
            "MiB",
            "less",
            Series((resident,)),
            targets=(Target(128, sense="at_most"),),
        ),
        Measure(
            "flows_without_room/at_95_percent",
            "of a million",
            "less",
            Series((without_room,)),
        ),
    ]


def _maglev(settings: Settings) -> Measure:
    names = [f"10.2.{n >> 8}.{n & 255}:8080".encode() for n in range(MAGLEV_BACKENDS)]

    def fill(hashing: Any) -> Callable[[], Sample]:
        def once() -> Sample:
            def build() -> None:
                permutations = [hashing.maglev_permutation(KEY, name, MAGLEV_SIZE) for name in names]
                hashing.maglev_table(permutations, [1] * len(names), MAGLEV_SIZE)

            return {"ms": _seconds(build) * 1e3}

        return once

    found = alternate(
        {"ours, maglev": fill(native_hashing), "reference": fill(reference_hashing)}, settings.runs
    )
    ours, peer = found["ms"].values()
    name = f"maglev_ms/{MAGLEV_SIZE}_places_{MAGLEV_BACKENDS}_backends"
    return Measure(name, "ms", "less", ours, {"reference": peer}, (Target(100, sense="at_most"),))


def _table() -> Table:
    """One service, three backends, with a Maglev table of the real size."""
    backends = [f"10.2.0.{n}:8080" for n in (11, 12, 13)]
    table = make_table(Svc("web", ["203.0.113.10:80/tcp"], backends, Scheduler.MAGLEV))
    permutations = [native_hashing.maglev_permutation(KEY, name.encode(), MAGLEV_SIZE) for name in backends]
    lookup = memoryview(bytearray(2 * MAGLEV_SIZE)).cast("H")
    for place, index in enumerate(native_hashing.maglev_table(permutations, [1, 1, 1], MAGLEV_SIZE)):
        lookup[place] = index
    return replace(table, services=(replace(table.services[0], lookup=lookup.tobytes()),))


def _packets(flows: int) -> list[bytes]:
    """A TCP ACK without payload for each of `flows` flows: 40 bytes."""
    return [b"".join(_packet(n)) for n in range(flows)]


def _packet(number: int) -> Iterable[bytes]:
    yield struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0)
    yield struct.pack("!I", (10 << 24) + (number >> 14))
    yield _VIP
    yield struct.pack("!HHIIBBHHH", 1024 + (number & 0x3FFF), 80, 1, 1, 5 << 4, _ACK, 65535, 0, 0)


def _seconds(action: Callable[[], object]) -> float:
    gc.collect()
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _address_space() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * 4096


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(f"decide measured something else than it should: {what}")
