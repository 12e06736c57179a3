"""HTTP proxies with the same features on, each as good as its manual makes it: nginx, HAProxy and ours.

Every one has one worker (or thread) unless said otherwise, routes by host and path, hands on X-Forwarded-For,
keeps connections to the backend, and writes an access log to a file."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme

from l4lb.net.client import Client
from tests.bench import websockets
from tests.bench.usage import cpu_seconds, resident_mib
from tests.support.lab import ROOT, Host, Process, wait_for

BACKEND = "127.0.0.1:8080"
HOST = "www.example.com"
KEPT = 64
"""Connections to the backend that a proxy keeps."""
OPEN_FILES = 65_536
"""Of each process, where that is allowed: ten thousand WebSockets are twice as many. nginx is given room for
so many connections also where it is not: with a sixteenth left it closes those that have not asked yet."""
_SPARE_FILES = 200
"""Those that are no connection of a client or to a backend."""
ECHO = "127.0.0.1:8081"
"""Where `tests.bench.websockets` serves."""

_NGINX = """
worker_processes {workers};
error_log stderr crit;
pid {folder}/nginx.pid;
daemon off;
events {{ worker_connections {connections}; }}
http {{
    access_log {folder}/nginx.log combined buffer=64k flush=1s;
    keepalive_requests 1000000000;
    map $http_upgrade $to_backend {{ default upgrade; '' ''; }}
    upstream api {{ server {backend}; keepalive {kept}; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} reuseport backlog=4096;
        listen 127.0.0.1:{tls_port} ssl reuseport backlog=4096;
        server_name {host};
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};
        ssl_protocols TLSv1.2 TLSv1.3;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        location {ws} {{
            proxy_pass http://{echo};
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $to_backend;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
        {locations}
    }}
}}
"""

_HAPROXY = """
global
    nbthread {workers}
    maxconn {clients}
    log stdout format raw local0
    tune.ssl.default-dh-param 2048
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option httplog
    log global
    option forwardfor
    http-reuse always
frontend web
    bind 127.0.0.1:{port} backlog 4096
    bind 127.0.0.1:{tls_port} ssl crt {certificate} backlog 4096
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    use_backend echo if {{ path {ws} }}
    {routes}
backend api
    server b1 {backend} pool-max-conn {kept}
backend echo
    timeout tunnel 1h
    server e1 {echo}
"""

_OURS = """
l7:
  workers: {workers}
  listeners:
    - {{name: web, listen: "127.0.0.1:{port}"}}
    - name: tls
      listen: 127.0.0.1:{tls_port}
      tls: {{certificates: [{{cert: {certificate}}}]}}
  access_log: {{path: {folder}/access.log}}
  limits: {{requests_per_connection: 1000000000}}
  routes:
    - {{match: {{host: {host}, path: {{exact: {ws}}}}}, pool: echo}}
{routes}
  pools:
    api: {{backends: ["{backend}"], max_idle: {kept}}}
    echo: {{backends: ["{echo}"]}}
