"""What can go wrong with a lab, and whether one can be made here at all."""

from __future__ import annotations

import os
import shutil
import subprocess


class LabError(Exception):
    """The lab, or a command in it, failed; the message says what, where and what to do."""


def unavailable() -> str | None:
    """Why no lab can be made on this machine, or None when one can. The answer is a reason to skip."""
    if os.geteuid() != 0:
        return "network namespaces need root: run it with sudo"
    for program in ("ip", "unshare"):
        if shutil.which(program) is None:
            return f"`{program}` is not installed: run ./scripts/setup"
    probe = subprocess.run(
        ["unshare", "--net", "true"], capture_output=True, text=True, timeout=10, check=False
    )
    if probe.returncode != 0:
        return f"the kernel or the container refuses network namespaces ({probe.stderr.strip()})"
    return None
