"""What a process uses of the machine, as proc(5) tells it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all of its threads (proc(5), fields 14 and 15).

    Packets that the kernel handles in interrupts while the process runs are charged to it, too.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_share(pid: int, action: Callable[[], object]) -> float:
    """Share of a core that the process uses while `action` runs."""
    before, since = cpu_seconds(pid), time.monotonic()
    action()
    return (cpu_seconds(pid) - before) / (time.monotonic() - since)


def resident_mib(pid: int) -> float:
    """Memory that the process holds, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has ended")