"""

_WEB = """
worker_processes 1;
error_log stderr crit;
pid {folder}/web.pid;
daemon off;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 120s;
    sendfile on;
    server {{
        listen {backend} backlog=4096;
        root {folder}/www;
        location = /{small} {{ default_type text/plain; return 200 "{body}"; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that serves: where, and the processes that do the work."""

    name: str
    port: int
    tls_port: int
    processes: Callable[[], Sequence[int]]
    workers: Callable[[], Sequence[int]] = tuple
    """Those that carry connections; of ours alone."""

    def cpu_s(self) -> float:
        """Processor time that it has used so far."""
        return sum(cpu_seconds(pid) for pid in self.processes())

    def resident_mib(self) -> float:
        """Memory that its processes hold."""
        return sum(resident_mib(pid) for pid in self.processes())


def certificate(folder: Path) -> Path:
    """A certificate with its key in one file, ECDSA P-256 as most sites have today."""
    issued = trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert(HOST, key_type=trustme.KeyType.ECDSA)
    path = folder / "www.pem"
    path.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    return path


def start_web(host: Host, folder: Path, sizes: dict[str, int]) -> None:
    """The nginx behind all of them; `small` is answered from its configuration, the others are files."""
    www = folder / "www"
    www.mkdir()
    for name, size in sizes.items():
        (www / name).write_bytes(b"x" * size)
    text = _WEB.format(
        folder=folder,
        backend=BACKEND,
        connections=OPEN_FILES,
        small="small",
        body="x" * 100,
    )
    _start_nginx(host, folder / "web.conf", text, 8080)


def start_echo(host: Host) -> None:
    """The WebSocket server behind all of them."""
    argv = [sys.executable, "-m", "tests.bench.websockets", "serve", ECHO.rpartition(":")[2]]
    process = host.popen(argv, log="echo.log")
    host.wait_listening(int(ECHO.rpartition(":")[2]), process=process)


def most_clients() -> int:
    """Clients that a proxy can have at once, by the open files that this process and those that it starts may
    have from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # what root may, unless it was taken from it
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, OPEN_FILES), max(hard, OPEN_FILES)))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (min(hard, OPEN_FILES) - _SPARE_FILES) // 2


def nginx(host: Host, folder: Path, certificate: Path, routes: int = 1, workers: int = 1) -> Proxy:
    """nginx with its proxy module."""
    paths = [f"location /p{i}/ {{ proxy_pass http://api; }}" for i in range(routes - 1)]
    text = _NGINX.format(
        workers=workers,
        folder=folder,
        connections=OPEN_FILES,
        backend=BACKEND,
        echo=ECHO,
        ws=websockets.PATH,
        kept=KEPT,
        host=HOST,
        port=8001,
        tls_port=8101,
        certificate=certificate,
        locations="\n        ".join([*paths, "location / { proxy_pass http://api; }"]),
    )
    process = _start_nginx(host, folder / "nginx.conf", text, 8001)
    return Proxy("nginx", 8001, 8101, lambda: _tree(process.pid))


def haproxy(host: Host, folder: Path, certificate: Path, routes: int = 1, workers: int = 1) -> Proxy:
    """HAProxy in HTTP mode."""
    paths = [f"use_backend api if {{ path_beg /p{i}/ }}" for i in range(routes - 1)]
    text = _HAPROXY.format(
        workers=workers,
        clients=most_clients(),
        backend=BACKEND,
        echo=ECHO,
        ws=websockets.PATH,
        kept=KEPT,
        port=8002,
        tls_port=8102,
        certificate=certificate,
        routes="\n    ".join([*paths, f"use_backend api if {{ hdr(host) -i {HOST} }}"]),
    )
    file = folder / "haproxy.cfg"
    file.write_text(text)
    process = host.popen(["haproxy", "-db", "-f", str(file)], log="haproxy.log")
    host.wait_listening(8002, process=process)
    return Proxy("haproxy", 8002, 8102, lambda: _tree(process.pid))


def ours(host: Host, folder: Path, certificate: Path, routes: int = 1, workers: int = 1) -> Proxy:
    """l7lb; the steward and the master count, too."""
    match = f"    - {{match: {{host: {HOST}, path: %s}}, pool: api}}"
    paths = [match % f"/p{i}/" for i in range(routes - 1)]
    port, name = (8003, "ours") if workers == 1 else (8004, f"ours-{workers}-workers")
    mine = folder / name
    mine.mkdir()
    text = _OURS.format(
        workers=workers,
        folder=mine,
        host=HOST,
        backend=BACKEND,
        echo=ECHO,
        ws=websockets.PATH,
        kept=KEPT,
        port=port,
        tls_port=port + 100,
        certificate=certificate,
        routes="\n".join([*paths, match % "/"]),
    )
    file, socket = mine / "l7lb.yaml", mine / "l7lb.sock"
    file.write_text(text)
    words = [str(ROOT / ".venv" / "bin" / "l7lb"), "--socket", str(socket), "run", "-c", str(file)]
    process = host.popen(words, log=f"{name}.log")

    def is_ready() -> bool:
        process.check_running()
        with contextlib.suppress(Exception):
            return bool(Client(socket).get("/status"))
        return False

    wait_for(is_ready, 20, "l7lb to be ready")

    def pids() -> list[int]:
        return [int(row["pid"]) for row in Client(socket).get("/status")["workers"]]

    return Proxy(name, port, port + 100, lambda: _tree(process.pid), pids)


def _start_nginx(host: Host, file: Path, text: str, port: int) -> Process:
    file.write_text(text)
    process = host.popen(["nginx", "-c", str(file), "-e", "stderr"], log=f"{file.stem}.log")
    host.wait_listening(port, process=process)
    return process


def _tree(pid: int) -> list[int]:
    """A process and all that come from it."""
    found = [pid]
    for one in found:
        with contextlib.suppress(FileNotFoundError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def serving(
    makers: Sequence[Callable[..., Proxy]], host: Host, folder: Path, pem: Path, routes: int
) -> Iterator[Proxy]:
    """Each of them, serving."""
    for make in makers:
        yield make(host, folder, pem, routes)
