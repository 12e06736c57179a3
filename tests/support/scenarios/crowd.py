"""Clients that keep asking while things change, in a thread of their own inside a host.

Some keep their connection and ask over it again and again; when it ends they open another. Beside them new
clients arrive at a steady rate, with one request on a connection of its own each, however long the others
before them wait: a backend that hangs does not slow the load down.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass

from tests.support.lab import Host, LabError, wait_for
from tests.support.scenarios import traffic

KEEPERS = 12
KEEPER_PAUSE_S = 0.05
ARRIVAL_PAUSE_S = 0.01
REQUEST_TIMEOUT_S = 2.0
ASKED_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Asked:
    """One request; times are seconds of time.monotonic."""

    connection: int
    """The number of the connection."""
    kept: bool
    """Whether its client keeps connections."""
    first: bool
    """Whether it was the connection's first, its opening included."""
    began_s: float
    ended_s: float
    name: str
    """Who answered; empty if nobody did."""
    size: int
    """Bytes of the answer."""
    error: str
    """Why there was no good answer; empty if there was one."""


class Crowd:
    """Asks `/` of an HTTP service from `__enter__` to `__exit__`; no request is cut off at the end.

    `pace` is the part of the usual rate that is asked at.
    """

    def __init__(self, client: Host, address: str, port: int, pace: float = 1.0) -> None:
        self.asked: list[Asked] = []
        """Every request that has ended, in this order."""
        self._client = client
        self._address, self._port = address, port
        self._pace = pace
        self._numbers = itertools.count()
        self._open: Counter[str] = Counter()
        self._hung_up: dict[str, float] = {}
        self._stopping = False
        self._trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="crowd")

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()

    def kept(self, name: str) -> int:
        """How many connections to a backend are kept open now."""
        return self._open[name]

    def hang_up(self, name: str) -> None:
        """Have all who keep a connection to this backend close it, and connect anew."""
        self._hung_up[name] = time.monotonic()

    def wait_asked(self, count: int) -> None:
        """Wait as long as so many more requests take at the usual rate, whether they end well or not.

        LabError where they do not end.
        """
        wanted = len(self.asked) + round(count * self._pace)
        wait_for(lambda: self.has_asked(wanted), ASKED_TIMEOUT_S, f"{count} more requests")

    def has_asked(self, count: int) -> bool:
        """Whether so many requests have ended. LabError if the clients themselves broke down."""
        if self._trouble is not None:
            raise LabError(f"the clients broke down: {self._trouble!r}")
        return len(self.asked) >= count

    def _run(self) -> None:
        try:
            with self._client.enter():
                asyncio.run(self._ask_all())
        except BaseException as error:
            self._trouble = error

    async def _ask_all(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for _ in range(KEEPERS):
                clients.create_task(self._keep_asking())
            while not self._stopping:
                clients.create_task(self._converse(kept=False))
                await asyncio.sleep(ARRIVAL_PAUSE_S / self._pace)

    async def _keep_asking(self) -> None:
        while not self._stopping:
            await self._converse(kept=True)
            await asyncio.sleep(KEEPER_PAUSE_S / self._pace)

    async def _converse(self, *, kept: bool) -> None:
        """One connection from its beginning to its end."""
        number, opened = next(self._numbers), time.monotonic()
        connection = _Connection(self._address, self._port)
        one = await self._ask(connection, number, kept=kept, first=True)
        self._open[one.name] += kept and not one.error
        while kept and not one.error:
            await asyncio.sleep(KEEPER_PAUSE_S / self._pace)
            if self._stopping or self._hung_up.get(one.name, 0.0) > opened:
                break
            name = one.name
            one = await self._ask(connection, number, kept=kept, first=False)
            self._open[name] -= bool(one.error)
        self._open[one.name] -= kept and not one.error
        await connection.close()

    async def _ask(self, connection: _Connection, number: int, *, kept: bool, first: bool) -> Asked:
        began = time.monotonic()
        name, size, why = "", 0, ""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                name, size = await connection.ask()
        except TimeoutError:
            why = f"no answer within {REQUEST_TIMEOUT_S:g} s"
        except (OSError, ValueError, EOFError) as error:
            why = str(error)
        one = Asked(number, kept, first, began, time.monotonic(), name, size, why)
        self.asked.append(one)
        return one


class _Connection:
    """One client's connection, opened by its first request."""

    def __init__(self, address: str, port: int) -> None:
        self._address, self._port = address, port
        self._request = f"GET / HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self) -> tuple[str, int]:
        """Who answered, and the bytes of the answer. OSError, EOFError, ValueError."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._address, self._port)
        reader, writer = self._streams
        writer.write(self._request)
        return await traffic.receive_answer(reader)

    async def close(self) -> None:
        """Close it as a client does; whatever the other side makes of it is nothing to us."""
        if self._streams is not None:
            writer = self._streams[1]
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
