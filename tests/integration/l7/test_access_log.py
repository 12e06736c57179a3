"""The access log: formats, what a client cannot do to it, rotation, and readers that do not read."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from l7.model import AccessLog as LogSettings
from l7.model import LogFormat, Respond
from tests.support.proxying import Backend, Rig, answer, get, ok, proxied

FIXED = {"shares": (), "respond": Respond(200, b"fixed")}
COMBINED = re.compile(
    rb'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "([^"]*)" (\d{3}) (\d+) '
    rb'"([^"]*)" "([^"]*)"'
)


def combined(path: Path) -> dict[str, object]:
    return {"access_log": LogSettings(path, LogFormat.COMBINED)}


@proxied
async def test_lines_are_those_of_nginx(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "access.log"
    async with Backend(answer(ok(b"12345"))) as backend, Rig(backend, config=combined(path)) as rig:
        await rig.ask(get(b"/a?b", b"Referer: http://x/", b"User-Agent: me"))
        await rig.ask(get(b"/c"))
        await rig.ask(b"GET /\r\n\r\n")
    lines = [COMBINED.fullmatch(line) for line in path.read_bytes().splitlines()]
    assert [line.groups() for line in lines if line] == [
        (b"GET /a?b HTTP/1.1", b"200", b"5", b"http://x/", b"me"),
        (b"GET /c HTTP/1.1", b"200", b"5", b"-", b"-"),
        (b"", b"400", b"16", b"-", b"-"),
    ]


@pytest.mark.parametrize("format_", list(LogFormat))
@proxied
async def test_no_client_can_forge_a_line_or_reach_a_terminal(tmp_path_factory, format_):
    path = tmp_path_factory.mktemp("log") / "access.log"
    nasty = b'" 200 0 "x\\\xe2\x80\xa8\xc2\x85\xff\t'
    async with Rig(route=FIXED, config={"access_log": LogSettings(path, format_)}) as rig:
        await rig.ask(get(b'/"%0a\\', b"User-Agent: a" + nasty + b"b", b"Referer: a" + nasty + b"b"))
        await rig.ask(get(b"/", b"User-Agent: " + b"\xff" * 20_000))
    data = path.read_bytes()
    assert data.count(b"\n") == 2
    assert all(0x20 <= byte < 0x7F or byte == 0x0A for byte in data)
    if format_ is LogFormat.COMBINED:
        assert all(COMBINED.fullmatch(line) for line in data.splitlines())


@proxied
async def test_a_moved_log_is_opened_anew(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "access.log"
    async with Rig(route=FIXED, config=combined(path)) as rig:
        await rig.ask(get(b"/before"))
        moved = path.with_suffix(".1")
        path.rename(moved)
        await rig.ask(get(b"/between"))
        rig.log.reopen()
        await rig.ask(get(b"/after"))
    assert [line.split()[6] for line in moved.read_bytes().splitlines()] == [b"/before", b"/between"]
    assert [line.split()[6] for line in path.read_bytes().splitlines()] == [b"/after"]


@proxied
async def test_lines_are_written_within_a_second_or_so(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "access.log"
    async with Rig(route=FIXED, config=combined(path)) as rig:
        await rig.ask(get())
        async with asyncio.timeout(5):
            while not path.read_bytes():
                await asyncio.sleep(0.01)


@proxied
async def test_a_pipe_that_nobody_reads_stops_nothing(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    async with Rig(route=FIXED, config=combined(path)) as rig, await rig.connect() as client:
        long = get(b"/" + b"x" * 7000)
        for _ in range(800):
            await client.send(long)
            assert (await client.reply()).status == 200
        assert rig.log.lost > 0
        # What was not lost is whole, and goes on where it stopped.
        read = bytearray()
        while True:
            rig.log.flush()
            try:
                read += os.read(reader, 1 << 20)
            except BlockingIOError:
                break
        assert read.endswith(b"\n")
        lines = bytes(read).splitlines()
        assert all(COMBINED.fullmatch(line) for line in lines)
        assert len(lines) + rig.log.lost == 800
    os.close(reader)
