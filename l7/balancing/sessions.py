"""Which backend a session belongs to.

Three ways, one a pool (`model.StickyKind`):

* **insert**: the proxy sets a cookie. Its value is a MAC of the backend's name under the secret, so that it
  reveals no address, cannot be made up, and means the same on every gateway with that secret. Nothing is
  remembered.
* **learn**: the application sets a cookie; its value is remembered with the backend that set it.
* **source**: the client's address is remembered with the backend that it was given.

What is remembered stands in a table of fixed size in memory that all workers share (`SessionTable`).
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from hashlib import sha256
from struct import Struct

from l4lb.dataplane.hashing import siphash
from l7.balancing.server import Server
from l7.model import Sticky, StickyKind
from l7.request import Peer, Request

_TOKEN_BYTES = 16
_FOREVER_S = 30 * 86400
"""How long a session without `max_age` is remembered."""


class SessionTable:
    """Sessions in memory that processes share: hash of the session → hash of the backend's name, and until
    when.

    Places are found by hash in buckets of eight; a full bucket gives up the session that ends first. There
    are no locks: a place that two workers write at once, or one reads half written, is at worst another
    backend's, and a backend that does not exist is none. Times are seconds of a clock that all processes
    share.
    """

    _PLACE = Struct("=QII")
    _WAYS = 8

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._buckets = len(memory) // (self._PLACE.size * self._WAYS)

    @classmethod
    def size_for(cls, capacity: int) -> int:
        """Bytes of memory, all zero at first, for at least that many sessions."""
        buckets = 1
        while buckets * cls._WAYS < capacity:
            buckets *= 2
        return buckets * cls._WAYS * cls._PLACE.size

    def find(self, session: int, now_s: int) -> int | None:
        """The backend that a session was remembered with, or None."""
        first = self._bucket(session)
        for place in range(first, first + self._WAYS * self._PLACE.size, self._PLACE.size):
            known, backend, until_s = self._PLACE.unpack_from(self._memory, place)
            if known == session and until_s > now_s:
                return int(backend)
        return None

    def put(self, session: int, backend: int, until_s: int) -> None:
        """Remembers a session until then."""
        first = self._bucket(session)
        oldest, oldest_until_s = first, 1 << 32
        for place in range(first, first + self._WAYS * self._PLACE.size, self._PLACE.size):
            known, _, known_until_s = self._PLACE.unpack_from(self._memory, place)
            if known == session:
                oldest = place
                break
            if known_until_s < oldest_until_s:
                oldest, oldest_until_s = place, known_until_s
        self._PLACE.pack_into(self._memory, oldest, session, backend, until_s)

    def _bucket(self, session: int) -> int:
        return (session % self._buckets) * self._WAYS * self._PLACE.size


class Sessions:
    """The sessions of one pool. `secret` has 16 bytes; `table` is None for `insert`, which needs none."""

    def __init__(self, settings: Sticky, pool: str, secret: bytes, table: SessionTable | None) -> None:
        self._settings = settings
        self._pool = pool.encode()
        self._secret = secret
        self._table = table
        self._servers: dict[bytes | int, Server] = {}
        self._set: dict[str, bytes] = {}
        attributes = b"; Path=" + settings.path
        if settings.domain:
            attributes += b"; Domain=" + settings.domain
        if settings.max_age_s is not None:
            attributes += b"; Max-Age=%d" % settings.max_age_s
        if settings.http_only:
            attributes += b"; HttpOnly"
        if settings.same_site:
            attributes += b"; SameSite=" + settings.same_site.encode()
        self._attributes = attributes

    def know(self, servers: list[Server]) -> None:
        """Takes the backends that there are now."""
        if self._settings.kind is StickyKind.INSERT:
            self._servers = {self._token(server): server for server in servers}
        else:
            self._servers = {self._number(server): server for server in servers}

    def find(self, request: Request, peer: Peer, now_s: float) -> Server | None:
        """The backend that the request's session belongs to, whatever its state; None where there is none.

        A session that is remembered is remembered for another `max_age_s` from now.
        """
        if self._settings.kind is StickyKind.INSERT:
            cookie = request.cookie(self._settings.cookie)
            return self._servers.get(cookie) if cookie else None
        session = self._session(request, peer)
        if session is None or self._table is None:
            return None
        number = self._table.find(session, int(now_s))
        server = self._servers.get(number) if number is not None else None
        if server:
            self._table.put(session, self._number(server), self._until_s(now_s))
        return server

    def begin(self, server: Server, peer: Peer, now_s: float) -> bytes | None:
        """Takes that a new session goes to `server`; the value of Set-Cookie that the answer needs, or
        None."""
        if self._settings.kind is StickyKind.INSERT:
            secure = self._settings.secure
            if secure or (secure is None and peer.scheme == b"https"):
                return self._cookie(server) + b"; Secure"
            return self._cookie(server)
        if self._settings.kind is StickyKind.SOURCE and self._table:
            self._table.put(self._hash(peer.packed), self._number(server), self._until_s(now_s))
        return None

    @property
    def learns_from(self) -> bytes | None:
        """The name of the cookie that answers have to be looked through for, or None."""
        return self._settings.cookie if self._settings.kind is StickyKind.LEARN else None

    def learn(self, value: bytes, server: Server, now_s: float) -> None:
        """Takes that the application at `server` set its cookie to `value`."""
        if self._table and value:
            self._table.put(self._hash(value), self._number(server), self._until_s(now_s))

    def _cookie(self, server: Server) -> bytes:
        cookie = self._set.get(server.name)
        if cookie is None:
            cookie = self._settings.cookie + b"=" + self._token(server) + self._attributes
            self._set[server.name] = cookie
        return cookie

    def _token(self, server: Server) -> bytes:
        """A MAC that names the backend to whoever has the secret."""
        message = b"sticky\0" + self._pool + b"\0" + server.name.encode()
        mac = hmac.digest(self._secret, message, sha256)[:_TOKEN_BYTES]
        return urlsafe_b64encode(mac).rstrip(b"=")

    def _session(self, request: Request, peer: Peer) -> int | None:
        if self._settings.kind is StickyKind.SOURCE:
            return self._hash(peer.packed)
        cookie = request.cookie(self._settings.cookie)
        return self._hash(cookie) if cookie else None

    def _hash(self, what: bytes) -> int:
        return siphash(self._secret, self._pool + b"\0" + what)

    def _number(self, server: Server) -> int:
        return self._hash(b"server\0" + server.name.encode()) & 0xFFFFFFFF

    def _until_s(self, now_s: float) -> int:
        return int(now_s) + (self._settings.max_age_s or _FOREVER_S)
