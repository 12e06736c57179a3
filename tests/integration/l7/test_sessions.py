"""Sessions, splits, edits and own answers, as they look on the wire."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from l7.balancing.sessions import SessionTable
from l7.model import Backend as BackendSettings
from l7.model import (
    BackendAddress,
    HeaderEdits,
    Match,
    PathKind,
    PathMatch,
    Pool,
    Redirect,
    Respond,
    Rewrite,
    Route,
    Share,
    Sticky,
    StickyKind,
)
from tests.support.proxying import LOCALHOST, Backend, Rig, answer, get, ok, proxied


def below(prefix: str) -> Match:
    return Match(paths=(PathMatch(PathKind.PREFIX, prefix),))


@proxied
async def test_an_inserted_cookie_leads_back_to_the_same_backend():
    sticky = {"sticky": Sticky()}
    async with (
        Backend(answer(ok(b"1"))) as one,
        Backend(answer(ok(b"2"))) as two,
        Rig(one, two, pool=sticky) as rig,
    ):
        first = await rig.ask(get())
        cookie = first.header(b"set-cookie")
        assert cookie is not None
        assert cookie.startswith(b"SERVERID=")
        value = cookie.split(b";")[0]
        for _ in range(5):
            again = await rig.ask(get(b"/", b"Cookie: a=b; " + value))
            assert again.body == first.body
            assert again.header(b"set-cookie") is None
        others = {(await rig.ask(get())).body for _ in range(4)}
        assert others == {b"1", b"2"}


@proxied
async def test_the_application_s_cookie_is_learned():
    learned = Sticky(StickyKind.LEARN, b"JSESSIONID", capacity=1000)
    memory = memoryview(bytearray(SessionTable.size_for(learned.capacity)))

    def replies(body: bytes) -> bytes:
        return ok(body, b"Set-Cookie: other=x", b"Set-Cookie: JSESSIONID=of-%s; Path=/" % body)

    async with (
        Backend(answer(replies(b"1"))) as one,
        Backend(answer(replies(b"2"))) as two,
        Rig(one, two, pool={"sticky": learned}, table=SessionTable(memory)) as rig,
    ):
        for _ in range(4):
            first = (await rig.ask(get())).body
            for _ in range(3):
                assert (await rig.ask(get(b"/", b"Cookie: JSESSIONID=of-" + first))).body == first


@proxied
async def test_a_session_stays_with_its_share_of_a_split():
    async with Backend(answer(ok(b"old"))) as old, Backend(answer(ok(b"new"))) as new:
        rig = Rig(old, pool={"sticky": Sticky()})
        own = rig.config.pools[0]
        member = BackendSettings(BackendAddress(LOCALHOST, new.port))
        other = Pool("q", (member,), sticky=Sticky())
        split = replace(rig.config.routes[0], shares=(Share("p"), Share("q")))
        rig.config = replace(rig.config, pools=(own, other), routes=(split,))
        async with rig:
            seen = {}
            while len(seen) < 2:
                reply = await rig.ask(get())
                cookie = reply.header(b"set-cookie")
                assert cookie is not None
                seen[reply.body] = cookie.split(b";")[0]
            for body, cookie in seen.items():
                for _ in range(8):
                    assert (await rig.ask(get(b"/", b"Cookie: " + cookie))).body == body


@proxied
async def test_headers_are_edited_both_ways():
    route = {
        "request_headers": HeaderEdits(
            set=((b"X-Tenant", "$http_x_id-$remote_addr"), (b"Host", "inner")), remove=(b"X-Secret",)
        ),
        "response_headers": HeaderEdits(add=((b"X-Served", "yes"),), remove=(b"Server",)),
        "rewrite": Rewrite(prefix="/v2/"),
        "match": below("/v1/"),
    }
    async with Backend(answer(ok(b"ok", b"Server: inner/1"))) as backend, Rig(backend, route=route) as rig:
        reply = await rig.ask(get(b"/v1/a%20b?c", b"X-Id: 7", b"X-Secret: s", b"X-Tenant: forged"))
        sent = backend.received[0]
        assert sent.startswith(b"GET /v2/a%20b?c HTTP/1.1\r\n")
        assert b"\r\nX-Tenant: 7-127.0.0.1\r\n" in sent
        assert sent.lower().count(b"\r\nhost: ") == 1
        assert b"\r\nHost: inner\r\n" in sent
        assert b"Secret" not in sent
        assert b"forged" not in sent
        assert (reply.header(b"x-served"), reply.header(b"server")) == (b"yes", None)
        assert (await rig.ask(get(b"/elsewhere"))).status == 404


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@proxied
async def test_own_answers_need_no_backend(method):
    routes = (
        Route("go", below("/go"), redirect=Redirect("https://$host$request_uri", 308)),
        Route("say", below("/"), respond=Respond(200, b"hello", b"text/x-test")),
    )
    async with Rig(config={"routes": routes, "pools": ()}) as rig, await rig.connect() as client:
        await client.send(method + get(b"/go?x")[3:])
        moved = await client.reply(method)
        assert (moved.status, moved.header(b"location")) == (308, b"https://example.com/go?x")
        await client.send(method + get(b"/")[3:])
        said = await client.reply(method)
        assert (said.status, said.body) == (200, b"hello" if method == b"GET" else b"")
        assert said.headers.count((b"content-type", b"text/x-test")) == 1
        assert said.header(b"content-length") == b"5"
        assert rig.ends() == {"own": 2}


@proxied
async def test_error_pages_are_the_operator_s(tmp_path_factory):
    page = tmp_path_factory.mktemp("pages") / "404.html"
    page.write_bytes(b"<p>not here")
    async with Rig(config={"error_pages": ((404, page),), "routes": (), "pools": ()}) as rig:
        reply = await rig.ask(get())
        assert (reply.status, reply.body) == (404, b"<p>not here")
        assert reply.header(b"content-type") == b"text/html; charset=utf-8"


@proxied
async def test_only_trusted_proxies_say_who_the_client_is():
    said = (b"X-Forwarded-For: 192.0.2.1, 203.0.113.7", b"X-Forwarded-Proto: https")
    async with Backend(answer(ok())) as backend:
        trusted = {"trusted_proxies": (ip_network("127.0.0.0/8"),)}
        for config, client, sent in (
            ({}, "127.0.0.1", b"X-Forwarded-For: 127.0.0.1\r\n"),
            (trusted, "203.0.113.7", b"X-Forwarded-For: 192.0.2.1, 203.0.113.7, 127.0.0.1\r\n"),
        ):
            async with Rig(backend, config=config) as rig:
                await rig.ask(get(b"/", *said))
                assert rig.lines()[0]["client"] == client
                assert sent in backend.received[-1]


@proxied
async def test_a_host_that_the_client_did_not_name_is_not_forwarded():
    async with Backend(answer(ok())) as backend, Rig(backend) as rig:
        assert (await rig.ask(b"GET / HTTP/1.0\r\n\r\n")).status == 200
        assert b"x-forwarded-host" not in backend.received[-1].lower()
        assert b"Forwarded: for=127.0.0.1;proto=http\r\n" in backend.received[-1]
        await rig.ask(get())
        assert b"X-Forwarded-Host: example.com\r\n" in backend.received[-1]
        assert b'Forwarded: for=127.0.0.1;proto=http;host="example.com"\r\n' in backend.received[-1]


@proxied
async def test_routes_that_ask_nothing_take_everything():
    async with Backend(answer(ok())) as backend, Rig(backend, route={"match": Match()}) as rig:
        assert (await rig.ask(get())).status == 200
