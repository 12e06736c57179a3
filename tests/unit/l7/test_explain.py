"""Which backend a request would get: by states, sessions and hashes, and what cannot be asked."""

from __future__ import annotations

import time
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest

from l4lb.control.member import Admin
from l4lb.errors import ConfigError
from l7.balancing.pool import Pool as LivePool
from l7.balancing.sessions import SessionTable
from l7.config.parse import parse_config
from l7.model import BackendAddress
from l7.process.explain import explain
from l7.process.roster import Roster
from l7.wire.peer import make_peer

SECRET = bytes(16)
TEXT = """
l7:
  listeners:
    - {name: web, listen: "127.0.0.1:80"}
  routes:
    - match: {host: a.example, path: /api/}
      pool: sticky
    - match: {host: a.example}
      split: {plain: 3, hashed: 1}
    - match: {host: b.example}
      redirect: {to: "https://a.example/", status: 308}
  pools:
    sticky: {sticky: {cookie: SID}, backends: ["10.0.0.1:80", "10.0.0.2:80"]}
    plain: {backends: ["10.0.1.1:80", {address: "10.0.1.2:80", backup: true}]}
    hashed: {scheduler: source-hash, backends: ["10.0.2.1:80", "10.0.2.2:80", "10.0.2.3:80"]}
"""


@pytest.fixture
def roster() -> Roster:
    return Roster(parse_config(TEXT, "test.yaml"))


def ask(roster: Roster, url: str, **wish: Any) -> dict[str, Any]:
    return explain(roster, SECRET, {"url": url, **wish})


def test_a_pool_gives_a_backend_that_is_up_and_a_backup_only_without(roster):
    plain, hashed = ask(roster, "http://a.example/")["splits"]
    assert (plain["pool"], plain["backend"], plain["is_sure"]) == ("plain", "10.0.1.1:80", False)
    assert hashed["is_sure"]
    roster.report(("plain", "10.0.1.1:80"), up=False, why="refused", now_s=1.0)
    plain = ask(roster, "http://a.example/")["splits"][0]
    assert plain["backend"] == "10.0.1.2:80" and "it is a backup" in plain["how"]
    assert plain["backends"][0]["state"] == "down" and plain["backends"][0]["why"] == "refused"
    roster.set_admin("plain", "10.0.1.2:80", Admin.DISABLED, 1.0)
    plain = ask(roster, "http://a.example/")["splits"][0]
    assert (plain["backend"], plain["how"]) == (None, "no backend is up: 503")


def test_a_hash_answers_as_the_worker_does(roster):
    pool = LivePool(next(p for p in roster.config.pools if p.name == "hashed"), SECRET, Random(0))

    class Client:
        def __init__(self, address: str) -> None:
            self.packed = ip_address(address).packed

    for last in range(1, 30):
        address = f"198.51.100.{last}"
        told = ask(roster, "http://a.example/", client=address)["splits"][1]["backend"]
        picked = pool.pick(None, Client(address), 0.0)  # type: ignore[arg-type]
        assert picked is not None and told == picked.server.name


def test_a_session_is_known_by_its_cookie(roster):
    first = ask(roster, "http://a.example/api/x")["splits"][0]
    assert "a session begins" in first["how"]
    pool = LivePool(next(p for p in roster.config.pools if p.name == "sticky"), SECRET, Random(0))
    assert pool.sessions is not None
    peer = make_peer("web", b"http", ("198.51.100.7", 1), ("127.0.0.1", 80))
    cookie = pool.sessions.begin(pool.servers[1], peer, 0.0)
    assert cookie is not None
    value = cookie.split(b";")[0].partition(b"=")[2].decode()
    own = ask(roster, "http://a.example/api/x", cookies=[["SID", value]])["splits"][0]
    assert (own["backend"], own["is_sure"]) == ("10.0.0.2:80", True)


def test_remembered_sessions_are_known_and_nothing_is_remembered():
    text = TEXT.replace("sticky: {sticky: {cookie: SID}", "sticky: {sticky: source")
    roster = Roster(parse_config(text, "test.yaml"))
    memory = bytearray(SessionTable.size_for(100))
    settings = next(p for p in roster.config.pools if p.name == "sticky")
    pool = LivePool(settings, SECRET, Random(0), table=SessionTable(memoryview(memory)))
    peer = make_peer("web", b"http", ("198.51.100.7", 1), ("127.0.0.1", 80))
    assert pool.sessions is not None
    pool.sessions.begin(pool.servers[1], peer, time.monotonic())
    before = bytes(memory)
    wish = {"url": "http://a.example/api/", "client": "198.51.100.7"}
    own = explain(roster, SECRET, wish, {"sticky": memory})["splits"][0]
    assert (own["backend"], own["is_sure"]) == ("10.0.0.2:80", True)
    other = explain(roster, SECRET, wish | {"client": "198.51.100.8"}, {"sticky": memory})["splits"][0]
    assert not other["is_sure"] and "a session begins" not in other["how"]
    assert bytes(memory) == before


def test_an_added_backend_takes_part(roster):
    roster.report(("plain", "10.0.1.1:80"), up=False, why="refused", now_s=1.0)

    roster.add("plain", BackendAddress(ip_address("10.0.1.9"), 80), 1, 2.0)
    assert ask(roster, "http://a.example/")["splits"][0]["backend"] == "10.0.1.9:80"


def test_a_redirect_asks_no_pool(roster):
    told = ask(roster, "http://b.example/x")
    assert (told["status"], told["splits"]) == (308, [])
    assert [one["route"] for one in told["candidates"] if one["matches"]] == [told["route"]]


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ({"url": "/path"}, "is not the URL of a page"),
        ({"url": "ftp://a.example/"}, "is not the URL of a page"),
        ({"url": 7}, "is not the URL of a page"),
        ({"url": "http://a.example/ä"}, "write what is not ASCII"),
        ({"url": "http://a.example:99999/"}, "the request is none"),
        ({"url": "http://a.example/", "client": "nobody"}, "the request is none"),
    ],
)
def test_what_is_no_request_is_said(roster, wish, text):
    with pytest.raises(ConfigError, match=text):
        explain(roster, SECRET, wish)
