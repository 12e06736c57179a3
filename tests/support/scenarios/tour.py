"""A scenario that goes from one sight to the next, and starts and asks for itself what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from l4lb.errors import NoDaemonError
from tests.support import servers
from tests.support.lab import Host, wait_for
from tests.support.proxy import PROGRAM, READY_TIMEOUT_S, Proxy
from tests.support.scenarios.base import BackendResult, Result, Stage
from tests.support.scenarios.browser import Answer
from tests.support.scenarios.scenario import Load, Scenario
from tests.support.servers import Server


@dataclass(frozen=True)
class Tour(Scenario):
    """`tell` is all of it; it has four backends, two of which may be proxies."""

    loads: tuple[Load, ...] = ()
    backends: int = 4
    tell: Callable[[Stage, Result], None] = field(kw_only=True)


def start_web(stage: Stage, names: list[str]) -> dict[str, Server]:
    """HTTP servers on these hosts, ready."""
    started = {name: servers.start_http(stage.lab.host(name)) for name in names}
    for server in started.values():
        server.wait_ready()
    return started


def start_proxy(host: Host, config: Path, name: str) -> Proxy:
    """`l7lb run` on a host; it serves when this returns."""
    socket = host.directory / f"{name}.sock"
    process = host.popen([PROGRAM, "--socket", socket, "run", "-c", config], log=f"{name}.log")
    proxy = Proxy(process, host.directory / f"{name}.log", config, socket)

    def ready() -> bool:
        proxy.check_running()
        try:
            return bool(proxy.status()["ready"])
        except NoDaemonError:
            return False

    wait_for(ready, READY_TIMEOUT_S, f"`l7lb run` on {host.name} to be ready")
    return proxy


def write_config(source: Path, target: Path, certificate: Path, key: Path) -> None:
    """Copies a configuration, with this certificate in every listener that ends TLS."""
    config: dict[str, Any] = yaml.safe_load(source.read_text())
    for listener in config["l7"]["listeners"]:
        if "tls" in listener:
            listener["tls"]["certificates"] = [{"cert": str(certificate), "key": str(key)}]
    target.write_text(yaml.safe_dump(config, sort_keys=False))


def count_answer(result: Result, answer: Answer | None) -> None:
    """Notes a request and who answered it; None is one without an answer."""
    result.requests += 1
    if answer is None or answer.status >= 500:
        result.failed += 1
    elif answer.server in result.backends:
        result.backends[answer.server].requests += 1
        result.backends[answer.server].bytes += len(answer.body)


def know_backends(result: Result, web: dict[str, Server]) -> None:
    """Every server has its row from the beginning."""
    for name, server in web.items():
        result.backends[name] = BackendResult(f"{server.host.v4}:{server.port}", 1)


def wait_state(proxy: Proxy, pool: str, backend: str, state: str, timeout: float) -> dict[str, Any]:
    """Waits until a backend is in a state, and returns its row. LabError when it takes too long."""

    def row() -> dict[str, Any] | None:
        rows = proxy.client.rows("/backends")
        return next(
            (r for r in rows if (r["pool"], r["backend"], r["state"]) == (pool, backend, state)), None
        )

    return wait_for(row, timeout, f"{backend} of {pool} to be {state}")
