"""What the kernel says about fragments that it puts together (RFC 4293: ipReasmReqds, ipReasmOKs,
ipReasmFails)."""

from __future__ import annotations

from pathlib import Path

_SNMP = Path("/proc/thread-self/net/snmp")
_SNMP6 = Path("/proc/thread-self/net/snmp6")


def read_reassembly() -> dict[str, int]:
    """Fragments received, packets made of them, and failures (time-outs, overlaps, no memory), of both
    families.

    They are those of the whole host since it started. Of IPv6 fragments that netfilter puts together the
    kernel counts the failures alone.
    """
    totals = {"fragments": 0, "reassembled": 0, "failed": 0}
    words = {"ReasmReqds": "fragments", "ReasmOKs": "reassembled", "ReasmFails": "failed"}
    for name, value in (*_read_snmp(), *_read_snmp6()):
        if name in words:
            totals[words[name]] += value
    return totals


def _read_snmp() -> list[tuple[str, int]]:
    """Two lines that begin alike: names, then values."""
    lines = [line.split() for line in _read(_SNMP) if line.startswith("Ip:")]
    if len(lines) != 2:
        return []
    names, values = lines
    return [(name, int(value)) for name, value in zip(names[1:], values[1:], strict=True)]


def _read_snmp6() -> list[tuple[str, int]]:
    fields = [line.split() for line in _read(_SNMP6)]
    return [(name.removeprefix("Ip6"), int(value)) for name, value in fields if name.startswith("Ip6Reasm")]


def _read(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
