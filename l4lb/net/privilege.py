"""What this process may do (capabilities(7))."""

from __future__ import annotations

from pathlib import Path

from l4lb.errors import CapabilityError

_CAP_NET_ADMIN = 12


def demand_net_admin() -> None:
    """CapabilityError without CAP_NET_ADMIN."""
    if not has_net_admin():
        raise CapabilityError("CAP_NET_ADMIN is missing: rules, queues and addresses need it; run as root")


def has_net_admin() -> bool:
    """Whether CAP_NET_ADMIN is in effect."""
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return False
