"""What goes wrong behind and before the proxy, and what becomes of the request."""

from __future__ import annotations

import asyncio
import socket

import h11
import pytest

from l7.balancing.server import State
from l7.model import Backend as BackendSettings
from l7.model import BackendAddress, Retries, Timeouts
from tests.support.proxying import LOCALHOST, Backend, Exchange, Rig, answer, get, ok, post, proxied


async def until(condition, within_s: float = 5.0) -> None:
    """Turns the loop until something holds."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


async def some_more(rig: Rig) -> None:
    """Waits until 200 more requests have been answered."""
    before = rig.ends().get("done", 0)
    await until(lambda: rig.ends().get("done", 0) > before + 200)


async def close_at_once(exchange: Exchange) -> None:
    await exchange.head()


async def never_answer(exchange: Exchange) -> None:
    while await exchange.read():
        pass


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def gone() -> BackendSettings:
    return BackendSettings(BackendAddress(LOCALHOST, closed_port()))


def there(backend: Backend) -> BackendSettings:
    return BackendSettings(BackendAddress(LOCALHOST, backend.port))


@proxied
async def test_a_backend_that_refuses_connections_costs_nobody_a_request():
    async with Backend(answer(ok())) as backend, Rig(members=(gone(), there(backend))) as rig:
        for _ in range(6):
            assert (await rig.ask(post(b"abc"))).status == 200
        assert rig.count("backend_connect_failures_total") > 0
        assert rig.ends() == {"done": 6}


@proxied
async def test_without_another_backend_a_refused_connection_is_a_502():
    async with Rig(members=(gone(),)) as rig, await rig.connect() as client:
        for _ in range(2):
            await client.send(get())
            reply = await client.reply()
            assert (reply.status, reply.keeps) == (502, True)
        assert rig.ends() == {"connect-failed": 2}


@pytest.mark.parametrize(("request_", "status"), [(get(), 200), (post(b"abc"), 502)])
@proxied
async def test_only_what_is_idempotent_is_sent_again_after_a_break(request_, status):
    async with Backend(close_at_once) as bad, Backend(answer(ok())) as good, Rig(bad, good) as rig:
        replies = [(await rig.ask(request_)).status for _ in range(2)]
        assert sorted(replies) == sorted([status, 200])
        assert len(bad.connections) == 1
        assert rig.count("route_retries_total") == (status == 200)


@proxied
async def test_an_idempotent_request_is_sent_again_with_its_body():
    async def fail_after_the_body(exchange: Exchange) -> None:
        await exchange.body(await exchange.head())

    put = b"PUT" + post(b"x" * 5000)[4:]
    async with Backend(fail_after_the_body) as bad, Backend(answer(ok())) as good, Rig(bad, good) as rig:
        assert [(await rig.ask(put)).status for _ in range(2)] == [200, 200]
        bodies = [head.partition(b"\r\n\r\n")[2] for head in good.received]
        assert b"".join(bodies).count(b"x") >= 5000
        assert bad.received[0].endswith(b"x" * 5000)


@proxied
async def test_a_body_that_is_too_large_to_be_held_is_sent_once():
    async def read_and_fail(exchange: Exchange) -> None:
        await exchange.body(await exchange.head())

    put = b"PUT" + post(b"x" * 300_000)[4:]
    async with Backend(read_and_fail) as bad, Backend(read_and_fail) as other, Rig(bad, other) as rig:
        assert (await rig.ask(put)).status == 502
        assert len(bad.connections) + len(other.connections) == 1


@proxied
async def test_retries_have_a_budget():
    attempts = {"retries": Retries(attempts=3, budget=0.0)}
    async with Backend(close_at_once) as one, Rig(one, members=(there(one), gone()), route=attempts) as rig:
        assert (await rig.ask(get())).status == 502
        assert rig.count("route_retries_total") == 0


@proxied
async def test_statuses_are_tried_elsewhere_where_that_is_asked_for():
    retries = {"retries": Retries(attempts=2, budget=1.0, statuses=((503, 503),))}
    busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
    async with (
        Backend(answer(busy)) as one,
        Backend(answer(ok())) as two,
        Rig(one, two, route=retries) as rig,
    ):
        assert [(await rig.ask(get())).body for _ in range(4)] == [b"ok"] * 4
    async with Backend(answer(busy)) as one, Rig(one, route=retries) as rig:
        # There is no other: its own answer is better than none.
        assert (await rig.ask(get())).body == b"busy"


@pytest.mark.parametrize(("request_", "status"), [(get(), 200), (post(b"abc"), 200)])
@proxied
async def test_a_kept_connection_that_the_backend_has_closed_harms_no_request(request_, status):
    async def answer_once(exchange: Exchange) -> None:
        await exchange.body(await exchange.head())
        await exchange.send(ok())

    async with Backend(answer_once) as backend, Rig(backend) as rig:
        for _ in range(20):
            assert (await rig.ask(request_)).status == status
        assert rig.ends() == {"done": 20}
        assert rig.pool.servers[0].judge.failures == 0


@pytest.mark.parametrize(("request_", "status"), [(get(), 200), (post(b"abc"), 502)])
@proxied
async def test_a_kept_connection_that_dies_under_a_request(request_, status):
    """The backend takes the second request of a connection and closes: it may have acted on it."""

    async def answer_once(exchange: Exchange) -> None:
        await exchange.body(await exchange.head())
        await exchange.send(ok())
        await exchange.body(await exchange.head())

    async with Backend(answer_once) as backend, Rig(backend) as rig:
        assert (await rig.ask(request_)).status == 200
        assert (await rig.ask(request_)).status == status
        assert len(backend.connections) == (2 if status == 200 else 1)
        assert rig.count("backend_stale_total") == 1


@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n",
    ],
)
@pytest.mark.parametrize("how", ["close", "reset"])
@proxied
async def test_an_answer_that_breaks_off_is_never_made_whole(begun, how):
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(begun)
        await passed_on.wait()
        if how == "reset":
            exchange.reset()

    passed_on = asyncio.Event()
    async with Backend(handle) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(get())
        await client.head()
        passed_on.set()
        client.reader._buffer[0:0] = b"HTTP/1.1 200 OK\r\n" + begun.split(b"\r\n")[1] + b"\r\n\r\n"
        with pytest.raises((h11.RemoteProtocolError, ConnectionResetError)):
            await client.reply()
        assert rig.ends() == {"backend-broken": 1}


@pytest.mark.parametrize("how", ["close", "reset"])
@proxied
async def test_an_answer_without_a_length_is_whole_for_a_client_of_http_1_0_only_if_it_was(how):
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\nbody")
        await passed_on.wait()
        if how == "reset":
            exchange.reset()

    passed_on = asyncio.Event()
    async with Backend(handle) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        await client.reader.readuntil(b"body")
        passed_on.set()
        if how == "close":
            assert await client.rest() == b""
        else:
            with pytest.raises(ConnectionResetError):
                await client.rest()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
@proxied
async def test_nonsense_of_a_backend_is_a_502(nonsense):
    async with Backend(answer(nonsense)) as backend, Rig(backend) as rig:
        reply = await rig.ask(get())
        assert (reply.status, reply.body) == (502, b"502 Bad Gateway\n")
        assert rig.ends() == {"backend-invalid": 1}


@proxied
async def test_what_a_backend_says_unasked_reaches_nobody():
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(ok(b"first") + ok(b"poison"))
        await exchange.head()

    async with Backend(handle) as backend, Rig(backend) as rig, await rig.connect() as client:
        for _ in range(3):
            await client.send(get())
            assert (await client.reply()).body == b"first"
        assert len(backend.connections) == 3


@proxied
async def test_an_early_answer_is_passed_on_and_the_client_is_told_to_stop():
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno!")
        await never_answer(exchange)

    unlimited = {"max_body": None}
    async with (
        Backend(handle) as backend,
        Rig(backend, route=unlimited) as rig,
        await rig.connect() as client,
    ):
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\nbegin")
        reply = await client.reply()
        assert (reply.status, reply.body, reply.keeps) == (413, b"no!", False)
        await client.send(b"x" * 100_000)
        client.writer.write_eof()
        assert await client.rest() == b""


@proxied
async def test_a_client_that_goes_away_takes_its_request_along():
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        asked.set()
        assert await exchange.read() == b""
        left.set()

    asked, left = asyncio.Event(), asyncio.Event()
    async with Backend(handle) as backend, Rig(backend) as rig:
        async with await rig.connect() as client:
            await client.send(get())
            await asked.wait()
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await left.wait()
        await until(lambda: rig.ends() == {"client-closed": 1})
        assert rig.lines()[0]["status"] == 499
        assert rig.pool.servers[0].active == 0
        assert rig.pool.servers[0].judge.failures == 0


# -- time-outs: each with a small value, waiting for what it ends with


def times(**values: float) -> dict[str, object]:
    return {"timeouts": Timeouts(**values)}


@proxied
async def test_a_head_that_does_not_end_is_a_408():
    async with Rig(members=(gone(),), config=times(header_s=0.1)) as rig, await rig.connect() as client:
        await client.send(b"GET / HTTP/1.1\r\nHo")
        assert (await client.reply()).status == 408
        assert rig.ends() == {"header-timeout": 1}


@proxied
async def test_a_connection_without_request_is_closed_in_silence():
    async with Rig(members=(gone(),), config=times(idle_s=0.1)) as rig, await rig.connect() as client:
        assert await client.rest() == b""
        assert rig.ends() == {}


@proxied
async def test_a_body_that_does_not_come_is_a_408():
    async with Backend(never_answer) as backend, Rig(backend, route=times(body_s=0.1)) as rig:
        async with await rig.connect() as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
            assert (await client.reply()).status == 408
        assert rig.ends() == {"body-timeout": 1}


@proxied
async def test_a_backend_that_does_not_answer_is_a_504_and_is_not_asked_again():
    soon = times(read_s=0.1)
    async with Backend(never_answer) as one, Backend(never_answer) as two, Rig(one, two, route=soon) as rig:
        assert (await rig.ask(get())).status == 504
        assert len(one.connections) + len(two.connections) == 1
        assert rig.ends() == {"backend-timeout": 1}


@proxied
async def test_an_answer_that_stops_is_cut_off():
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await never_answer(exchange)

    async with Backend(handle) as backend, Rig(backend, route=times(read_s=0.1)) as rig:
        with pytest.raises(h11.RemoteProtocolError):
            await rig.ask(get())
        assert rig.ends() == {"backend-timeout": 1}


@proxied
async def test_the_whole_request_may_take_so_long():
    async def drip(exchange: Exchange) -> None:
        await exchange.head()
        while True:
            await exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.01)

    async with Backend(drip) as backend, Rig(backend, route=times(total_s=0.2)) as rig:
        reply = await rig.ask(get())
        assert reply.status == 504
        assert set(reply.interim) == {102}
        assert rig.ends() == {"total-timeout": 1}


@proxied
async def test_a_connection_that_is_not_made_in_time_is_a_504():
    # A full queue of connections that nobody accepts: the next SYN is not answered.
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        member = BackendSettings(BackendAddress(LOCALHOST, sock.getsockname()[1]))
        async with Rig(members=(member,), route=times(connect_s=0.1)) as rig:
            assert (await rig.ask(get())).status == 504
            assert rig.ends() == {"connect-timeout": 1}
        for filler in fillers:
            filler.close()


@proxied
async def test_a_client_that_takes_nothing_is_closed_and_the_backend_is_let_go():
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(50):
            await exchange.send(b"x" * 1_000_000)

    async with Backend(handle) as backend, Rig(backend, route=times(write_s=0.2)) as rig:
        async with await rig.connect() as client:
            client.writer.transport.pause_reading()
            await client.send(get())
            await until(lambda: rig.ends() == {"write-timeout": 1})
        assert rig.lines()[0]["bytes_out"] < 20_000_000


@proxied
async def test_a_backend_that_takes_nothing_is_a_504():
    async def handle(exchange: Exchange) -> None:
        exchange.writer.transport.pause_reading()
        await finished.wait()

    finished = asyncio.Event()
    route = times(backend_write_s=0.2) | {"max_body": None}
    async with Backend(handle) as backend, Rig(backend, route=route) as rig, await rig.connect() as client:
        client.writer.write(post(b"x" * 30_000_000))
        assert (await client.reply()).status == 504
        assert rig.ends() == {"backend-timeout": 1}
        finished.set()


@proxied
async def test_kept_connections_that_are_not_used_are_closed():
    closed = asyncio.Event()

    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(ok())
        assert await exchange.read() == b""
        closed.set()

    async with Backend(handle) as backend, Rig(backend, route=times(backend_idle_s=0.1)) as rig:
        await rig.ask(get())
        await closed.wait()
        assert rig.count("backend_idle") == 0


# -- limits and queues


@proxied
async def test_requests_wait_for_a_place_and_are_served_in_turn():
    async def handle(exchange: Exchange) -> None:
        while True:
            head = await exchange.head()
            await go_on.wait()
            await exchange.send(ok(head.split()[1]))

    go_on = asyncio.Event()
    async with Backend(handle) as backend:
        member = BackendSettings(BackendAddress(LOCALHOST, backend.port), max_connections=1)
        async with Rig(members=(member,), pool={"max_queue": 3}) as rig:
            asked = [asyncio.create_task(rig.ask(get(b"/%d" % number))) for number in range(4)]
            await until(lambda: rig.pool.waiting == 3)
            assert (await rig.ask(get())).status == 503
            assert rig.ends() == {"queue-full": 1}
            go_on.set()
            assert [reply.body for reply in await asyncio.gather(*asked)] == [b"/0", b"/1", b"/2", b"/3"]
            assert len(backend.connections) == 1
            assert rig.count("pool_waiting") == 0


@proxied
async def test_who_waits_too_long_for_a_place_or_goes_away_leaves_the_queue():
    async with Backend(never_answer) as backend:
        member = BackendSettings(BackendAddress(LOCALHOST, backend.port), max_connections=1)
        async with Rig(members=(member,), route=times(queue_s=0.1)) as rig, await rig.connect() as first:
            await first.send(get())
            await until(lambda: rig.pool.servers[0].active == 1)
            assert (await rig.ask(get())).status == 503
            assert rig.ends() == {"queue-timeout": 1}
            assert rig.pool.waiting == 0


@proxied
async def test_without_a_backend_that_is_up_the_answer_is_503():
    async with Backend(answer(ok())) as backend, Rig(backend) as rig:
        rig.pool.set_state(rig.pool.servers[0], State.DOWN, "test", 0.0)
        assert (await rig.ask(get())).status == 503
        assert rig.ends() == {"pool-down": 1}


@pytest.mark.parametrize(
    "request_",
    [
        post(b"x" * 11),
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"6\r\nabcdef\r\n5\r\nabcde\r\n0\r\n\r\n",
    ],
)
@proxied
async def test_a_body_above_the_limit_is_a_413(request_):
    async with Backend(answer(ok())) as backend, Rig(backend, route={"max_body": 10}) as rig:
        async with await rig.connect() as client:
            await client.send(request_)
            reply = await client.reply()
            assert (reply.status, reply.keeps) == (413, False)
        assert rig.ends() == {"too-large": 1}
        assert not any(b"\r\n0\r\n\r\n" in received for received in backend.received)


@proxied
async def test_a_failing_backend_is_taken_out_and_the_last_one_is_not():
    async with Backend(close_at_once) as bad, Backend(answer(ok())) as good, Rig(bad, good) as rig:
        for _ in range(20):
            await rig.ask(get())
        assert len(bad.connections) == 5
        assert rig.ends() == {"done": 20}


@proxied
async def test_backends_that_come_and_go_under_load_cost_no_idempotent_request():
    async with Backend(answer(ok())) as one, Backend(answer(ok())) as two:
        retries = {"retries": Retries(attempts=3, budget=1.0)}
        # A backend that is back is asked again at once: the passive check would wait.
        async with Rig(one, two, route=retries, pool={"passive": None}) as rig:
            stop = asyncio.Event()

            async def ask() -> int:
                count = 0
                async with await rig.connect() as client:
                    while not stop.is_set():
                        await client.send(get())
                        assert (await client.reply()).status == 200
                        count += 1
                return count

            asking = [asyncio.create_task(ask()) for _ in range(8)]
            for backend in (one, two, one):
                await some_more(rig)
                await backend.stop()
                await some_more(rig)
                await backend.listen()
            stop.set()
            assert sum(await asyncio.gather(*asking)) == rig.ends()["done"]
            assert set(rig.ends()) == {"done"}
