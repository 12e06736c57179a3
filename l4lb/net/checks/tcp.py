"""Connects; a connection is a success."""

from __future__ import annotations

import socket

from l4lb.model import HealthCheck
from l4lb.net.checks.judge import Success, Waiting, judge
from l4lb.net.checks.sockets import connect, opened, reset_on_close
from l4lb.net.checks.target import Outcome, Target


async def check(target: Target, settings: HealthCheck) -> Outcome:
    """Whether the port accepts a connection. It is reset at once, so the backend sees one that says
    nothing."""

    async def ask(_: Waiting) -> Success:
        with opened(target, socket.SOCK_STREAM) as sock:
            reset_on_close(sock)
            await connect(sock, target)
            return Success("connected")

    return await judge(settings.timeout_s, ask)
