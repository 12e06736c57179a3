"""Pools: who is ready, sessions, limits and the queue, passive checks, slow start."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from random import Random

import pytest

from l7.balancing.pool import Ejection, Pool
from l7.balancing.server import Outcome, Server, State
from l7.balancing.sessions import SessionTable
from l7.model import Backend, BackendAddress, PassiveCheck, Scheduler, Sticky, StickyKind
from l7.model import Pool as PoolSettings
from tests.unit.l7.asked import Asked, From

SECRET = bytes(range(16))


def backend(last: int, **settings) -> Backend:
    return Backend(BackendAddress(ip_address(f"10.0.0.{last}"), 80), **settings)


def pool(*backends: Backend, on_ejection=None, table=None, **settings) -> Pool:
    made = PoolSettings("api", backends or (backend(1), backend(2), backend(3)), **settings)
    return Pool(made, SECRET, Random(1), table=table, on_ejection=on_ejection)


def picked(of: Pool, now_s: float = 0.0, request: Asked | None = None, peer: From | None = None, tried=()):
    found = of.pick(request or Asked(), peer or From(), now_s, tried)
    return found.server.name if found else None


def names(of: Pool, count: int, now_s: float = 0.0) -> set[str | None]:
    return {picked(of, now_s) for _ in range(count)}


@pytest.mark.parametrize("state", [State.DOWN, State.DISABLED, State.DRAINING])
def test_only_who_is_up_gets_new_requests(state):
    api = pool()
    api.set_state(api.servers[0], state, "said so", 0.0)
    assert names(api, 9) == {"10.0.0.2:80", "10.0.0.3:80"}
    api.set_state(api.servers[0], State.UP, "", 1.0)
    assert len(names(api, 9, 1.0)) == 3


def test_weight_zero_gets_nothing():
    api = pool()
    api.set_weight(api.servers[0], 0, 0.0)
    assert "10.0.0.1:80" not in names(api, 9)


def test_backups_stand_in_only_when_nobody_else_is_ready():
    api = pool(backend(1), backend(2), backend(9, is_backup=True))
    assert "10.0.0.9:80" not in names(api, 9)
    for server in api.servers[:2]:
        api.set_state(server, State.DOWN, "", 0.0)
    assert names(api, 3) == {"10.0.0.9:80"}
    api.set_state(api.servers[2], State.DOWN, "", 0.0)
    assert picked(api) is None
    assert api.is_down


def test_who_was_tried_is_not_picked_again():
    api = pool()
    first, second, third = api.servers
    assert picked(api, tried=(first, third)) == second.name
    assert picked(api, tried=(first, second, third)) is None
    assert not api.is_down


class Waiting:
    """A request that picks again when it is told to, as connections do."""

    def __init__(self, of: Pool) -> None:
        self.pool = of
        self.server: Server | None = None

    def on_place(self, now_s: float) -> None:
        found = self.pool.pick(Asked(), From(), now_s)
        if found is None:
            assert self.pool.wait(self)
            return
        self.server = found.server
        self.pool.begin(found.server)


def test_a_full_backend_is_passed_over_and_a_place_goes_to_who_waited_longest():
    api = pool(backend(1, max_connections=1), backend(2, max_connections=1), max_queue=2)
    for server in api.servers:
        api.begin(server)
    assert picked(api) is None
    assert not api.is_down
    early, late = Waiting(api), Waiting(api)
    assert api.wait(early)
    assert api.wait(late)
    assert not api.wait(Waiting(api))
    api.end(api.servers[1], Outcome.OK, 1.0)
    assert early.server is api.servers[1]
    assert late.server is None
    api.leave(late)
    assert api.waiting == 0
    api.leave(late)


def test_a_backend_that_comes_back_serves_those_who_wait():
    api = pool(backend(1, max_connections=1), backend(2, max_connections=5))
    api.begin(api.servers[0])
    api.set_state(api.servers[1], State.DOWN, "", 0.0)
    waiting = [Waiting(api) for _ in range(3)]
    for one in waiting:
        assert api.wait(one)
    api.set_state(api.servers[1], State.UP, "", 1.0)
    assert [one.server for one in waiting] == [api.servers[1]] * 3


def test_failures_in_a_row_take_a_backend_out_for_a_time_that_grows():
    heard: list[Ejection] = []
    api = pool(on_ejection=heard.append, passive=PassiveCheck(failures=3, inhibit_s=10, longest_s=15))
    first = api.servers[0]

    def fail(times: int, now_s: float) -> None:
        for _ in range(times):
            api.begin(first)
            api.end(first, Outcome.FAILED, now_s)

    fail(2, 0.0)
    api.begin(first)
    api.end(first, Outcome.OK, 0.0)
    fail(2, 0.0)
    assert first.name in names(api, 3)
    fail(1, 0.0)
    assert first.name not in names(api, 9)
    assert heard == [Ejection("api", first.name, "3 requests in a row failed; tried again in 10 s", 10.0)]
    assert first.name in names(api, 3, 10.0)
    fail(1, 10.0)  # on trial: one is enough, and longer
    assert first.name not in names(api, 9, 24.9)
    assert first.name in names(api, 3, 25.0)
    api.begin(first)
    api.end(first, Outcome.OK, 25.0)
    fail(2, 25.0)
    assert first.name in names(api, 3, 25.0)


def test_a_client_that_goes_away_says_nothing_of_the_backend():
    api = pool(passive=PassiveCheck(failures=1))
    api.begin(api.servers[0])
    api.end(api.servers[0], Outcome.NEUTRAL, 0.0)
    assert len(names(api, 3)) == 3
    assert api.servers[0].active == 0


def test_passive_checks_never_take_the_last_or_more_than_their_share():
    api = pool(*[backend(i) for i in range(1, 5)], passive=PassiveCheck(failures=1, max_ejected=0.5))
    for server in api.servers:
        api.begin(server)
        api.end(server, Outcome.FAILED, 0.0)
    assert len(names(api, 8)) == 2
    two = pool(backend(1), backend(2), passive=PassiveCheck(failures=1, max_ejected=1.0))
    for server in two.servers:
        two.begin(server)
        two.end(server, Outcome.FAILED, 0.0)
    assert names(two, 4) == {"10.0.0.2:80"}


def test_what_others_found_takes_a_backend_out_as_far_as_it_may_be():
    api = pool(backend(1), backend(2))
    first, second = api.servers
    api.eject(first, "failed there", 10.0, 0.0)
    api.eject(second, "failed there", 20.0, 0.0)
    assert names(api, 4, 9.0) == {second.name}
    assert (first.why, second.ejected_until_s) == ("failed there", 0.0)
    assert names(api, 4, 10.0) == {first.name, second.name}
    api.eject(first, "long ago", 9.0, 10.0)
    assert names(api, 4, 10.0) == {first.name, second.name}


def test_an_active_check_that_finds_it_up_ends_the_ejection():
    api = pool(passive=PassiveCheck(failures=1, inhibit_s=1000))
    first = api.servers[0]
    api.begin(first)
    api.end(first, Outcome.FAILED, 0.0)
    api.set_state(first, State.DOWN, "connection refused", 1.0)
    api.set_state(first, State.UP, "", 2.0)
    assert first.name in names(api, 3, 2.0)


def test_slow_start_grows_in_tenths():
    api = pool(
        backend(1), backend(2), scheduler=Scheduler.WEIGHTED_ROUND_ROBIN, slow_start_s=100.0, passive=None
    )
    first = api.servers[0]
    api.set_state(first, State.DOWN, "", 0.0)
    api.set_state(first, State.UP, "", 0.0)

    def share(now_s: float) -> float:
        return Counter(picked(api, now_s) for _ in range(1100))[first.name] / 1100

    assert share(1.0) == pytest.approx(1 / 11, abs=0.01)
    assert share(45.0) == pytest.approx(5 / 15, abs=0.01)
    assert share(101.0) == pytest.approx(1 / 2, abs=0.01)


def test_retries_have_a_budget():
    api = pool()
    assert sum(api.may_retry(0.5) for _ in range(100)) == 10
    for _ in range(8):
        api.count_request(0.5)
    assert sum(api.may_retry(0.5) for _ in range(100)) == 4
    assert not api.may_retry(0.0)


def test_backends_come_and_go():
    api = pool(backend(1), max_queue=1)
    added = api.add(backend(2), 0.0)
    assert names(api, 2) == {"10.0.0.1:80", "10.0.0.2:80"}
    api.begin(added)
    api.remove(added, 1.0)
    assert names(api, 2) == {"10.0.0.1:80"}
    api.end(added, Outcome.OK, 2.0)
    assert api.find("10.0.0.2:80") is None


def test_a_name_that_resolves_to_nothing_is_not_asked():
    api = pool(backend(1), Backend(BackendAddress("api.internal", 80)))
    named = api.servers[1]
    assert names(api, 2) == {"10.0.0.1:80"}
    api.set_endpoints(named, [("10.0.0.7", 80), ("10.0.0.8", 80)], 0.0)
    assert names(api, 2) == {"10.0.0.1:80", "api.internal:80"}
    api.set_endpoints(named, [], 0.0)
    assert names(api, 2) == {"10.0.0.1:80"}


# -- sessions


def cookie_of(set_cookie: bytes) -> dict[bytes, bytes]:
    name, _, value = set_cookie.partition(b";")[0].partition(b"=")
    return {name: value}


def test_an_inserted_cookie_brings_the_session_back_and_reveals_nothing():
    api = pool(sticky=Sticky(max_age_s=3600))
    found = api.pick(Asked(), From(), 0.0)
    assert found and found.set_cookie
    assert found.set_cookie.endswith(b"; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax")
    assert b"10.0" not in found.set_cookie
    asked = Asked(cookies=cookie_of(found.set_cookie))
    for _ in range(9):
        again = api.pick(asked, From("198.51.100.9"), 0.0)
        assert again and again.server is found.server
        assert again.set_cookie is None


@pytest.mark.parametrize(
    ("secure", "scheme", "is_secure"),
    [(None, b"https", True), (None, b"http", False), (True, b"http", True), (False, b"https", False)],
)
def test_secure_follows_the_scheme_unless_said_otherwise(secure, scheme, is_secure):
    found = pool(sticky=Sticky(secure=secure)).pick(Asked(), From(scheme=scheme), 0.0)
    assert found and found.set_cookie
    assert found.set_cookie.endswith(b"; Secure") is is_secure


def test_cookies_mean_the_same_on_every_gateway_with_the_secret_and_nothing_elsewhere():
    found = pool(sticky=Sticky()).pick(Asked(), From(), 0.0)
    assert found and found.set_cookie
    asked = Asked(cookies=cookie_of(found.set_cookie))
    again = pool(sticky=Sticky()).pick(asked, From(), 0.0)
    assert again and again.by_session
    assert again.server.name == found.server.name
    other = Pool(PoolSettings("api", (backend(1),), sticky=Sticky()), bytes(16), Random(1))
    stranger = other.pick(asked, From(), 0.0)
    assert stranger and not stranger.by_session


@pytest.mark.parametrize("forged", [b"10.0.0.1:80", b"", b"AAAAAAAAAAAAAAAAAAAAAA", b"\xff" * 300])
def test_a_cookie_that_was_made_up_is_no_session(forged):
    found = pool(sticky=Sticky()).pick(Asked(cookies={b"SERVERID": forged}), From(), 0.0)
    assert found and found.set_cookie
    assert not found.by_session


@pytest.mark.parametrize(
    ("state", "stays"), [(State.DRAINING, True), (State.DOWN, False), (State.DISABLED, False)]
)
def test_a_session_stays_while_its_backend_drains_and_moves_when_it_is_down(state, stays):
    api = pool(sticky=Sticky())
    found = api.pick(Asked(), From(), 0.0)
    assert found and found.set_cookie
    asked = Asked(cookies=cookie_of(found.set_cookie))
    api.set_state(found.server, state, "", 1.0)
    after = api.pick(asked, From(), 1.0)
    assert after
    assert (after.server is found.server) is stays
    assert (after.set_cookie is None) is stays


def test_a_session_whose_backend_is_full_is_helped_out_and_comes_back():
    api = pool(backend(1, max_connections=1), backend(2), sticky=Sticky())
    first = api.servers[0]
    assert api.sessions
    set_cookie = api.sessions.begin(first, From(), 0.0)
    assert set_cookie
    asked = Asked(cookies=cookie_of(set_cookie))
    api.begin(first)
    helped = api.pick(asked, From(), 0.0)
    assert helped and helped.server is api.servers[1]
    assert helped.set_cookie is None
    api.end(first, Outcome.OK, 0.0)
    back = api.pick(asked, From(), 0.0)
    assert back and back.server is first


def table(capacity: int = 1000) -> SessionTable:
    return SessionTable(memoryview(bytearray(SessionTable.size_for(capacity))))


def test_the_applications_cookie_is_learned_by_all_workers():
    memory = memoryview(bytearray(SessionTable.size_for(1000)))
    settings = Sticky(StickyKind.LEARN, b"JSESSIONID", max_age_s=60)
    one, other = (pool(sticky=settings, table=SessionTable(memory)) for _ in range(2))
    assert one.sessions and one.sessions.learns_from == b"JSESSIONID"
    one.sessions.learn(b"abc", one.servers[1], 100.0)
    asked = Asked(cookies={b"JSESSIONID": b"abc"})
    for now_s in (110.0, 160.0, 210.0):  # each request renews it
        found = other.pick(asked, From(), now_s)
        assert found and found.server is other.servers[1] and found.by_session
    late = other.pick(asked, From(), 271.0)
    assert late and not late.by_session


def test_a_client_keeps_its_backend_by_its_address():
    api = pool(sticky=Sticky(StickyKind.SOURCE, max_age_s=60), table=table())
    found = api.pick(Asked(), From("192.0.2.7"), 0.0)
    assert found and found.set_cookie is None
    for _ in range(9):
        again = api.pick(Asked(b"/other"), From("192.0.2.7"), 30.0)
        assert again and again.server is found.server
    api.set_state(found.server, State.DOWN, "", 31.0)
    moved = api.pick(Asked(), From("192.0.2.7"), 31.0)
    assert moved and moved.server is not found.server
    api.set_state(found.server, State.UP, "", 32.0)
    assert picked(api, 32.0, peer=From("192.0.2.7")) == moved.server.name


def test_a_full_table_gives_up_the_session_that_ends_first():
    small = table(8)
    for i in range(8):
        small.put(i + 1, i, 100 + i)
    small.put(99, 9, 500)
    assert small.find(1, 50) is None
    assert [small.find(i + 1, 50) for i in range(1, 8)] == list(range(1, 8))
    assert small.find(99, 50) == 9
    assert small.find(99, 500) is None
