"""Clients that come while something else goes on: connections one after another, each asking for one page."""

from __future__ import annotations

import asyncio

from tests.bench.web import Web

TIMEOUT_S = 3.0
"""Time for one SYN to be lost and sent again (after 1 s)."""
_REQUEST = b"GET / HTTP/1.0\r\n\r\n"


def count_failed(web: Web, newcomers: int, seconds: float) -> int:
    """Of so many connections, begun evenly over `seconds`, those that have no answer in time."""
    with web.lab.client.enter():
        return asyncio.run(_count_failed(web, newcomers, seconds))


async def _count_failed(web: Web, newcomers: int, seconds: float) -> int:
    answers = await asyncio.gather(*(_answered(web, n * seconds / newcomers) for n in range(newcomers)))
    return answers.count(False)


async def _answered(web: Web, delay: float) -> bool:
    await asyncio.sleep(delay)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(web.address, web.port)
            try:
                writer.write(_REQUEST)
                return (await reader.read()).endswith(b"ok\n")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
