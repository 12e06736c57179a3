"""The HTTP proxy beside nginx and HAProxy: requests a second, processor time a request, latency, memory.

Client, proxy and backend share the machine's cores on every side alike; all of it is on one loopback.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.bench import http_proxies, quota
from tests.bench.errors import BenchError
from tests.bench.http_proxies import HOST, Proxy
from tests.bench.report import Better, Measure, Target
from tests.bench.runner import Sample, Series, Settings, alternate, progress
from tests.support.lab import Host, Lab, unique_prefix

ABOUT = "HTTP proxying beside nginx and HAProxy with the same features: rate, CPU a request, latency, memory"
PROGRAMS = ("haproxy", "nginx", "wrk")
DEFAULTS = Settings(runs=5, seconds=3.0)
QUICK = Settings(runs=1, seconds=1.0, quick=True)
NEEDS_LAB = True

NGINX, HAPROXY, OURS = "nginx", "haproxy", "ours"
ONE, TWO = "one-worker", "two-workers"
SIZES = {"10K": 10 << 10, "1M": 1 << 20}
IDLE = 1000
WEBSOCKETS, WEBSOCKETS_QUICK = 10_000, 1000
WORKER_SHARE = 0.15
"""Of a core, which each worker has where one is compared with two."""
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked for, and how. `connections` at once; `close`: each on one of its own."""

    name: str
    path: str = "/small"
    connections: int = 64
    tls: bool = False
    close: bool = False
    rate: Target | None = None
    cpu: Target | None = None
    latency: Target | None = None


CASES = (
    Case(
        "keep-alive",
        rate=Target(0.7, of=NGINX),
        cpu=Target(1.5, of=NGINX, sense="at_most"),
    ),
    Case("keep-alive-1-connection", connections=1, latency=Target(1.5, of=NGINX, sense="at_most")),
    Case("keep-alive-10K", path="/10K"),
    Case("keep-alive-1M", path="/1M", connections=16),
    Case("new-connections", close=True),
    Case("https-keep-alive", tls=True, cpu=Target(2.0, of=NGINX, sense="at_most")),
    Case("https-handshakes", tls=True, close=True, connections=32),
)


def run(settings: Settings) -> list[Measure]:
    """All cases with one route, keep-alive with a hundred, two workers by one, and memory."""
    with Lab(unique_prefix("bench"), backends=1) as lab:
        host, folder = lab.gateway, lab.directory
        progress("bench: setting up\n")
        pem = http_proxies.certificate(folder)
        http_proxies.start_web(host, folder, SIZES)
        makers = (http_proxies.nginx, http_proxies.haproxy, http_proxies.ours)
        proxies = {proxy.name: proxy for proxy in http_proxies.serving(makers, host, folder, pem, 1)}
        two = http_proxies.ours(host, folder, pem, workers=2)
        direct = Proxy("direct", 8080, 0, tuple)
        measures = []
        for case in CASES:
            measures += _measures(case, _measure(host, proxies, direct, case, settings))
        measures += _two_workers(host, proxies[OURS], two, settings)
        measures += _memory(host, proxies, settings)
    with Lab(unique_prefix("bench"), backends=1) as lab:
        host, folder = lab.gateway, lab.directory
        pem = http_proxies.certificate(folder)
        http_proxies.start_web(host, folder, SIZES)
        proxies = {proxy.name: proxy for proxy in http_proxies.serving(makers, host, folder, pem, 100)}
        # Here, where no connection has left memory behind that others could use again.
        http_proxies.start_echo(host)
        measures += _websockets(host, proxies, settings)
        case = Case("100-routes", path="/small")
        measures += _measures(case, _measure(host, proxies, direct, case, settings))
    return measures


def _measure(
    host: Host, proxies: Mapping[str, Proxy], direct: Proxy, case: Case, settings: Settings
) -> dict[str, dict[str, Series]]:
    """Every proxy in turns; with one connection the backend alone, too, whose latency is not the proxies'."""
    ways: dict[str, Callable[[], Sample]] = {
        name: _way(host, proxy, case, settings.seconds) for name, proxy in proxies.items()
    }
    if case.latency:
        ways["direct"] = _way(host, direct, case, settings.seconds)
    return alternate(ways, settings.runs, f"{case.name},")


def _way(host: Host, proxy: Proxy, case: Case, seconds: float) -> Callable[[], Sample]:
    def measure() -> Sample:
        before = proxy.cpu_s()
        sample, requests = _wrk(host, proxy, case, seconds)
        sample["cpu_us"] = (proxy.cpu_s() - before) / requests * 1e6
        return sample

    return measure


def _wrk(host: Host, proxy: Proxy, case: Case, seconds: float) -> tuple[dict[str, float], float]:
    scheme, port = ("https", proxy.tls_port) if case.tls else ("http", proxy.port)
    header = ["-H", "Connection: close"] if case.close else []
    said = host.run(
        [
            *("wrk", "-t1", f"-c{case.connections}", f"-d{max(1, round(seconds))}s", "--latency"),
            *("-H", f"Host: {HOST}", *header, f"{scheme}://127.0.0.1:{port}{case.path}"),
        ],
        timeout=seconds + 30,
    ).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    count = re.search(r"(\d+) requests in", said)
    median = re.search(r"50%\s+([\d.]+)(us|ms|s)", said)
    if not (rate and count and median) or "Non-2xx" in said or not int(count[1]):
        raise BenchError(f"wrk through {proxy.name} gave no figure: {' '.join(said.split())}")
    scale = {"us": 1.0, "ms": 1e3, "s": 1e6}[median[2]]
    return {"per_s": float(rate[1]), "latency_us": float(median[1]) * scale}, float(count[1])


