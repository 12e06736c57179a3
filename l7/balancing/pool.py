"""A pool: which of its backends gets a request, and who waits for one.

The order in which backends are looked for:

1. The one that the request's session belongs to, if it keeps sessions. Where it is full, another serves this
   request, and the session stays its own.
2. Of the ordinary backends that are ready, not full and not tried before, the one that the scheduler chooses.
3. The same of the backups, but only where no ordinary backend is ready.
4. Nobody: where some are ready and full the request may wait (`wait`), else the pool is down.

What is ready changes seldom, so the list is kept and made anew when something changed or time did it
(`tick`). Nothing here knows a clock: `now_s` is seconds of one that never goes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from l7.balancing.schedulers import make_scheduler
from l7.balancing.server import Outcome, Server, State
from l7.balancing.sessions import Sessions, SessionTable
from l7.model import Backend
from l7.model import Pool as PoolSettings
from l7.request import Peer, Request

_FIRST_RETRIES = 10.0
"""Retries that a pool may make before its budget counts, so that a pool with few requests has any."""


class Waiter(Protocol):
    """A request that waits for a place."""

    def on_place(self, now_s: float) -> None:
        """A backend may have a place: pick again, and wait again where it has not. The waiter has left the
        queue."""


@dataclass(slots=True)
class Picked:
    """The backend of a request. `set_cookie` is the value of Set-Cookie that the answer needs, or None."""

    server: Server
    set_cookie: bytes | None = None
    by_session: bool = False


@dataclass(frozen=True, slots=True)
class Ejection:
    """A backend was taken out by its requests, until `until_s`."""

    pool: str
    server: str
    why: str
    until_s: float


class Pool:
    """The backends of one pool, as one worker sees them.

    `secret` (16 bytes) keys hashes and cookies, `table` holds remembered sessions where the settings ask for
    them, `on_ejection` hears of what the worker found out itself.
    """

    def __init__(
        self,
        settings: PoolSettings,
        secret: bytes,
        random: Random,
        *,
        table: SessionTable | None = None,
        on_ejection: Callable[[Ejection], None] | None = None,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.servers = [Server(backend, settings.passive) for backend in settings.backends]
        self._choose = make_scheduler(settings.scheduler, settings.hash_by, secret, random)
        self.sessions = Sessions(settings.sticky, settings.name, secret, table) if settings.sticky else None
        self._on_ejection = on_ejection
        self._waiting: deque[Waiter] = deque()
        self._retries = _FIRST_RETRIES
        self._ready: list[Server] = []
        self._ready_until_s = float("inf")
        """When the list has to be made anew even if nobody says so."""
        self._has_limits = False
        self._members_changed(0.0)

    # -- choosing

    def pick(self, request: Request, peer: Peer, now_s: float, tried: Sequence[Server] = ()) -> Picked | None:
        """The backend for a request; None where nobody can take it now. `tried` failed it before."""
        if now_s >= self._ready_until_s:
            self._refresh(now_s)
        sessions = self.sessions
        if sessions is None:
            server = self._choose_one(request, peer, tried)
            return Picked(server) if server else None
        own = sessions.find(request, peer, now_s)
        keeps = own is not None and own.keeps_sessions(now_s) and own not in tried
        if own and keeps and not own.is_full:
            return Picked(own, by_session=True)
        server = self._choose_one(request, peer, tried)
        if server is None:
            return None
        return Picked(server, None if keeps else sessions.begin(server, peer, now_s))

    def _choose_one(self, request: Request, peer: Peer, tried: Sequence[Server]) -> Server | None:
        servers: Sequence[Server] = self._ready
        if tried or self._has_limits:
            servers = [server for server in servers if server not in tried and not server.is_full]
        if not servers:
            return None
        return self._choose(servers, request, peer) if len(servers) > 1 else servers[0]

    @property
    def is_down(self) -> bool:
        """Whether no backend is ready: a request need not wait."""
        return not self._ready

    def may_retry(self, budget: float) -> bool:
        """Whether one more retry is within `budget` (0 to 1) of the pool's requests; if so it is counted."""
        if budget <= 0 or self._retries < 1:
            return False
        self._retries -= 1
        return True

    def count_request(self, budget: float) -> None:
        """Takes that a request began, of which `budget` may be retried."""
        self._retries = min(self._retries + budget, _FIRST_RETRIES * 10)

    # -- waiting

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self._waiting)

    def wait(self, waiter: Waiter) -> bool:
        """Puts a request at the end of the queue; False where it is full."""
        if len(self._waiting) >= self.settings.max_queue:
            return False
        self._waiting.append(waiter)
        return True

    def leave(self, waiter: Waiter) -> None:
        """Takes a request out of the queue: it gave up."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    # -- what backends carry

    def begin(self, server: Server) -> None:
        """Takes that `server` is given a request."""
        server.active += 1

    def end(self, server: Server, outcome: Outcome, now_s: float, took_s: float | None = None) -> None:
        """Takes that the request has ended, `took_s` seconds after it was sent to the first byte of its
        answer."""
        server.active -= 1
        if took_s is not None:
            server.took(took_s)
        if server.judge and outcome is not Outcome.NEUTRAL:
            self._judge(server, outcome is Outcome.OK, now_s)
        if self._waiting:
            self._waiting.popleft().on_place(now_s)

    def _judge(self, server: Server, is_ok: bool, now_s: float) -> None:
        judge = server.judge
        if judge is None or (is_ok and not judge.failures and not judge.is_on_trial):
            return
        failures = judge.failures + 1
        if not judge.observe(int(is_ok), int(not is_ok), now_s):
            return
        until_s = judge.out_until_s or 0.0
        times = "1 request" if failures == 1 else f"{failures} requests in a row"
        self.eject(server, f"{times} failed; tried again in {until_s - now_s:g} s", until_s, now_s)

    def eject(self, server: Server, why: str, until_s: float, now_s: float) -> None:
        """Takes a backend out until then, as far as it may be: what requests of this worker or of another one
        have found."""
        if until_s <= max(now_s, server.ejected_until_s) or not self._may_eject(now_s):
            return
        server.ejected_until_s = until_s
        server.why = why
        self._refresh(now_s)
        if self._on_ejection:
            self._on_ejection(Ejection(self.name, server.name, server.why, server.ejected_until_s))

    def _may_eject(self, now_s: float) -> bool:
        """Whether one more backend may be out: never the last that is ready, and no more than a part of
        all."""
        passive = self.settings.passive
        ready = [server for server in self.servers if server.is_ready(now_s)]
        out = sum(server.ejected_until_s > now_s for server in self.servers)
        # At least one may be out, or the check would do nothing in a small pool.
        most = max(1.0, passive.max_ejected * len(self.servers)) if passive else 0.0
        return len(ready) > 1 and out + 1 <= most

    # -- changes

    def tick(self, now_s: float) -> None:
        """Lets time do its part: ejections end, slow starts go on, requests in the queue look again."""
        if now_s >= self._ready_until_s:
            self._refresh(now_s)

    def find(self, name: str) -> Server | None:
        """The backend of that name."""
        return next((server for server in self.servers if server.name == name), None)

    def set_state(self, server: Server, state: State, why: str, now_s: float) -> None:
        """Takes what the steward says of a backend. One that comes up begins its slow start."""
        if state is State.UP and server.state is State.DOWN:
            server.up_since_s = now_s
            server.acquit()
        server.state = state
        server.why = why
        self._refresh(now_s)

    def set_weight(self, server: Server, weight: int, now_s: float) -> None:
        """Gives a backend another weight, 0 or more."""
        server.weight = weight
        self._refresh(now_s)

    def set_endpoints(self, server: Server, endpoints: Iterable[tuple[str, int]], now_s: float) -> None:
        """Takes what a backend's name resolves to now; none: it cannot be reached."""
        server.endpoints = tuple(endpoints)
        self._refresh(now_s)

    def add(self, backend: Backend, now_s: float) -> Server:
        """A new backend; it begins with its slow start."""
        server = Server(backend, self.settings.passive)
        server.up_since_s = now_s
        self.servers.append(server)
        self._members_changed(now_s)
        return server

    def remove(self, server: Server, now_s: float) -> None:
        """Takes a backend away; what it carries goes on."""
        self.servers.remove(server)
        self._members_changed(now_s)

    def _members_changed(self, now_s: float) -> None:
        if self.sessions:
            self.sessions.know(self.servers)
        self._has_limits = any(server.max_connections is not None for server in self.servers)
        self._refresh(now_s)

    def _refresh(self, now_s: float) -> None:
        """Makes the list of who is ready, and notes when time alone will change it."""
        slow_start_s = self.settings.slow_start_s
        until_s = float("inf")
        for server in self.servers:
            server.refresh_weight(slow_start_s, now_s)
            if server.up_since_s is not None and slow_start_s:
                until_s = min(until_s, now_s + slow_start_s / 10)
            if server.ejected_until_s > now_s:
                until_s = min(until_s, server.ejected_until_s)
        ready = [server for server in self.servers if server.is_ready(now_s)]
        self._ready = [server for server in ready if not server.is_backup] or ready
        self._ready_until_s = until_s
        # Who waits may have somewhere to go now; those that have not come back to the queue.
        for _ in range(len(self._waiting) if self._ready else 0):
            self._waiting.popleft().on_place(now_s)
