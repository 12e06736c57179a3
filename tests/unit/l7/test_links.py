"""Channels in an event loop: questions and answers, and workers that are gone before anyone speaks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from l4lb.errors import L4lbError
from l7.process.channel import Channel, Json, make_pair
from l7.process.links import Link, Links


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


def make(events: list[Json]) -> tuple[Links, Link, Channel]:
    links = Links(lambda link, message: events.append(message))
    ours, theirs = make_pair()
    return links, links.add(1, 0, 100, ours), theirs


def test_an_answer_finds_its_question_and_events_are_heard():
    async def test() -> None:
        events: list[Json] = []
        links, link, worker = make(events)
        asking = asyncio.gather(links.ask(link, "describe"), links.ask(link, "other"))
        await asyncio.sleep(0)
        first, second = (message for message, _ in worker.receive())
        worker.send({"event": "serving"})
        worker.send({"id": second["id"], "answer": "two"})
        worker.send({"id": first["id"], "answer": "one"})
        worker.send({"id": 999, "answer": "nobody asked"})
        assert await asking == ["one", "two"]
        assert events == [{"event": "serving"}]
        links.close()
        worker.close()

    run(test())


def test_who_waits_for_a_worker_that_ends_is_told():
    async def test() -> None:
        events: list[Json] = []
        links, link, worker = make(events)
        asking = asyncio.ensure_future(links.ask(link, "describe"))
        await asyncio.sleep(0)
        worker.close()
        with pytest.raises(L4lbError, match="worker 0 has ended"):
            await asking
        assert events == [{"event": "gone"}]
        assert list(links) == []

    run(test())


def test_a_worker_may_be_gone_before_its_link_is_made():
    async def test() -> None:
        events: list[Json] = []
        links = Links(lambda link, message: events.append(message))
        ours, theirs = make_pair()
        theirs.close()
        links.add(1, 0, 100, ours)
        links.tell_all(1, [{"do": "serve"}])
        assert (events, list(links)) == ([{"event": "gone"}], [])

    run(test())


def test_only_workers_that_serve_and_say_nothing_are_hung():
    async def test() -> None:
        links, link, worker = make([])
        link.heard_s = 100.0
        assert links.silent(1000.0) == []
        link.serves = True
        assert links.silent(1000.0) == [link] and links.silent(101.0) == []
        links.close()
        worker.close()

    run(test())
