"""A server program's own count of what it did, readable through a Unix socket beside its traffic."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

Counts = Mapping[str, int | str]

READ_TIMEOUT_S = 5.0


async def serve(path: Path, counts: Callable[[], Counts]) -> asyncio.Server:
    """Answer every connection with the counts of this moment as one JSON object, and close it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(counts()).encode() + b"\n")
        await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(answer, path)


def read(path: Path) -> dict[str, int]:
    """The numbers that the program behind this socket counts."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(READ_TIMEOUT_S)
        sock.connect(str(path))
        with sock.makefile("rb") as stream:
            counts = json.loads(stream.read())
    return {key: value for key, value in counts.items() if isinstance(value, int)}
