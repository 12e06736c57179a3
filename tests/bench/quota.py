"""Processes that may use no more than a part of a processor, by a control group each.

So on a machine with few cores it shows whether workers hinder one another: each is given a small part, and
the load and the servers have all the rest.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
_PERIOD_US = 100_000
"""The kernel's own. In a shorter one the clock's ticks are too coarse for a small part."""


def is_possible() -> bool:
    """Whether this host has control groups with a quota of the processor that we may make."""
    return os.access(_V1, os.W_OK) if _is_v1() else "cpu" in _controllers()


@contextlib.contextmanager
def limited(pids: Iterable[int], share: float) -> Iterator[None]:
    """Each of the processes has `share` of a core; afterwards they are as free as this process."""
    with contextlib.ExitStack() as stack:
        for pid in pids:
            stack.enter_context(_limited(pid, share))
        yield


@contextlib.contextmanager
def _limited(pid: int, share: float) -> Iterator[None]:
    top = _V1 if _is_v1() else _V2
    group = top / f"l4lb-bench-{pid}"
    before = _group_of(pid)
    group.mkdir()
    try:
        quota_us = int(share * _PERIOD_US)
        if _is_v1():
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (group / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            (before / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def _is_v1() -> bool:
    return (_V1 / "cpu.cfs_quota_us").exists() or (_V1 / "cgroup.procs").exists()


def _controllers() -> list[str]:
    """Those that groups right below the top may use."""
    try:
        return (_V2 / "cgroup.subtree_control").read_text().split()
    except OSError:
        return []


def _group_of(pid: int) -> Path:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(",") if _is_v1() else controllers == "":
            return (_V1 if _is_v1() else _V2) / path.removeprefix("/")
    raise ProcessLookupError(f"process {pid} is in no control group")
