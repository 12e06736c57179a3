"""Names of backends, looked up again and again.

A name that is not found keeps the addresses that it had: a name server that is away for a while takes no
backend away.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable

from l4lb.net.logs import log
from l7.process.roster import Endpoint, Key, Member, Roster

_LOOKUP_TIMEOUT_S = 5.0
_FIRST_TIMEOUT_S = 2.0
"""What a start waits for names; those that are not found then are looked up on."""
_RETRY_S = 2.0


class Names:
    """Looks up the names of a roster's backends; `on_change` is told of what one has become."""

    def __init__(self, roster: Roster, on_change: Callable[[Key], None]) -> None:
        self._roster = roster
        self._on_change = on_change
        self._found: dict[Key, tuple[Endpoint, ...]] = {}
        self._failed: dict[Key, str] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    def endpoints(self, member: Member) -> tuple[Endpoint, ...]:
        """The addresses that a backend stands for; none while its name is not known."""
        address = member.backend.address
        if not isinstance(address.host, str):
            return ((str(address.host), address.port),)
        # What the steward before had found, until there is something better.
        return self._found.get(member.key) or tuple(member.endpoints)

    def trouble(self, key: Key) -> str | None:
        """Why the last look-up failed, or None."""
        return self._failed.get(key)

    async def find_all(self) -> None:
        """Looks everything up once, and waits for it, but not for long."""
        named = list(self._named())
        if named:
            tasks = [asyncio.create_task(self._look_up(member)) for member in named]
            _, late = await asyncio.wait(tasks, timeout=_FIRST_TIMEOUT_S)
            for task in late:
                task.cancel()

    def follow(self) -> None:
        """Goes on looking up what the roster has now, and nothing else."""
        wanted = {member.key: member for member in self._named()}
        for key in set(self._tasks) - set(wanted):
            self._tasks.pop(key).cancel()
            self._found.pop(key, None)
        for key, member in wanted.items():
            if key not in self._tasks:
                self._tasks[key] = asyncio.create_task(self._repeat(member))

    def close(self) -> None:
        """Ends all looking up."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def _named(self) -> Iterable[Member]:
        return (m for m in self._roster.members() if isinstance(m.backend.address.host, str))

    async def _repeat(self, member: Member) -> None:
        pools = {pool.name: pool for pool in self._roster.config.pools}
        every_s = pools[member.pool].resolve_s
        pause_s = every_s if member.key in self._found else 0.0
        while True:
            await asyncio.sleep(pause_s)
            is_found = await self._look_up(member)
            pause_s = every_s if is_found else min(every_s, _RETRY_S)

    async def _look_up(self, member: Member) -> bool:
        host, port = str(member.backend.address.host), member.backend.address.port
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_LOOKUP_TIMEOUT_S):
                answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            why = getattr(error, "strerror", None) or str(error) or f"no answer in {_LOOKUP_TIMEOUT_S:g} s"
            if member.key not in self._failed:
                words = {"pool": member.pool, "backend": member.backend.name, "why": why}
                log("name not found, its addresses stay", level=logging.WARNING, **words)
            self._failed[member.key] = why
            return False
        self._failed.pop(member.key, None)
        found = tuple(sorted({(str(answer[4][0]), port) for answer in answers}))
        if found != self._found.get(member.key):
            self._found[member.key] = found
            addresses = ",".join(address for address, _ in found)
            log("name found", pool=member.pool, backend=member.backend.name, addresses=addresses)
            self._on_change(member.key)
        return True
