"""TLS as OpenSSL's own client, curl and nginx see it: names, sessions, certificates of both sides."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.lab import wait_for
from tests.support.nginx import start_nginx
from tests.support.odd_server import odd_server
from tests.support.proxy import Origin, Proxy, Site, run_command

PORT, STRICT, PERSONAL, PASSED, NGINX = 8443, 8444, 8445, 8446, 9443
NGINX_SERVER = """
server {{
    listen {address}:{port} ssl;
    ssl_certificate {directory}/backend.example.pem;
    ssl_certificate_key {directory}/backend.example.pem;
    location / {{ return 200 "nginx was asked for $ssl_server_name\\n"; }}
}}
"""


def issue(ca: trustme.CA, directory: Path, *names: str) -> Path:
    """A certificate and its key in one file, which is called like the first name."""
    path = directory / f"{names[0]}.pem"
    ca.issue_cert(*names, common_name=names[0]).private_key_and_cert_chain_pem.write_to_path(path)
    return path


@dataclass
class Front:
    """A proxy with a listener of each kind."""

    site: Site
    proxy: Proxy
    ca: Path

    def openssl(self, port: int, *words: str | Path, request: str = "GET / HTTP/1.0\r\n\r\n") -> str:
        """What `openssl s_client` says to one request."""
        argv = ["openssl", "s_client", "-connect", f"{self.site.address}:{port}", "-CAfile", self.ca, *words]
        argv += ["-ign_eof"]
        done = subprocess.run(argv, input=request, text=True, capture_output=True, timeout=20, check=False)
        return done.stdout + done.stderr

    def curl(self, name: str, port: int, path: str = "/", *words: str | Path) -> tuple[int, str]:
        """Status and body by curl, which believes the authority of the tests."""
        argv = ["curl", "-sS", "--cacert", self.ca, "--resolve", f"{name}:{port}:{self.site.address}"]
        argv += ["-w", "\n%{http_code}", *words, f"https://{name}:{port}{path}"]
        done = subprocess.run(argv, text=True, capture_output=True, timeout=20, check=False)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body + done.stderr


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with ExitStack() as stack:
        site = Site(tmp_path_factory.mktemp("tls"))
        stack.callback(site.close)
        directory = site.directory
        ca, stranger = trustme.CA(), trustme.CA()
        ca.cert_pem.write_to_path(directory / "ca.pem")
        stranger.cert_pem.write_to_path(directory / "stranger.pem")
        for names in (("a.example", "www.a.example"), ("*.b.example",), ("backend.example",), ("someone",)):
            issue(ca, directory, *names)
        server = stack.enter_context(odd_server(site.address))
        served = NGINX_SERVER.format(directory=directory, address=site.address, port=NGINX)
        start_nginx(site, "nginx", served, NGINX)
        origin = site.start_origin("b1", 8081)
        proxy = site.start_proxy(settings(site, server.endpoint, origin))
        yield Front(site, proxy, directory / "ca.pem")


def settings(site: Site, echo: str, origin: Origin) -> dict[str, Any]:
    directory = site.directory
    certificates = [str(directory / "a.example.pem"), str(directory / "*.b.example.pem")]
    nginx = f"{site.address}:{NGINX}"

    def listen(name: str, port: int, **more: Any) -> dict[str, Any]:
        return {"name": name, "listen": f"{site.address}:{port}", **more}

    def renewed(**tls: Any) -> dict[str, Any]:
        return {"backends": [nginx], "tls": tls, "passive": False}

    personal = {"X-Who": "$ssl_client_s_dn", "X-Verified": "$ssl_client_verify", "X-Tls": "$ssl_protocol"}
    authority = str(directory / "ca.pem")
    return {
        "workers": 3,
        "access_log": False,
        "listeners": [
            listen("web", PORT, tls={"certificates": certificates}),
            listen("strict", STRICT, tls={"certificates": certificates, "refuse_unknown": True}),
            listen(
                "personal",
                PERSONAL,
                tls={
                    "certificates": certificates,
                    "client_ca": authority,
                    "client_certificates": "optional",
                },
            ),
            listen(
                "passed",
                PASSED,
                pass_through=[
                    {"names": ["backend.example"], "pool": "passed"},
                    {"names": ["*.plain.example"], "pool": "plain"},
                ],
            ),
        ],
        "routes": [
            {
                "match": {"listener": "personal"},
                "priority": 1,
                "pool": "echo",
                "request_headers": {"set": personal},
            },
            {"match": {"path": "/verified"}, "pool": "verified"},
            {"match": {"path": "/stranger"}, "pool": "stranger"},
            {"match": {"path": "/unnamed"}, "pool": "unnamed"},
            {"match": {"path": "/unverified"}, "pool": "unverified"},
            {"match": {"path": "/"}, "pool": "plain"},
        ],
        "pools": {
            "plain": {"backends": [origin.endpoint]},
            "echo": {"backends": [echo]},
            "passed": {"backends": [nginx]},
            "verified": renewed(ca=authority, server_name="backend.example"),
            "stranger": renewed(ca=str(directory / "stranger.pem"), server_name="backend.example"),
            "unnamed": renewed(ca=authority, server_name="other.example"),
            "unverified": renewed(verify=False, server_name="other.example"),
        },
    }


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("a.example", "a.example"),
        ("WWW.A.example", "a.example"),
        ("x.b.example", "*.b.example"),
        ("b.example", "a.example"),
        ("x.y.b.example", "a.example"),
        (None, "a.example"),
    ],
)
def test_the_name_chooses_the_certificate(front: Front, name: str | None, subject: str) -> None:
    words = ["-servername", name] if name else ["-noservername"]
    said = front.openssl(PORT, *words)
    assert re.search(rf"subject=.*CN = {re.escape(subject)}\n", said), said
    assert "Verify return code: 0 (ok)" in said
    assert "X-Backend: b1" in said


@pytest.mark.parametrize("words", [("-servername", "c.example"), ("-noservername",)])
def test_a_name_that_nobody_has_is_refused_where_it_shall_be(front: Front, words: tuple[str, ...]) -> None:
    before = failures(front, "strict")
    assert "tlsv1 unrecognized name" in front.openssl(STRICT, *words)
    assert "X-Backend: b1" in front.openssl(STRICT, "-servername", "a.example")
    wait_for(lambda: failures(front, "strict") == before + 1, 10, "the refused handshake to be counted")


def failures(front: Front, listener: str) -> int:
    """Handshakes that came to nothing."""
    name = f'l7lb_listener_tls_failures_total{{listener="{listener}"}}'
    (line,) = (row for row in front.proxy.command("metrics").stdout.splitlines() if row.startswith(name))
    return int(line.rpartition(" ")[2])


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_session_is_resumed_by_every_worker(front: Front, version: str, tmp_path: Path) -> None:
    ticket = tmp_path / "ticket"
    names = "-servername", "a.example"
    assert "\nNew, " in front.openssl(PORT, version, *names, "-sess_out", ticket)
    # Three workers take turns as the kernel likes: twelve connections meet all of them, but for 1 in 40.
    for _ in range(12):
        assert "\nReused, " in front.openssl(PORT, version, *names, "-sess_in", ticket)
    # A session is its name's.
    assert "X-Backend: b1" in front.openssl(PORT, version, "-servername", "x.b.example", "-sess_in", ticket)


@pytest.mark.parametrize("version", ["-ssl3", "-tls1", "-tls1_1"])
def test_old_versions_are_refused(front: Front, version: str) -> None:
    said = front.openssl(PORT, version, "-cipher", "ALL:@SECLEVEL=0")
    assert "X-Backend" not in said
    assert "alert protocol version" in said or "unknown option" in said.lower()


def test_who_shows_a_certificate_is_told_to_the_backend(front: Front) -> None:
    mine = front.site.directory / "someone.pem"
    status, body = front.curl("a.example", PERSONAL, "/headers", "--cert", mine)
    headers = dict(line.split(": ", 1) for line in body.splitlines() if ": " in line)
    assert status == 200, body
    assert headers["x-who"].split(",")[0].endswith("someone")
    assert (headers["x-verified"], headers["x-tls"]) == ("SUCCESS", "TLSv1.3")
    # Who shows none gets in, too, and cannot say that he did.
    status, body = front.curl("a.example", PERSONAL, "/headers", "-H", "X-Who: CN=root")
    headers = dict(line.split(": ", 1) for line in body.splitlines() if ": " in line)
    assert (status, headers["x-verified"], headers.get("x-who")) == (200, "NONE", None)
    # One of another authority ends the handshake.
    other = issue(trustme.CA(), front.site.directory, "nobody")
    status, said = front.curl("a.example", PERSONAL, "/headers", "--cert", other)
    assert status == 0 and "unknown ca" in said


def test_by_name_undecrypted(front: Front) -> None:
    assert front.curl("backend.example", PASSED) == (200, "nginx was asked for backend.example\n")
    said = front.openssl(PASSED, "-servername", "backend.example")
    assert "CN = backend.example" in said and "Verify return code: 0 (ok)" in said
    # What nobody asked for is not passed on.
    status, said = front.curl("a.example", PASSED)
    assert status == 0


def test_backends_over_tls(front: Front) -> None:
    assert front.curl("a.example", PORT, "/verified") == (200, "nginx was asked for backend.example\n")
    assert front.curl("a.example", PORT, "/unverified") == (200, "nginx was asked for other.example\n")
    assert front.curl("a.example", PORT, "/stranger")[0] == 502
    assert front.curl("a.example", PORT, "/unnamed")[0] == 502
    assert front.proxy.status()["counters"]["ends"]["connect-failed"] == 2
    failed = {row["pool"]: row["failed"] for row in front.proxy.client.rows("/backends") if row["failed"]}
    assert failed == {"stranger": 1, "unnamed": 1}


def test_new_certificates_leave_connections_alone(site: Site, tmp_path: Path) -> None:
    ca = trustme.CA()
    issue(ca, tmp_path, "one.example")
    origin = site.start_origin("b1", 8081)
    certificates = [str(tmp_path / "one.example.pem")]
    listener = {"name": "web", "listen": f"{site.address}:{PORT}", "tls": {"certificates": certificates}}
    site.start_proxy(
        {
            "workers": 2,
            "listeners": [listener],
            "routes": [{"pool": "web"}],
            "pools": {"web": {"backends": [origin.endpoint]}},
        }
    )
    context = ssl.create_default_context()
    ca.configure_trust(context)

    def connect() -> http.client.HTTPSConnection:
        made = http.client.HTTPSConnection(site.address, PORT, timeout=10, context=context)
        sock = socket.create_connection((site.address, PORT), timeout=10)
        made.sock = context.wrap_socket(sock, server_hostname="one.example")
        return made

    def ask(connection: http.client.HTTPSConnection) -> bytes:
        connection.request("GET", "/", headers={"Host": "one.example"})
        return connection.getresponse().read()

    def serial() -> str:
        with closing(connect()) as connection:
            return str(connection.sock.getpeercert()["serialNumber"])

    before = serial()
    with closing(connect()) as connection:
        assert ask(connection) == b"b1\n"
        kept = connection.sock
        issue(ca, tmp_path, "one.example")
        wait_for(lambda: serial() != before, 15, "the new certificate to be served")
        assert ask(connection) == b"b1\n"
        assert connection.sock is kept


def test_check_names_the_file_that_does_not_fit(front: Front, tmp_path: Path) -> None:
    ca = trustme.CA()
    for name in ("one", "two"):
        issued = ca.issue_cert(name)
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    text = "l7: {listeners: [{listen: '127.0.0.1:8443', tls: {certificates: [{cert: %s, key: %s}]}}]}"

    def check(cert: str, key: str) -> tuple[int, str]:
        path = tmp_path / "l7.yaml"
        path.write_text(text % (tmp_path / cert, tmp_path / key))
        done = run_command("check", "-c", str(path), check=False)
        return done.returncode, done.stderr

    assert check("one.pem", "one.key")[0] == 0
    for cert, key, named in (
        ("one.pem", "two.key", "two.key"),
        ("one.pem", "none.key", "none.key"),
        ("none.pem", "one.key", "none.pem"),
        ("one.key", "one.key", "one.key"),
    ):
        code, said = check(cert, key)
        assert code == 2 and str(tmp_path / named) in said and said.count("\n") == 1, said
