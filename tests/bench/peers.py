"""The peers of the TCP benchmarks, on the gateway, each as good as its manual makes it.

Both proxies get a thread or worker for every core, as ours may use every core too; nothing is logged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from l4lb.net import nft
from tests.bench import machine
from tests.bench.errors import BenchError
from tests.support.lab import Host, Lab, Process

TABLE = "bench"
CONNECTIONS = 4096
COUNT_PATH = "/count"
"""Where nginx tells how many requests it has answered."""
_STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

_HAPROXY = """
global
    nbthread {threads}
    maxconn {connections}
    stats socket {directory}/haproxy.sock
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option tcp-smart-accept
    option tcp-smart-connect
listen web
    bind {vip}:{port}
    balance roundrobin
{servers}
"""

_STREAM = """
{module}
worker_processes {threads};
worker_rlimit_nofile 16384;
error_log stderr crit;
pid {directory}/nginx-stream.pid;
daemon off;
events {{
    worker_connections {connections};
    multi_accept on;
}}
stream {{
    access_log off;
    upstream web {{
{servers}
    }}
    server {{
        listen {vip}:80 reuseport backlog=4096;
        proxy_connect_timeout 5s;
        proxy_timeout 60s;
        proxy_pass web;
    }}
}}
"""

_WEB = """
worker_processes 1;
worker_rlimit_nofile 16384;
error_log stderr crit;
pid {pid};
daemon off;
events {{
    worker_connections {connections};
    multi_accept on;
}}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 60s;
    server {{
        listen {address}:{port} backlog=4096;
        location / {{
            default_type text/plain;
            return 200 "ok\\n";
        }}
        location = {count} {{
            stub_status;
        }}
    }}
}}
"""


def start_web(lab: Lab, port: int, address: str | None = None) -> None:
    """An nginx on every backend that answers at once, at `address` or the host's own; ended with the lab."""
    servers = []
    for host in lab.backends:
        text = _WEB.format(
            pid=lab.directory / f"{host.name}.pid",
            connections=CONNECTIONS,
            address=address or host.v4,
            port=port,
            count=COUNT_PATH,
        )
        servers.append((host, start_nginx(host, lab.directory / f"{host.name}.conf", text)))
    for host, process in servers:
        host.wait_listening(port, process=process)


def start_nginx(host: Host, file: Path, text: str) -> Process:
    """An nginx with this configuration, in the foreground."""
    file.write_text(text)
    return host.popen(["nginx", "-c", str(file), "-e", "stderr"], log=f"{file.stem}.log")


@contextlib.contextmanager
def haproxy(lab: Lab, vip: str, backends: Sequence[str], port: int = 80) -> Iterator[Process]:
    """HAProxy in TCP mode, listening."""
    with address(lab, vip):
        process = start_haproxy(lab, vip, backends, port)
        try:
            lab.gateway.wait_listening(port, process=process)
            yield process
        finally:
            process.stop()


def start_haproxy(lab: Lab, vip: str, backends: Sequence[str], port: int = 80) -> Process:
    """Starts HAProxy in TCP mode and does not wait."""
    file = lab.directory / "haproxy.cfg"
    file.write_text(
        _HAPROXY.format(
            threads=len(machine.cores()),
            connections=CONNECTIONS,
            directory=lab.directory,
            vip=vip,
            port=port,
            servers="\n".join(f"    server s{n} {backend}" for n, backend in enumerate(backends)),
        )
    )
    return lab.gateway.popen(["haproxy", "-db", "-f", str(file)], log="haproxy.log")


@contextlib.contextmanager
def nginx_stream(lab: Lab, vip: str, backends: Sequence[str]) -> Iterator[Process]:
    """nginx's stream proxy."""
    servers = "\n".join(f"        server {backend};" for backend in backends)
    module = f"load_module {_STREAM_MODULE};" if _STREAM_MODULE.exists() else ""
    text = _STREAM.format(
        module=module,
        threads=len(machine.cores()),
        connections=CONNECTIONS,
        directory=lab.directory,
        vip=vip,
        servers=servers,
    )
    with address(lab, vip):
        process = start_nginx(lab.gateway, lab.directory / "stream.conf", text)
        try:
            lab.gateway.wait_listening(80, process=process)
            yield process
        finally:
            process.stop()


@contextlib.contextmanager
def dnat(lab: Lab, vip: str, backends: Sequence[str], port: int = 80) -> Iterator[None]:
    """Connection tracking and one nftables rule."""
    choice = ", ".join(f"{n} : {b.replace(':', ' . ')}" for n, b in enumerate(backends))
    hashed = f"jhash ip saddr . tcp sport mod {len(backends)} seed 0x1"
    rule = f"ip daddr {vip} tcp dport {port} dnat ip to {hashed} map {{ {choice} }}"
    with nft_rules(lab, "type nat hook prerouting priority dstnat", rule):
        yield


@contextlib.contextmanager
def nft_rules(lab: Lab, hook: str, *rules: str, chains: Sequence[str] = ()) -> Iterator[None]:
    """Rules in one base chain of a table of its own on the gateway, beside empty `chains`."""
    script = [
        f"add table inet {TABLE}",
        *(f"add chain inet {TABLE} {chain}" for chain in chains),
        f"add chain inet {TABLE} hooked {{ {hook}; policy accept; }}",
        *(f"add rule inet {TABLE} hooked {rule}" for rule in rules),
    ]
    with lab.gateway.enter():
        nft.run_nft("\n".join(script))
    try:
        yield
    finally:
        with lab.gateway.enter():
            nft.delete_table(TABLE)


@contextlib.contextmanager
def address(lab: Lab, vip: str) -> Iterator[None]:
    """The VIP as an address of the gateway, which a proxy needs to bind it."""
    lab.gateway.run(["ip", "address", "add", f"{vip}/32", "dev", "lo"])
    try:
        yield
    finally:
        lab.gateway.run(["ip", "address", "del", f"{vip}/32", "dev", "lo"], check=False)


def need_stream_module() -> None:
    """BenchError where this nginx cannot proxy TCP."""
    if not _STREAM_MODULE.exists():
        raise BenchError("nginx has no stream module: run ./scripts/setup --bench")
