"""Makes a TLS handshake."""

from __future__ import annotations

import ssl

from l4lb.model import HealthCheck
from l4lb.net.checks.judge import Success, Waiting, judge
from l4lb.net.checks.streams import open_stream
from l4lb.net.checks.target import Outcome, Target


async def check(target: Target, settings: HealthCheck) -> Outcome:
    """Whether a handshake succeeds, with a certificate that is valid for `host` where `verify` is set."""

    async def ask(waiting: Waiting) -> Success:
        waiting.what = "TLS handshake"
        async with open_stream(target, settings, tls=True) as (_, writer):
            tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
            return Success(f"{tls.version()} handshake")

    return await judge(settings.timeout_s, ask)
