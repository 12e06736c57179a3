"""What is allowed and will probably be regretted: advice about the `l7` section, with reasons.

`advise` looks at values alone; `locate` says where in the file each advice is about. What is said of checks
is what tier 1 says of them; the rest is about requests: routes that none can reach, redirects that lead in a
circle, weights that nobody looks at, sessions that follow an address, cookies that are lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from l4lb.control.advice import Advice, Path, advise_check, place
from l7.config.placed import PlacedConfig
from l7.config.reach import shadowed
from l7.model import Backend, L7Config, Pool, Scheduler, StickyKind

_WEIGHTED = {
    Scheduler.ROUND_ROBIN: Scheduler.WEIGHTED_ROUND_ROBIN,
    Scheduler.LEAST_CONNECTIONS: Scheduler.WEIGHTED_LEAST_CONNECTIONS,
}
_SECURE_NAMES = ("__Secure-", "__Host-")


def advise(config: L7Config) -> list[Advice]:
    """All that there is to say."""
    found = [Advice(path, text) for rule in _RULES for path, text in rule(config)]
    for pool in config.pools:
        found += [
            Advice(("pools", pool.name, *path), text)
            for pool_rule in _POOL_RULES
            for path, text in pool_rule(pool)
        ]
    return found


def locate(config: PlacedConfig) -> list[tuple[str, str]]:
    """The advice about a file as (`FILE:LINE:COLUMN: KEY`, text), in the order of the file.

    Where the file leaves a key out, the place is that of what the key would stand in.
    """
    return place(advise(config.value), config.field)


def _no_routes(config: L7Config) -> Iterator[tuple[Path, str]]:
    if not config.routes and any(not listener.pass_through for listener in config.listeners):
        yield ("routes",), "there are no routes, so every request is answered with 404; add one"


def _unused_pools(config: L7Config) -> Iterator[tuple[Path, str]]:
    used = {share.pool for route in config.routes for share in route.shares}
    used |= {rule.pool for listener in config.listeners for rule in listener.pass_through}
    for pool in config.pools:
        if pool.name not in used:
            yield ("pools", pool.name), "no route and no listener uses this pool; remove it, or route to it"


def _unreachable(config: L7Config) -> Iterator[tuple[Path, str]]:
    names = [listener.name for listener in config.listeners]
    for number, other in shadowed(config.routes, names):
        yield (
            ("routes", number),
            f"no request gets here, for route {config.routes[other].name} takes all of them; "
            "move it before that, make its match narrower, or remove it",
        )


def _circles(config: L7Config) -> Iterator[tuple[Path, str]]:
    """A redirect to https of what came by https."""
    secure = [listener.name for listener in config.listeners if listener.tls]
    for number, route in enumerate(config.routes):
        redirect = route.redirect
        if redirect is None or not redirect.to.startswith(
            ("https://$host$request_uri", "https://$http_host$")
        ):
            continue
        reached = [name for name in secure if not route.match.listeners or name in route.match.listeners]
        if reached:
            yield (
                ("routes", number, "redirect"),
                f"requests that come to {' and '.join(reached)} by https are sent to https again and again; "
                "add match.listener with the one for http",
            )


def _too_many_tries(config: L7Config) -> Iterator[tuple[Path, str]]:
    sizes = {pool.name: len(_taking(pool)) for pool in config.pools}
    for number, route in enumerate(config.routes):
        most = max((sizes.get(share.pool, 0) for share in route.shares), default=0)
        if route.shares and route.retries.statuses and route.retries.attempts > most:
            yield (
                ("routes", number, "retries", "attempts"),
                f"there are {route.retries.attempts} tries and {most} backends, and none is tried twice; "
                f"use {most} or less",
            )


def _cookies(config: L7Config) -> Iterator[tuple[Path, str]]:
    """Cookies that a browser will not send back over plain HTTP."""
    plain = {listener.name for listener in config.listeners if not listener.tls and not listener.pass_through}
    if not plain:
        return
    for pool in config.pools:
        sticky = pool.sticky
        if sticky is None or sticky.kind is not StickyKind.INSERT:
            continue
        named = sticky.cookie.decode().startswith(_SECURE_NAMES)
        if (sticky.secure or named) and (reached := sorted(plain & _listeners_of(config, pool.name))):
            yield (
                ("pools", pool.name, "sticky"),
                f"the cookie is secure, and browsers do not send it back to {' and '.join(reached)}, which "
                "is plain HTTP; leave secure out, so that it follows the connection",
            )


def _listeners_of(config: L7Config, pool: str) -> set[str]:
    """The listeners whose requests may go to a pool."""
    found: set[str] = set()
    for route in config.routes:
        if any(share.pool == pool for share in route.shares):
            found |= set(route.match.listeners or [listener.name for listener in config.listeners])
    return found


def _weights(pool: Pool) -> Iterator[tuple[Path, str]]:
    if (better := _WEIGHTED.get(pool.scheduler)) is None:
        return
    groups: dict[bool, set[int]] = {}
    for backend in _taking(pool):
        groups.setdefault(backend.is_backup, set()).add(backend.weight)
    if any(len(weights) > 1 for weights in groups.values()):
        yield (
            ("scheduler",),
            f"the backends' weights differ, and {pool.scheduler} does not look at them; use {better}",
        )


def _shared_addresses(pool: Pool) -> Iterator[tuple[Path, str]]:
    if len(_taking(pool)) < 2:
        return
    if pool.sticky and pool.sticky.kind is StickyKind.SOURCE:
        yield (
            ("sticky",),
            "clients behind one NAT address all go to one backend; tell them apart by a cookie, as in "
            "{cookie: SERVERID}",
        )
    elif pool.scheduler is Scheduler.SOURCE_HASH:
        yield (
            ("scheduler",),
            "clients behind one NAT address all go to one backend; for sessions use sticky with a cookie",
        )


def _redundancy(pool: Pool) -> Iterator[tuple[Path, str]]:
    if len(pool.backends) == 1 and not isinstance(pool.backends[0].address.host, str):
        yield ("backends",), "there is one backend, and when it fails the pool fails; add another"
    elif pool.health is None and pool.passive is None:
        yield (
            (),
            "there is no health check, so a dead backend goes on getting its share of requests; "
            "add health or passive",
        )
    elif pool.health is None and len(pool.backends) > 1:
        yield (
            (),
            "there is no active health check, so a dead backend is found out by requests that fail; "
            "add health",
        )


def _checks(pool: Pool) -> Iterator[tuple[Path, str]]:
    if pool.health:
        yield from advise_check(pool.health)


def _verification(pool: Pool) -> Iterator[tuple[Path, str]]:
    if pool.tls and not pool.tls.verify:
        yield (
            ("tls", "verify"),
            "certificates of backends are not verified, so anybody on the way can be one; "
            "name their authority with ca",
        )


_RULES: tuple[Callable[[L7Config], Iterator[tuple[Path, str]]], ...] = (
    _no_routes,
    _unused_pools,
    _unreachable,
    _circles,
    _too_many_tries,
    _cookies,
)
_POOL_RULES: tuple[Callable[[Pool], Iterator[tuple[Path, str]]], ...] = (
    _weights,
    _shared_addresses,
    _redundancy,
    _checks,
    _verification,
)


def _taking(pool: Pool) -> list[Backend]:
    """The backends that take requests."""
    return [backend for backend in pool.backends if backend.weight]
