"""Advice about the `l7` section: when it is given, when it is not, and where in the file it points."""

from __future__ import annotations

import pytest

from l7.config.advice import locate
from l7.config.parse import parse_placed

HTTP, HTTPS = (
    "{name: http, listen: 127.0.0.1:80}",
    "{name: https, listen: 127.0.0.1:443, tls: {certificates: /c.pem}}",
)
CHECK = "health: {type: http}"
TWO = "backends: [10.0.0.1:80, 10.0.0.2:80]"
UNEQUAL = "backends: [10.0.0.1:80, {address: '10.0.0.2:80', weight: 2}]"


def config(routes: str = "{pool: web}", pool: str = f"{CHECK}, {TWO}", listeners: str = HTTP) -> str:
    """Routes begin at 3:12, the keys of the pool at 5:11."""
    return f"l7:\n  listeners: [{listeners}]\n  routes: [{routes}]\n  pools:\n    web: {{{pool}}}\n"


def given(text: str) -> list[str]:
    return [f"{where}: {text}" for where, text in locate(parse_placed(text, "lb.yaml"))]


TO_HTTPS = "redirect: 'https://$host$request_uri'"
SAID = {
    "no routes": (
        "l7:\n  listeners: [{listen: 127.0.0.1:80}]\n",
        "2:3: l7: there are no routes, so every request is answered with 404; add one",
    ),
    "unused pool": (
        config(routes="{respond: 200}"),
        "5:10: l7.pools.web: no route and no listener uses this pool; remove it, or route to it",
    ),
    "the same again": (
        config(routes="{name: a, pool: web}, {match: {method: GET}, pool: web}"),
        "3:34: l7.routes[1]: no request gets here, for route a takes all of them; "
        "move it before that, make its match narrower, or remove it",
    ),
    "a higher priority takes all": (
        config(
            routes="{match: {host: a.b, path: /x/y}, pool: web}, "
            "{name: all, match: {host: '*.b', path: /x}, pool: web, priority: 1}"
        ),
        "3:12: l7.routes[0]: no request gets here, for route all takes all of them; "
        "move it before that, make its match narrower, or remove it",
    ),
    "redirect in a circle": (
        config(
            routes=f"{{{TO_HTTPS}}}, {{pool: web, priority: 1, match: {{path: /}}}}",
            listeners=f"{HTTP}, {HTTPS}",
        ),
        "3:23: l7.routes[0].redirect: requests that come to https by https are sent to https again and "
        "again; add match.listener with the one for http",
    ),
    "more tries than backends": (
        config(routes="{pool: web, retries: {attempts: 3, statuses: 503}}"),
        "3:44: l7.routes[0].retries.attempts: there are 3 tries and 2 backends, and none is tried twice; "
        "use 2 or less",
    ),
    "secure cookie without TLS": (
        config(pool=f"sticky: {{secure: true}}, {CHECK}, {TWO}"),
        "5:19: l7.pools.web.sticky: the cookie is secure, and browsers do not send it back to http, which is "
        "plain HTTP; leave secure out, so that it follows the connection",
    ),
    "a name that makes it secure": (
        config(pool=f"sticky: {{cookie: __Host-s}}, {CHECK}, {TWO}"),
        "5:19: l7.pools.web.sticky: the cookie is secure, and browsers do not send it back to http, which is "
        "plain HTTP; leave secure out, so that it follows the connection",
    ),
    "weights": (
        config(pool=f"scheduler: round-robin, {CHECK}, {UNEQUAL}"),
        "5:22: l7.pools.web.scheduler: the backends' weights differ, and round-robin does not look at them; "
        "use weighted-round-robin",
    ),
    "least-connections with weights": (
        config(pool=f"scheduler: least-connections, {CHECK}, {UNEQUAL}"),
        "5:22: l7.pools.web.scheduler: the backends' weights differ, and least-connections does not look at "
        "them; use weighted-least-connections",
    ),
    "source-hash": (
        config(pool=f"scheduler: source-hash, {CHECK}, {TWO}"),
        "5:22: l7.pools.web.scheduler: clients behind one NAT address all go to one backend; "
        "for sessions use sticky with a cookie",
    ),
    "sticky by address": (
        config(pool=f"sticky: source, {CHECK}, {TWO}"),
        "5:19: l7.pools.web.sticky: clients behind one NAT address all go to one backend; "
        "tell them apart by a cookie, as in {cookie: SERVERID}",
    ),
    "one backend": (
        config(pool="backends: [10.0.0.1:80]"),
        "5:21: l7.pools.web.backends: there is one backend, and when it fails the pool fails; add another",
    ),
    "no check at all": (
        config(pool=f"passive: false, {TWO}"),
        "5:10: l7.pools.web: there is no health check, so a dead backend goes on getting its share of "
        "requests; add health or passive",
    ),
    "no active check": (
        config(pool=TWO),
        "5:10: l7.pools.web: there is no active health check, so a dead backend is found out by requests "
        "that fail; add health",
    ),
    "a check too often": (
        config(pool=f"health: {{type: http, interval: 500ms, timeout: 100ms}}, {TWO}"),
        "5:42: l7.pools.web.health.interval: a check every 500ms is a load on backends, and pauses that mean "
        "nothing look like failures; use 1s or more, and passive to be quick",
    ),
    "one failure": (
        config(pool=f"health: {{type: http, fall: 1}}, {TWO}"),
        "5:38: l7.pools.web.health.fall: one failed check takes a backend out, and one lost packet is enough "
        "for that; use 2 or 3",
    ),
    "timeout of a check": (
        config(pool=f"health: {{type: http, interval: 3s}}, {TWO}"),
        "5:19: l7.pools.web.health: a check may take 3s and the next is due after 3s, so a backend that "
        "hangs is checked less often than the interval says; make the timeout shorter than the interval",
    ),
    "unverified": (
        config(pool=f"tls: {{verify: false}}, {CHECK}, {TWO}"),
        "5:25: l7.pools.web.tls.verify: certificates of backends are not verified, so anybody on the way can "
        "be one; name their authority with ca",
    ),
}
QUIET = {
    "all well": config(),
    "a listener that passes through": "l7: {listeners: [{listen: 127.0.0.1:443, pass_through: {pool: web}}],"
    f" pools: {{web: {{{CHECK}, {TWO}}}}}}}",
    "a redirect of the plain listener": config(
        routes=f"{{{TO_HTTPS}, match: {{listener: http}}}}, {{pool: web, match: {{listener: https}}}}",
        listeners=f"{HTTP}, {HTTPS}",
    ),
    "an earlier route with a condition": config(routes="{match: {method: GET}, pool: web}, {pool: web}"),
    "an earlier route for another listener": config(
        routes="{match: {listener: http}, pool: web}, {pool: web}", listeners=f"{HTTP}, {HTTPS}"
    ),
    "an earlier route of a shorter prefix": config(
        routes="{match: {path: /}, pool: web}, {match: {path: /a}, pool: web}"
    ),
    "unequal weights where they count": config(pool=f"{CHECK}, {UNEQUAL}"),
    "one name, which may be many": config(pool=f"{CHECK}, backends: ['web.internal:80']"),
    "a secure cookie that follows": config(pool=f"sticky: {{cookie: s}}, {CHECK}, {TWO}"),
}


@pytest.mark.parametrize(("text", "expected"), SAID.values(), ids=SAID)
def test_advice_is_given_with_its_place(text: str, expected: str) -> None:
    assert given(text) == [f"lb.yaml:{expected}"]


@pytest.mark.parametrize("text", QUIET.values(), ids=QUIET)
def test_there_is_nothing_to_say(text: str) -> None:
    assert given(text) == []