def _measures(case: Case, found: Mapping[str, Mapping[str, Series]]) -> list[Measure]:
    measures = [
        _beside(f"requests_per_s/{case.name}", "requests/s", "more", found["per_s"], case.rate),
        _beside(f"cpu_us_per_request/{case.name}", "µs of CPU a request", "less", found["cpu_us"], case.cpu),
    ]
    if case.latency:
        direct = found["latency_us"]["direct"]
        added = {
            name: Series(tuple(max(a - b, 0.1) for a, b in zip(series.values, direct.values, strict=True)))
            for name, series in found["latency_us"].items()
        }
        measures.append(_beside("added_latency_us/1-connection", "µs, median", "less", added, case.latency))
    return measures


def _beside(
    name: str, unit: str, better: Better, found: Mapping[str, Series], target: Target | None
) -> Measure:
    peers = {peer: found[peer] for peer in (NGINX, HAPROXY)}
    return Measure(name, unit, better, found[OURS], peers, _targets(target))


def _targets(target: Target | None) -> tuple[Target, ...]:
    return (target,) if target else ()


def _two_workers(host: Host, one: Proxy, two: Proxy, settings: Settings) -> list[Measure]:
    """Two workers by one, each held to a part of a core: else wrk and the backend want what the second worker
    needs, and the machine is measured."""
    if not quota.is_possible():
        progress("bench: two workers are not compared: there are no control groups with a quota\n")
        return []
    case = Case("two-workers", rate=Target(1.7, of=ONE))
    sides = {TWO: two, ONE: one}
    ways = {name: _way(host, proxy, case, settings.seconds) for name, proxy in sides.items()}
    with quota.limited([pid for proxy in sides.values() for pid in proxy.workers()], WORKER_SHARE):
        rates = alternate(ways, settings.runs, f"{case.name},")["per_s"]
    name = f"requests_per_s/{case.name}, each {WORKER_SHARE:.0%} of a core"
    return [Measure(name, "requests/s", "more", rates[TWO], {ONE: rates[ONE]}, _targets(case.rate))]


def _memory(host: Host, proxies: Mapping[str, Proxy], settings: Settings) -> list[Measure]:
    idle = {name: _series(_idle_kib(host, proxy)) for name, proxy in proxies.items()}
    measures = [
        _beside("idle_connection_kib", "KiB a connection", "less", idle, Target(20, sense="at_most")),
    ]
    if settings.quick:
        return measures
    grown = {name: _series(_grown_mib(host, proxy)) for name, proxy in proxies.items()}
    return [
        *measures,
        _beside("grown_mib_per_million_requests", "MiB", "less", grown, Target(2, sense="at_most")),
    ]


def _websockets(host: Host, proxies: Mapping[str, Proxy], settings: Settings) -> list[Measure]:
    """Memory of a WebSocket that says nothing, of many through one worker; then each has to echo."""
    count = min(WEBSOCKETS_QUICK if settings.quick else WEBSOCKETS, http_proxies.most_clients())
    kib, per_s = {}, {}
    for name, proxy in proxies.items():
        progress(f"bench: {count} WebSockets through {name}\n")
        before = proxy.resident_mib()
        argv = [sys.executable, "-m", "tests.bench.websockets", "open", str(proxy.port), str(count)]
        process = host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None and process.stdout is not None
        try:
            took_s = process.stdout.readline()
            if not took_s:
                raise BenchError(f"{name}: {count} WebSockets could not be opened")
            kib[name] = _series((proxy.resident_mib() - before) * 1024 / count)
            process.stdin.write("echo\n")
            process.stdin.flush()
            echoed = process.stdout.readline()
        finally:
            process.stop()
        if echoed != f"{count}\n":
            raise BenchError(f"{name}: {echoed.strip() or 'none'} of {count} WebSockets echoed")
        per_s[name] = _series(count / float(took_s))
    return [
        _beside(f"idle_websocket_kib/{count}", "KiB a connection", "less", kib, Target(20, sense="at_most")),
        _beside(f"websockets_opened_per_s/{count}", "connections/s", "more", per_s, None),
    ]


def _series(value: float) -> Series:
    return Series((value,))


def _idle_kib(host: Host, proxy: Proxy) -> float:
    """Memory of a connection that asked once and stays."""
    with contextlib.ExitStack() as stack:
        _ask_on_many(host, proxy, stack, 50)  # what is made once is no connection's
        before = proxy.resident_mib()
        _ask_on_many(host, proxy, stack, IDLE)
        return (proxy.resident_mib() - before) * 1024 / IDLE


def _ask_on_many(host: Host, proxy: Proxy, stack: contextlib.ExitStack, count: int) -> None:
    with host.enter():
        made = [
            stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port))) for _ in range(count)
        ]
    for one in made:
        one.sendall(f"GET /small HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    for one in made:
        one.settimeout(10)
        if not one.recv(4096).startswith(b"HTTP/1.1 200"):
            raise BenchError(f"{proxy.name} did not answer on one of {count} connections")


def _grown_mib(host: Host, proxy: Proxy) -> float:
    """Growth of memory over a million requests, after a first hundred thousand."""
    case = Case("memory")
    done = 0.0
    while done < MILLION / 10:
        done += _wrk(host, proxy, case, 3)[1]
    before = proxy.resident_mib()
    done = 0.0
    while done < MILLION:
        done += _wrk(host, proxy, case, 10)[1]
    return proxy.resident_mib() - before
