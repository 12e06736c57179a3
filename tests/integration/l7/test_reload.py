"""Nothing that an operator does to a proxy under load fails a request."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.sync.client import connect

from l4lb.errors import ConfigError, L4lbError
from tests.support.lab import wait_for
from tests.support.load import clients
from tests.support.proxy import Origin, Proxy, Site, run_command

PORT = 8000


def config(site: Site, *origins: Origin, **more: Any) -> dict[str, Any]:
    """Everything to one pool."""
    return {
        "workers": 2,
        "listeners": [{"name": "web", "listen": f"{site.address}:{PORT}"}],
        "routes": [{"name": "all", "match": {"path": "/"}, "pool": "web"}],
        "pools": {"web": {"backends": [origin.endpoint for origin in origins], **more}},
    }


@pytest.fixture
def origins(site: Site) -> list[Origin]:
    return [site.start_origin(f"b{n}", 8080 + n) for n in (1, 2)]


@pytest.fixture
def proxy(site: Site, origins: list[Origin]) -> Proxy:
    return site.start_proxy(config(site, *origins))


def test_ten_reloads_lose_no_request(site, proxy, origins):
    with clients(site.address, PORT) as load:
        load.wait_more(100)
        for number in range(10):
            proxy.write(config(site, *origins, scheduler=("round-robin", "least-connections")[number % 2]))
            answer = proxy.reload()
            assert answer["generation"] == number + 2
            load.wait_more(20 * (number % 3))  # one may begin while those before still leave
    assert load.failures == []
    wait_for(lambda: not proxy.status()["leaving_generations"], 10, "the old workers to end")
    # Counters go on: what all generations answered is what clients and servers saw.
    assert proxy.status()["counters"]["requests"] == sum(origin.counts()["requests"] for origin in origins)


@pytest.mark.parametrize("workers", [(1, 3), (3, 1)])
def test_the_number_of_workers_changes_without_loss(site, origins, workers):
    before, after = (config(site, *origins) | {"workers": count} for count in workers)
    proxy = site.start_proxy(before)
    with clients(site.address, PORT, per_connection=5) as load:
        load.wait_more(100)
        proxy.write(after)
        proxy.reload()
        load.wait_more(300)
        assert len([row for row in proxy.status()["workers"] if row["state"] == "serving"]) == workers[1]
    assert load.failures == []


def test_a_websocket_outlives_reload_and_replacement(site):
    echo = site.start_websocket_echo("ws", 8083)
    settings = config(site)
    settings["pools"]["web"]["backends"] = [echo.endpoint]
    proxy = site.start_proxy(settings)
    with connect(f"ws://{site.address}:{PORT}/") as socket:
        for number in range(3):
            socket.send(f"hello {number}")
            assert socket.recv(timeout=5) == f"ws: hello {number}"
            if number == 0:
                proxy.reload()
            elif number == 1:
                proxy.send(signal.SIGUSR2)
                proxy.wait_generation(3)
        assert proxy.status()["leaving_generations"] == [1]
    wait_for(lambda: not proxy.status()["leaving_generations"], 10, "the old worker to end")


def test_the_program_is_replaced_without_loss(site, proxy, origins):
    pid = proxy.process.pid
    with clients(site.address, PORT) as load:
        load.wait_more(100)
        proxy.client.post("/backends/drain", {"pool": "web", "backend": origins[0].endpoint})
        before = proxy.status()
        proxy.send(signal.SIGUSR2)
        proxy.wait_generation(before["generation"] + 1)
        load.wait_more(100)
        after = proxy.status()
    assert load.failures == []
    assert after["pid"] == pid and after["uptime_s"] >= before["uptime_s"]
    assert proxy.backends()[origins[0].endpoint]["state"] == "draining"
    wait_for(lambda: not proxy.status()["leaving_generations"], 10, "the old workers to end")
    assert proxy.status()["counters"]["requests"] == sum(origin.counts()["requests"] for origin in origins)


def test_a_replacement_right_behind_a_reload_counts_nothing_twice(site, proxy, origins):
    with clients(site.address, PORT) as load:
        load.wait_more(50)
    for generation in (3, 5, 7, 9):
        proxy.reload()
        proxy.send(signal.SIGUSR2)
        proxy.wait_generation(generation)
        wait_for(lambda: not proxy.status()["leaving_generations"], 10, "the old workers to end")
    assert proxy.status()["counters"]["requests"] == sum(origin.counts()["requests"] for origin in origins)


def test_a_wrong_file_changes_nothing(site, proxy):
    generation = proxy.status()["generation"]
    with clients(site.address, PORT) as load:
        proxy.write("l7: {listeners: [], pool: {}}")
        with pytest.raises(ConfigError, match=r"l7lb\.yaml:1:\d+: l7\.pool: unknown key"):
            proxy.reload()
        done = proxy.command("reload", check=False)
        assert done.returncode == 2 and "unknown key" in done.stderr
        proxy.send(signal.SIGHUP)
        wait_for(lambda: proxy.output().count("reload failed") >= 3, 10, "the signal's failure in the log")
        proxy.send(signal.SIGUSR2)
        wait_for(lambda: "replacement failed" in proxy.output(), 10, "the replacement's failure in the log")
        load.wait_more(100)
    assert load.failures == []
    assert proxy.status()["generation"] == generation


def test_a_new_program_that_cannot_begin_leaves_the_old_workers_at_work(site, proxy, origins):
    taken = config(site, *origins)
    taken["listeners"].append({"name": "taken", "listen": origins[0].endpoint})
    with clients(site.address, PORT) as load:
        load.wait_more(50)
        proxy.write(taken)
        proxy.send(signal.SIGUSR2)
        wait_for(lambda: "msg=replaced" in proxy.output(), 20, "the new program")
        wait_for(lambda: "another program listens there" in proxy.output(), 20, "its complaint")
        load.wait_more(50)
        assert proxy.status()["generation"] == 1
        proxy.write(config(site, *origins))
        assert proxy.reload()["generation"] == 3
        load.wait_more(50)
    assert load.failures == []
    wait_for(lambda: not proxy.status()["leaving_generations"], 10, "the old workers to end")
    assert proxy.status()["counters"]["requests"] == sum(origin.counts()["requests"] for origin in origins)


def test_a_port_that_is_taken_changes_nothing(site, proxy, origins):
    taken = config(site, *origins)
    taken["listeners"].append({"name": "taken", "listen": origins[0].endpoint})
    proxy.write(taken)
    done = proxy.command("reload", check=False)
    assert done.returncode == 1 and f"{origins[0].endpoint}: another program listens there" in done.stderr
    with clients(site.address, PORT) as load:
        load.wait_more(50)
    assert load.failures == []


def test_a_dry_run_says_what_would_change_and_changes_nothing(site, proxy, origins):
    changed = config(site, origins[0])
    changed["pools"]["web"]["backends"] = [{"address": origins[0].endpoint, "weight": 7}]
    proxy.write(changed)
    expected = [
        f"pool web: backend {origins[0].endpoint} gets weight 7, had 1",
        f"pool web: backend {origins[1].endpoint} goes",
    ]
    assert proxy.client.post("/reload", {"dry_run": True}) == {"reloaded": False, "changes": expected}
    assert proxy.status()["generation"] == 1
    assert proxy.reload()["changes"] == expected
    assert list(proxy.backends()) == [origins[0].endpoint]


def test_drained_backends_finish_and_get_nothing_new(site, proxy, origins):
    first, second = origins
    with clients(site.address, PORT, path="/after/20", per_connection=10) as load:
        wait_for(lambda: len(load.answered) == 2, 10, "answers of both")
        proxy.command("backends", "drain", "web", first.endpoint, "--wait", "--timeout", "20")
        asked = first.counts()["requests"]
        load.wait_more(50)
        assert first.counts()["requests"] == asked
        assert proxy.backends()[first.endpoint]["state"] == "draining"
        proxy.command("backends", "enable", "web", first.endpoint)
        wait_for(lambda: first.counts()["requests"] > asked, 10, "requests after the enabling")
    assert load.failures == []
    assert second.counts()["requests"]


def test_a_killed_backend_fails_no_get(site, origins):
    proxy = site.start_proxy(config(site, *origins, health={"type": "tcp", "interval": "1s", "fall": 2}))
    with clients(site.address, PORT, per_connection=1000) as load:
        wait_for(lambda: len(load.answered) == 2, 10, "answers of both")
        origins[0].stop(signal.SIGKILL)
        load.wait_more(500)
        wait_for(lambda: proxy.backends()[origins[0].endpoint]["state"] == "down", 15, "it to be found down")
        load.wait_more(100)
    assert load.failures == []


def test_a_killed_worker_breaks_its_own_connections_alone(site, proxy):
    with clients(site.address, PORT, per_connection=1000) as load:
        load.wait_more(200)
        victim = proxy.status()["workers"][0]
        os.kill(victim["pid"], signal.SIGKILL)
        wait_for(lambda: proxy.status()["restarts"] == 1, 10, "its replacement to be counted")
        wait_for(
            lambda: all(row["state"] == "serving" and row["pid"] != victim["pid"] for row in workers(proxy)),
            10,
            "its replacement to serve",
        )
        load.wait_more(200)
    assert len(load.failures) <= victim["connections"]
    assert proxy.status()["counters"]["connections_open"] <= 8


def workers(proxy: Proxy) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = proxy.status()["workers"]
    return rows if len(rows) == 2 else [{"state": "missing", "pid": 0}]


def test_a_killed_steward_is_replaced_and_knows_what_was_changed(site, proxy, origins):
    with clients(site.address, PORT) as load:
        proxy.client.post("/backends/weight", {"pool": "web", "backend": origins[0].endpoint, "weight": 4})
        before = proxy.status()["steward_pid"]
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: _steward(proxy) not in (None, before), 10, "another steward")
        load.wait_more(100)
    assert load.failures == []
    assert proxy.backends()[origins[0].endpoint]["weight"] == 4
    assert proxy.reload()["reloaded"]


def _steward(proxy: Proxy) -> int | None:
    try:
        return int(proxy.status()["steward_pid"])
    except L4lbError:
        return None


def test_a_stop_answers_what_was_asked(site, proxy):
    with clients(site.address, PORT, path="/after/300", count=4) as load:
        wait_for(lambda: load.connections == 4, 10, "connections")
        wait_for(lambda: proxy.status()["counters"]["requests_active"] == 4, 10, "requests")
        proxy.send(signal.SIGTERM)
        wait_for(lambda: proxy.process.poll() is not None, 10, "its end")
    assert proxy.process.returncode == 0
    assert load.requests >= 4
    # What comes after the stop is refused; nothing that was accepted is cut off.
    assert {failure.split(":")[0] for failure in load.failures} <= {"ConnectionRefusedError"}
    assert not proxy.socket.exists()


def test_a_backend_that_requests_found_broken_stays_out_over_reload_and_replacement(site, origins):
    broken = origins[0].endpoint
    proxy = site.start_proxy(config(site, *origins, passive={"failures": 1, "inhibit": "1m"}))
    origins[0].stop(signal.SIGKILL)

    def ejected_by() -> int:
        return int(proxy.backends()[broken]["ejected_by"])

    with clients(site.address, PORT) as load:
        wait_for(lambda: ejected_by() == 2, 10, "both workers to find it")
    asked = proxy.backends()[broken]["failed"]
    proxy.reload()
    wait_for(lambda: ejected_by() == 2, 10, "the next workers to know")
    proxy.send(signal.SIGUSR2)
    proxy.wait_generation(3)
    wait_for(lambda: ejected_by() == 2, 10, "those of the next program to know")
    with clients(site.address, PORT) as load:
        load.wait_more(50)
    assert load.failures == []
    assert proxy.backends()[broken]["failed"] == asked


def ask_on(site: Site, port: int, count: int) -> list[socket.socket]:
    """Connections with a request each, which somebody may accept one day."""
    made = [socket.create_connection((site.address, port), timeout=10) for _ in range(count)]
    for sock in made:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    return made


def statuses(made: list[socket.socket]) -> set[bytes]:
    """What they are answered."""
    with ExitStack() as stack:
        for sock in made:
            stack.enter_context(sock)
        return {sock.recv(4096).split(b"\r\n")[0] for sock in made}


def test_a_stop_answers_those_who_were_not_accepted_yet(site, proxy):
    pids = [row["pid"] for row in workers(proxy)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    made = ask_on(site, PORT, 40)
    proxy.send(signal.SIGTERM)
    wait_for(lambda: "msg=stopping" in proxy.output(), 10, "it to stop")
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    assert statuses(made) == {b"HTTP/1.1 200 OK"}
    assert proxy.process.wait(10) == 0


def test_a_listener_that_goes_answers_those_who_were_not_accepted_yet(site, origins):
    settings = config(site, *origins)
    settings["listeners"].append({"name": "more", "listen": f"{site.address}:{PORT + 1}"})
    proxy = site.start_proxy(settings)
    pids = [row["pid"] for row in workers(proxy)]
    proxy.write(config(site, *origins))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    made = ask_on(site, PORT + 1, 40)
    proxy.reload()
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    assert statuses(made) == {b"HTTP/1.1 200 OK"}
    wait_for(lambda: not proxy.status()["leaving_generations"], 10, "the old workers to end")
    with pytest.raises(ConnectionRefusedError):
        ask_on(site, PORT + 1, 1)


def test_a_listener_that_goes_under_load_resets_nobody(site, origins):
    settings = config(site, *origins)
    settings["listeners"].append({"name": "more", "listen": f"{site.address}:{PORT + 1}"})
    proxy = site.start_proxy(settings)
    with clients(site.address, PORT + 1, per_connection=1) as load:
        load.wait_more(200)
        proxy.write(config(site, *origins))
        proxy.reload()
        wait_for(lambda: load.failures, 10, "the listener to be gone")
    assert {failure.split(":")[0] for failure in load.failures} == {"ConnectionRefusedError"}


def test_a_second_daemon_is_refused(site, proxy):
    done = run_command("--socket", str(proxy.socket), "run", "-c", str(proxy.config), check=False)
    assert done.returncode == 1 and "a daemon is running already" in done.stderr
    assert proxy.status()["ready"]
