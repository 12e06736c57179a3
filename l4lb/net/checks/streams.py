"""Connections with or without TLS as asyncio's streams."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator
from functools import cache

from l4lb.model import HealthCheck
from l4lb.net.checks.sockets import connect, opened
from l4lb.net.checks.target import Target

_HOST_AND_PORT = re.compile(r"(\[.*\]|[^:]*):[0-9]+")


@cache
def tls_context(verify: bool) -> ssl.SSLContext:
    """The context of all checks that do, or do not, verify; kept, because reading the host's authorities
    takes tens of milliseconds in which nothing else runs."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def server_name(target: Target, settings: HealthCheck) -> str:
    """The name that TLS asks for and verifies: `host` without its port, or the address."""
    if settings.host is None:
        return str(target.address)
    with_port = _HOST_AND_PORT.fullmatch(settings.host)
    return (with_port.group(1) if with_port else settings.host).strip("[]")


@contextlib.asynccontextmanager
async def open_stream(
    target: Target, settings: HealthCheck, *, tls: bool
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the target, dropped at the end. OSError where there is none; ssl.SSLError is one."""
    with opened(target, socket.SOCK_STREAM) as sock:
        await connect(sock, target)
        reader, writer = await asyncio.open_connection(
            sock=sock,
            ssl=tls_context(settings.verify) if tls else None,
            server_hostname=server_name(target, settings) if tls else None,
        )
        try:
            yield reader, writer
        finally:
            writer.transport.abort()  # also stops the watching of the socket, which is closed next
