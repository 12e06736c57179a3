"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from l4lb import __version__
from tests.bench.errors import BenchError

PROGRAMS = {
    "gcc": ("gcc", "-dumpfullversion"),
    "haproxy": ("haproxy", "-v"),
    "iperf3": ("iperf3", "--version"),
    "nft": ("nft", "--version"),
    "nginx": ("nginx", "-v"),
    "wrk": ("wrk", "-v"),
}
PACKAGES = ("l4lb", "netfilterqueue")


def describe(programs: Sequence[str]) -> dict[str, Any]:
    """Kernel, cores and versions: of ours, of Python, and of the programs and packages that take part.

    `load` is the machine's load average when it is asked: what was going on before the benchmark.
    """
    versions = {"python": platform.python_version(), "l4lb": __version__}
    for name in programs:
        versions[name] = version(name) if name in PACKAGES else _program_version(name)
    return {
        "kernel": platform.release(),
        "cores": len(cores()),
        "cpu": _processor(),
        "load": round(os.getloadavg()[0], 2),
        "versions": versions,
    }


def cores() -> list[int]:
    """The processors that this process may use."""
    return sorted(os.sched_getaffinity(0))


def require(programs: Sequence[str]) -> None:
    """BenchError names the programs that are not installed."""
    missing = [name for name in programs if name not in PACKAGES and shutil.which(name) is None]
    if missing:
        raise BenchError(f"not installed: {', '.join(missing)}; run ./scripts/setup --bench")


def _program_version(name: str) -> str:
    said = subprocess.run(PROGRAMS[name], capture_output=True, text=True, timeout=10, check=False)
    found = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
    return found[0] if found else "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
