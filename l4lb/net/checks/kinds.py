"""Which module carries out which type of check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from l4lb.model import CheckType, HealthCheck
from l4lb.net.checks import dns, exec, http, ping, syn, tcp, tls, udp
from l4lb.net.checks.target import Outcome, Target

Check = Callable[[Target, HealthCheck], Awaitable[Outcome]]

CHECKS: Mapping[CheckType, Check] = {
    CheckType.TCP: tcp.check,
    CheckType.HTTP: http.check,
    CheckType.HTTPS: http.check,
    CheckType.UDP: udp.check,
    CheckType.DNS: dns.check,
    CheckType.PING: ping.check,
    CheckType.TLS: tls.check,
    CheckType.SYN: syn.check,
    CheckType.EXEC: exec.check,
}


async def check(target: Target, settings: HealthCheck) -> Outcome:
    """Asks `target` as `settings.type` says."""
    return await CHECKS[settings.type](target, settings)
