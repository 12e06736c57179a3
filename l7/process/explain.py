"""Which route and backend a request would get, and why: the same answer from a running proxy and from a file.

The route is found by the rules themselves (`l7.routing`). For the backend a pool is made as a worker has it,
in the states that the roster knows, and asked; nothing that serves is touched. Where turns, loads or chance
decide the answer is one that could be, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from ipaddress import ip_address
from random import Random
from typing import Any
from urllib.parse import urlsplit

from l4lb.errors import ConfigError
from l7.balancing.pool import Pool
from l7.balancing.server import State
from l7.balancing.sessions import SessionTable
from l7.model import HashBy, L7Config, Listener, Scheduler
from l7.process.roster import Roster
from l7.routing import views
from l7.routing.request import PlainRequest
from l7.routing.router import Router
from l7.wire.peer import Peer, make_peer

Json = dict[str, Any]

_PORTS = {"http": 80, "https": 443}
_HASHING = (Scheduler.SOURCE_HASH, Scheduler.CONSISTENT_HASH)
_HOW = {
    Scheduler.ROUND_ROBIN: "backends take turns; this is one of them",
    Scheduler.WEIGHTED_ROUND_ROBIN: "backends take turns by their weights; this is one of them",
    Scheduler.LEAST_CONNECTIONS: "the one with the fewest requests; without any, this one",
    Scheduler.WEIGHTED_LEAST_CONNECTIONS: "the one with the fewest requests for its weight",
    Scheduler.POWER_OF_TWO: "the less busy one of two that chance names; this is one of them",
    Scheduler.LEAST_TIME: "the one that answers soonest; without any measure, this one",
    Scheduler.SOURCE_HASH: "by the hash of the client's address",
}


def explain(roster: Roster, secret: bytes, wish: Json, sessions: Mapping[str, bytes] | None = None) -> Json:
    """What becomes of the request that `wish` describes: `url`, and if wanted `method`, `headers` (pairs),
    `cookies` (pairs), `client` (an address). ConfigError where it describes none.

    `sessions` is a copy of what pools remember; without, nothing is remembered.
    """
    config = roster.config
    request, listener, peer = _read(config, wish)
    found = {"url": wish["url"], "listener": listener.name, "client": peer.address}
    found |= views.explain(Router(config.routes), request, peer)
    found["splits"] = [
        _ask_pool(roster, share["pool"], secret, request, peer, sessions or {})
        for share in found.pop("pools", [])
    ]
    return found


def _read(config: L7Config, wish: Json) -> tuple[PlainRequest, Listener, Peer]:
    url = wish.get("url")
    parts = urlsplit(url if isinstance(url, str) else "")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ConfigError(f"{url!r} is not the URL of a page; give one such as https://example.com/path")
    try:
        port = parts.port or _PORTS[parts.scheme]
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        cookies = "; ".join(f"{name}={value}" for name, value in wish.get("cookies", []))
        headers = [("Host", parts.netloc.rpartition("@")[2]), *wish.get("headers", [])]
        headers += [("Cookie", cookies)] if cookies else []
        request = PlainRequest(
            str(wish.get("method", "GET")).encode(),
            target.encode("ascii"),
            [(str(name).encode("latin-1"), str(value).encode("latin-1")) for name, value in headers],
        )
        listener = _find_listener(config, parts.scheme, port)
        local = str(listener.endpoints[0][0]), port
        client = str(ip_address(wish.get("client") or "192.0.2.1")), 50000
        return request, listener, make_peer(listener.name, parts.scheme.encode(), client, local)
    except UnicodeEncodeError:
        raise ConfigError(f"{url!r}: write what is not ASCII as %XX") from None
    except ValueError as error:
        raise ConfigError(f"the request is none: {error}") from error


def _find_listener(config: L7Config, scheme: str, port: int) -> Listener:
    """The one at that port, else one that speaks that scheme."""
    fitting = [one for one in config.listeners if (one.tls is not None) == (scheme == "https")]
    at_port = [one for one in fitting if port in (endpoint[1] for endpoint in one.endpoints)]
    for found in (*at_port, *fitting, *config.listeners):
        return found
    raise ConfigError("there are no listeners")


def _ask_pool(
    roster: Roster,
    name: str,
    secret: bytes,
    request: PlainRequest,
    peer: Peer,
    sessions: Mapping[str, bytes],
) -> Json:
    """The backend, by a pool as it is now."""
    settings = next(pool for pool in roster.config.pools if pool.name == name)
    memory = bytearray(sessions.get(name) or SessionTable.size_for(1))
    pool = Pool(settings, secret, Random(0), table=SessionTable(memoryview(memory)))
    members = roster.of(name)
    for server in list(pool.servers):
        if server.name not in members:
            pool.remove(server, 0.0)
    for member in members.values():
        server = pool.find(member.backend.name) or pool.add(member.backend, 0.0)
        server.up_since_s = None  # what starts slowly has started, for this answer
        pool.set_weight(server, member.full_weight, 0.0)
        if isinstance(member.backend.address.host, str):
            pool.set_endpoints(server, member.endpoints or [("0.0.0.0", 0)], 0.0)
        pool.set_state(server, State(member.state), member.why, 0.0)
    picked = pool.pick(request, peer, time.monotonic())
    if picked is None:
        backend, how = None, "no backend is up: 503"
    elif picked.by_session:
        backend, how = picked.server.name, "the session that the request belongs to"
    else:
        backend, how = picked.server.name, _how(settings.scheduler, settings.hash_by)
        if picked.server.is_backup:
            how += "; it is a backup, and no other is up"
        if picked.set_cookie:
            how += "; a session begins"
    return {
        "pool": name,
        "backend": backend,
        "is_sure": picked is not None and (picked.by_session or settings.scheduler in _HASHING),
        "how": how,
        "backends": [
            {"backend": one.backend.name, "state": one.state, "weight": one.full_weight, "why": one.why}
            for one in members.values()
        ],
    }


def _how(scheduler: Scheduler, hash_by: HashBy | None) -> str:
    if hash_by is not None:
        return f"by the hash of the {hash_by.kind} {hash_by.name.decode()}".rstrip()
    return _HOW.get(scheduler, "by the hash of the URI")
