"""Asks for a page over HTTP/1.1 (RFC 9112), with or without TLS.

An answer is: interim answers (status 1xx, at most 8 of them), then one with a status, headers of at most 32
KiB, and a body by Content-Length, in chunks, or up to the end of the connection. The body is read only where
something is expected of it, and only its first 64 KiB.
"""

from __future__ import annotations

import asyncio
import re

from l4lb.model import CheckType, HealthCheck
from l4lb.net.checks.expected import require_status, require_text
from l4lb.net.checks.judge import CheckFailedError, Success, Waiting, judge
from l4lb.net.checks.streams import open_stream
from l4lb.net.checks.target import Outcome, Target

LARGEST_BODY = 64 << 10
_LARGEST_HEADERS = 32 << 10
_INTERIM_ANSWERS = 8
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?: .*)?")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_PORTS = {False: 80, True: 443}

Headers = dict[bytes, bytes]
"""By names in lower case."""


async def check(target: Target, settings: HealthCheck) -> Outcome:
    """Whether the answer has an expected status and, where that is asked, an expected body."""

    async def ask(waiting: Waiting) -> Success:
        tls = settings.type is CheckType.HTTPS
        async with open_stream(target, settings, tls=tls) as (reader, writer):
            waiting.what = "HTTP answer"
            writer.write(request(target, settings))
            try:
                status, headers = await read_head(reader)
                require_status(settings.expect, status)
                if settings.expect.asks_for_text:
                    waiting.what = "whole body"
                    body = await read_body(reader, headers, is_empty(settings.method, status))
                    require_text(settings.expect, body, "body")
            except asyncio.IncompleteReadError:
                raise CheckFailedError(f"connection closed before the {waiting.what}") from None
            except asyncio.LimitOverrunError:
                raise CheckFailedError("the answer is not HTTP: a line is too long") from None
            return Success(f"status {status}")

    return await judge(settings.timeout_s, ask)


def request(target: Target, settings: HealthCheck) -> bytes:
    """The request; headers of the settings replace those that stand here."""
    tls = settings.type is CheckType.HTTPS
    host = target.host if target.port == _PORTS[tls] else f"{target.host}:{target.port}"
    headers = {"host": ("Host", settings.host or host)}
    headers["user-agent"] = ("User-Agent", "l4lb-health-check")
    headers["accept"] = ("Accept", "*/*")
    if settings.method not in ("GET", "HEAD"):
        headers["content-length"] = ("Content-Length", "0")
    headers.update({name.lower(): (name, value) for name, value in settings.headers})
    headers["connection"] = ("Connection", "close")
    lines = [f"{settings.method} {settings.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.values()]
    return "\r\n".join([*lines, "", ""]).encode()


async def read_head(reader: asyncio.StreamReader) -> tuple[int, Headers]:
    """The status and headers of the final answer. Raises CheckFailedError for what is not HTTP, and as
    StreamReader.readuntil does."""
    for _ in range(_INTERIM_ANSWERS + 1):
        line = await _read_line(reader)
        found = _STATUS_LINE.fullmatch(line)
        if found is None:
            raise CheckFailedError("the answer is not HTTP")
        headers = await _read_headers(reader)
        status = int(found.group(1))
        if status >= 200:
            return status, headers
    raise CheckFailedError("only interim answers (1xx)")


async def read_body(reader: asyncio.StreamReader, headers: Headers, empty: bool) -> bytes:
    """The first 64 KiB of the body. Raises CheckFailedError for one that is not framed as HTTP has it, and
    asyncio.IncompleteReadError for one that ends early."""
    if empty:
        return b""
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        return await _read_chunks(reader)
    if b"content-length" in headers:
        length = headers[b"content-length"]
        if _LENGTH.fullmatch(length) is None:
            raise CheckFailedError("the answer is not HTTP: its length is no number")
        return await reader.readexactly(min(int(length), LARGEST_BODY))
    body = b""
    while len(body) < LARGEST_BODY and (more := await reader.read(LARGEST_BODY - len(body))):
        body += more
    return body


def is_empty(method: str, status: int) -> bool:
    """Whether an answer has no body, whatever its headers say (RFC 9112, section 6.3)."""
    return method == "HEAD" or status in (204, 304)


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readuntil(b"\n")
    return line.rstrip(b"\r\n")


async def _read_headers(reader: asyncio.StreamReader) -> Headers:
    headers: Headers = {}
    size = 0
    while line := await _read_line(reader):
        size += len(line)
        if size > _LARGEST_HEADERS:
            raise CheckFailedError("the answer's headers are larger than 32 KiB")
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    return headers


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while len(body) < LARGEST_BODY:
        found = _CHUNK_SIZE.fullmatch(await _read_line(reader))
        if found is None:
            raise CheckFailedError("the answer is not HTTP: its chunks are broken")
        size = int(found.group(1), 16)
        if size == 0:
            break
        body += await reader.readexactly(min(size, LARGEST_BODY - len(body)))
        if len(body) < LARGEST_BODY:
            await reader.readexactly(2)  # the line's end behind the chunk
    return body
