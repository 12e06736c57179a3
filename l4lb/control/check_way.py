"""Which way a check goes: to the backend's own address, or to the VIP, by the rules of clients' packets.

Where backends answer clients themselves, a check that asks their own address says nothing of the VIP: whether
it is set up there, whether the server listens on it, whether packets are taken out of tunnels. So such a
check has a socket to the backend's address, which the rules make a conversation with the VIP. With direct
return:

    socket ─▶ to the backend ─▶ output: remembered ─▶ postrouting: to the VIP ─▶ frame to the backend
    socket ◀─ from the backend ◀─ prerouting: from a VIP, to ports that are remembered ◀─ from the VIP

The socket's mark is the backend's forward mark: what writes the VIP is what does it for clients, and no
scheduler is asked. What goes into a tunnel takes another way behind `output`: it is queued to the slow path,
which sends it to the VIP inside another packet, as the core does with clients' packets. An answer has
to come from the backend before its route is looked for, for a source that is an address of this host is a
martian there. Answers are known by protocol and ports, and so a check has a port of its own; clients' flows
are not touched, for these are not addressed to this host.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from l4lb.model import Backend, CheckType, HealthCheck, Service, Via

CAN_ASK_VIP = tuple(kind for kind in CheckType if kind not in (CheckType.PING, CheckType.EXEC))
"""The types of checks whose packets have ports; a program asks whom it wants."""


def hears_of_failure(check: HealthCheck) -> bool:
    """Whether a check through the VIP can fail. ICMP errors do not come back to it, and where no answer is
    expected nothing else says that a port is closed."""
    return check.type is not CheckType.UDP or check.expect.asks_for_text


def asks_vip(service: Service, backend: Backend) -> bool:
    """Whether the service's check of this backend goes through the VIP."""
    check = service.health
    if check is None or check.type not in CAN_ASK_VIP or not service.forward.answers_itself:
        return False
    if backend.address.version != service.listens[0].address.version:
        return False  # a socket has one family
    if check.via is None:
        return hears_of_failure(check)
    return check.via is Via.VIP


def lease_s(services: Iterable[Service]) -> int | None:
    """For how many seconds a packet of a check has to be remembered: as long as any check may take. None
    where no check goes through a VIP."""
    taking = [
        service.health.timeout_s
        for service in services
        if service.health is not None and any(asks_vip(service, backend) for backend in service.backends)
    ]
    return math.ceil(max(taking)) + 1 if taking else None
