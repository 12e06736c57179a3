"""A running proxy as an operator sees it: commands, metrics, certificates, names, users."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import trustme

from l4lb.errors import L4lbError
from tests.support.lab import wait_for
from tests.support.load import clients
from tests.support.proxy import Origin, Proxy, Site, run_command

PORT, METRICS = 8000, 9101


def config(site: Site, *origins: Origin, **more: Any) -> dict[str, Any]:
    return {
        "workers": 2,
        "listeners": [{"name": "web", "listen": f"{site.address}:{PORT}"}],
        "routes": [
            {"name": "api", "match": {"path": "/api/"}, "pool": "web"},
            {"name": "no", "match": {"path": "/no"}, "respond": {"status": 403}},
            {"name": "all", "match": {"path": "/"}, "pool": "web"},
        ],
        "pools": {"web": {"backends": [origin.endpoint for origin in origins]}},
        **more,
    }


@pytest.fixture
def origin(site: Site) -> Origin:
    return site.start_origin("b1", 8081)


def ask(site: Site, path: str = "/") -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://{site.address}:{PORT}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_commands_show_what_happens_as_tables_and_as_json(site, origin):
    proxy = site.start_proxy(config(site, origin))
    assert [ask(site, path)[0] for path in ("/", "/api/x", "/no", "/after/1")] == [200, 200, 403, 200]
    status = json.loads(proxy.command("status", "--json").stdout)
    assert (status["counters"]["requests"], len(status["workers"])) == (4, 2)
    rows = [json.loads(line) for line in proxy.command("routes", "--json").stdout.splitlines()]
    assert {row["route"]: row["requests"] for row in rows} == {"api": 1, "no": 1, "all": 2}
    (row,) = (json.loads(line) for line in proxy.command("backends", "ls", "--json").stdout.splitlines())
    assert (row["pool"], row["backend"], row["state"], row["requests"]) == ("web", origin.endpoint, "up", 3)
    for words in (("status",), ("routes",), ("backends", "ls"), ("top", "--once", "--interval", "0.2")):
        assert "web" in proxy.command(*words).stdout or words == ("status",)
    shown = json.loads(proxy.command("explain", f"http://{site.address}:{PORT}/api/x", "--json").stdout)
    assert (shown["route"], shown["splits"][0]["backend"]) == ("api", origin.endpoint)
    proxy.command("backends", "disable", "web", origin.endpoint)
    shown = json.loads(proxy.command("explain", f"http://{site.address}:{PORT}/", "--json").stdout)
    assert shown["splits"][0]["backend"] is None
    assert ask(site)[0] == 503


def test_metrics_are_served_on_both_sockets_and_do_not_go_back(site, origin):
    proxy = site.start_proxy(config(site, origin, metrics=f"{site.address}:{METRICS}"))

    def scrape(port: int = METRICS) -> dict[str, float]:
        with urllib.request.urlopen(f"http://{site.address}:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

    requests = 'l7lb_route_requests_total{route="all"}'
    with clients(site.address, PORT, count=4) as load:
        load.wait_more(50)
        seen = [scrape()[requests]]
        for _ in range(3):
            proxy.reload()
            load.wait_more(50)
            seen.append(scrape()[requests])
        assert seen == sorted(seen) and seen[0] > 0
    assert load.failures == []
    text = proxy.command("metrics").stdout
    assert f'l7lb_backend_state{{pool="web",backend="{origin.endpoint}",state="up"}} 1' in text
    assert 'l7lb_route_seconds_bucket{route="all",le="+Inf"}' in text
    # Another address for metrics serves, and the old one no more, when the reload has answered.
    proxy.write(config(site, origin, metrics=f"{site.address}:{METRICS + 1}"))
    proxy.reload()
    assert not _listens(site.address, METRICS)
    assert scrape(METRICS + 1)[requests] >= seen[-1]


def test_a_reload_answers_when_the_next_steward_does(site, origin):
    proxy = site.start_proxy(config(site, origin))
    for number in range(2, 8):
        proxy.reload()
        assert (proxy.status()["generation"], proxy.status()["ready"]) == (number, True)
        assert f"msg=serving generation={number} " in proxy.output()


def _listens(address: str, port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((address, port)) == 0


def issue(ca: trustme.CA, directory: Path, name: str) -> str:
    """A new certificate in the place of the old one; its serial number."""
    issued = ca.issue_cert(name)
    new_chain, new_key = directory / "new.pem", directory / "new.key"
    new_chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    new_key.write_bytes(issued.private_key_pem.bytes())
    new_chain.replace(directory / "site.pem")
    new_key.replace(directory / "site.key")
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode()).hex()


def handshake(site: Site, ca: trustme.CA) -> str:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    with (
        socket.create_connection((site.address, PORT), timeout=5) as sock,
        context.wrap_socket(sock, server_hostname="shop.example") as tls,
    ):
        found = tls.getpeercert(binary_form=True)
    assert found is not None
    return found.hex()


def test_a_renewed_certificate_is_served_and_a_broken_one_is_not(site, origin, tmp_path):
    ca = trustme.CA()
    first = issue(ca, tmp_path, "shop.example")
    files = {"cert": str(tmp_path / "site.pem"), "key": str(tmp_path / "site.key")}
    listener = {"name": "web", "listen": f"{site.address}:{PORT}", "tls": {"certificates": [files]}}
    proxy = site.start_proxy(config(site, origin, listeners=[listener]))
    assert handshake(site, ca) == first
    before = proxy.status()
    second = issue(ca, tmp_path, "shop.example")
    wait_for(lambda: handshake(site, ca) == second, 15, "the new certificate to be served")
    (row,) = proxy.client.rows("/certificates")
    assert row["names"] == ["shop.example"] and row["days"] > 0
    (tmp_path / "site.pem").write_text("nonsense")
    wait_for(lambda: "certificates could not be read" in proxy.output(), 15, "the complaint in the log")
    assert handshake(site, ca) == second
    # A worker that is started later serves the new one, too.
    for worker in proxy.status()["workers"]:
        os.kill(worker["pid"], 9)
    wait_for(lambda: proxy.status()["restarts"] == 2, 10, "both workers to be replaced")
    wait_for(lambda: len([w for w in _rows(proxy) if w["state"] == "serving"]) == 2, 10, "them to serve")
    assert handshake(site, ca) == second
    assert proxy.status()["generation"] == before["generation"]


def _rows(proxy: Proxy) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = proxy.status()["workers"]
    return rows


def test_names_of_backends_are_looked_up(site):
    port = 8082
    site.address = "127.0.0.1"  # what localhost is
    listen = {"name": "web", "listen": "127.113.7.9:8000"}
    origin = site.start_origin("b1", _free_port())
    name = f"localhost:{origin.endpoint.rpartition(':')[2]}"
    settings = config(site, origin, listeners=[listen])
    settings["pools"]["web"] |= {"backends": [name, f"nowhere.invalid:{port}"], "resolve": "1s"}
    proxy = site.start_proxy(settings)
    wait_for(lambda: "127.0.0.1" in proxy.backends()[name]["addresses"], 10, "the name to be found")
    site.address = "127.113.7.9"
    assert {ask(site) for _ in range(4)} == {(200, b"b1\n")}
    assert "name not found" in proxy.output()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_steward_and_workers_become_the_user_and_reloads_go_on(site, origin):
    site.directory.chmod(0o755)
    proxy = site.start_proxy(config(site, origin, user="nobody"))
    status = proxy.status()
    nobody = pwd.getpwnam("nobody").pw_uid
    for pid in (status["steward_pid"], *(worker["pid"] for worker in status["workers"])):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        words = dict(line.split(":", 1) for line in lines)
        assert words["Uid"].split() == [str(nobody)] * 4
        assert int(words["CapEff"], 16) == int(words["CapPrm"], 16) == 0
        assert words["NoNewPrivs"].strip() == "1"
    assert proxy.socket.stat().st_mode & 0o777 == 0o660
    assert ask(site)[0] == 200
    more = config(site, origin, user="nobody")
    more["listeners"].append({"name": "low", "listen": f"{site.address}:81"})
    proxy.write(more)
    assert proxy.reload()["reloaded"]
    assert _listens(site.address, 81)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_pages_that_only_root_may_read_are_served_and_read_anew_by_a_reload(site, origin):
    site.directory.chmod(0o755)
    page = site.directory / "404.html"
    page.write_text("<p>one")
    page.chmod(0o600)
    own = config(site, origin, user="nobody", routes=[], error_pages={404: str(page)})
    proxy = site.start_proxy(own)
    assert ask(site) == (404, b"<p>one")
    page.write_text("<p>two")
    proxy.reload()
    # Workers that leave may take a last connection.
    wait_for(lambda: ask(site) == (404, b"<p>two"), 5, "the new page")
    page.unlink()
    with pytest.raises(L4lbError, match="it is the page of status 404"):
        proxy.reload()
    assert ask(site) == (404, b"<p>two")


def test_a_user_that_nobody_is_ends_the_start(site, origin, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(json.dumps({"l7": config(site, origin, user="nobody-of-that-name")}))
    done = run_command("--socket", str(tmp_path / "x.sock"), "run", "-c", str(path), check=False)
    assert done.returncode == 2
    assert "there is no user nobody-of-that-name" in done.stderr
    assert not (tmp_path / "x.sock").exists()


def test_if_the_master_is_killed_nobody_stays(site, origin):
    proxy = site.start_proxy(config(site, origin, shutdown_timeout="1s"))
    status = proxy.status()
    pids = [status["steward_pid"], *(worker["pid"] for worker in status["workers"])]
    proxy.process.kill()
    wait_for(lambda: not any(_lives(pid) for pid in pids), 10, "all others to end")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_access_log_is_opened_again(site, origin, tmp_path):

    path = tmp_path / "access.log"
    proxy = site.start_proxy(config(site, origin, access_log={"path": str(path)}))
    ask(site, "/first")
    wait_for(lambda: path.exists() and "/first" in path.read_text(), 10, "the first line")
    path.rename(tmp_path / "access.log.1")
    proxy.send(signal.SIGUSR1)
    wait_for(path.exists, 10, "a new file")
    ask(site, "/second")
    wait_for(lambda: "/second" in path.read_text(), 10, "the line in the new file")
    assert "/second" not in (tmp_path / "access.log.1").read_text()


def test_systemd_is_told_what_happens(site, origin, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(10)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        proxy = site.start_proxy(config(site, origin), env=environment)

        def wait_word(word: str) -> None:
            while word not in told.recv(1024).decode().split("\n"):
                pass

        wait_word("READY=1")
        wait_word("WATCHDOG=1")
        proxy.send(signal.SIGHUP)
        wait_word("RELOADING=1")
        wait_word("READY=1")
        proxy.send(signal.SIGTERM)
        wait_word("STOPPING=1")


def test_without_a_daemon_commands_say_so(tmp_path):
    done = run_command("--socket", str(tmp_path / "none.sock"), "status", check=False)
    assert done.returncode == 4
    assert done.stderr == f"l7lb: {tmp_path}/none.sock: no daemon answers; start one with `l7lb run`\n"
