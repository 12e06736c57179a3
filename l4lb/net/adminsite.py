"""What both programs' admin sockets have in common: HTTP and JSON over a Unix socket.

Lists are sent one object a line (application/x-ndjson) as they are made, so that a million rows need no
memory. Errors are JSON, too, with the exit code that a command is to end with.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aiohttp import web

from l4lb.errors import CapabilityError, ConfigError, L4lbError

_STATUS = {ConfigError: 422, CapabilityError: 501}
_ROWS_A_TURN = 512
Json = dict[str, Any]


def make_app() -> web.Application:
    """An application whose errors are JSON; add routes to it."""
    return web.Application(middlewares=[_errors])


async def serve(app: web.Application, sock: socket.socket) -> web.AppRunner:
    """Serves `app` on a listening socket until the runner that is returned is cleaned up."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    return runner


def listen_locally(path: Path) -> socket.socket:
    """A listening Unix socket with mode 0660, in place of what a killed run left."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        before = os.umask(0o117)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen()
    except OSError as error:
        sock.close()
        raise L4lbError(f"{path}: the admin socket cannot be made: {error.strerror or error}") from error
    return sock


async def read_body(request: web.Request) -> Json:
    """The object that was sent, empty where nothing was. ConfigError where it is none."""
    text = await request.text()
    try:
        body = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(f"{request.path}: not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ConfigError(f"{request.path}: an object is needed")
    return body


async def send_rows(
    request: web.Request, rows: Iterable[Json], headers: Mapping[str, str] = MappingProxyType({})
) -> web.StreamResponse:
    """Streams rows, giving others a turn now and then."""
    iterator = iter(rows)
    first = next(iterator, None)  # errors in the request show before the answer has begun
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", **headers})
    await response.prepare(request)
    if first is not None:
        await response.write(json.dumps(first).encode() + b"\n")
        async for chunk in _chunks(iterator):
            await response.write(chunk)
    await response.write_eof()
    return response


async def _chunks(rows: Iterable[Json]) -> AsyncIterator[bytes]:
    lines: list[bytes] = []
    for row in rows:
        lines.append(json.dumps(row).encode() + b"\n")
        if len(lines) == _ROWS_A_TURN:
            yield b"".join(lines)
            lines.clear()
            await asyncio.sleep(0)
    if lines:
        yield b"".join(lines)


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Errors as JSON, with the exit code that the command line is to end with."""
    try:
        return await handler(request)
    except L4lbError as error:
        body = {"error": str(error), "exit_code": error.exit_code}
        return web.json_response(body, status=_STATUS.get(type(error), 500))
