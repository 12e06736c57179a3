"""Sends a datagram; an ICMP error is a failure."""

from __future__ import annotations

import socket

from l4lb.model import HealthCheck
from l4lb.net.checks.expected import require_text
from l4lb.net.checks.judge import Success, Waiting, judge
from l4lb.net.checks.sockets import opened_datagram, receive
from l4lb.net.checks.target import Outcome, Target


async def check(target: Target, settings: HealthCheck) -> Outcome:
    """Whether `payload` is answered as expected.

    Where nothing is expected, any answer is a success at once, and silence is one when the timeout has
    passed: UDP tells no difference between a server that does not answer and a host that is away, unless the
    host or a router sends an ICMP error.
    """
    expects = settings.expect.asks_for_text

    async def ask(_: Waiting) -> Success:
        with opened_datagram(target, socket.SOCK_DGRAM) as sock:
            sock.send(settings.payload)
            answer = await receive(sock)
            if expects:
                require_text(settings.expect, answer, "answer")
            return Success("answered")

    silence = None if expects else f"no ICMP error in {settings.timeout_s:g} s; no answer is expected"
    return await judge(settings.timeout_s, ask, silence)
