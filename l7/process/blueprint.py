"""What a generation of workers is made from: all that is read and checked before anything is forked."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from l4lb.errors import ConfigError
from l4lb.net.files import read_config
from l4lb.net.machine import machine_key
from l7.config.parse import parse_config
from l7.http1.rules import RULES
from l7.model import L7Config, Listener
from l7.process.counts import Ledger
from l7.process.memory import SharedMemory, provide_sessions
from l7.process.privileges import Identity, find_identity
from l7.proxy.answers import Pages, read_pages
from l7.proxy.layout import Layout
from l7.tls.backend import backend_context
from l7.tls.pem import Pem, read_pem
from l7.tls.store import TlsStore


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A configuration with what was read for it, and the memory of its counters."""

    number: int
    config: L7Config
    workers: int
    identity: Identity | None
    layout: Layout
    ledger: Ledger
    stores: dict[str, TlsStore]
    """By listener, of those that end TLS."""
    backend_contexts: dict[str, ssl.SSLContext]
    """By pool, of those that are spoken to over TLS."""
    pages: Pages
    """Read by the master, like keys: workers may not be allowed to."""
    sessions: dict[str, SharedMemory]
    """By pool, of those that remember sessions."""
    secret: bytes = field(repr=False)


def load_config(path: Path) -> L7Config:
    """The configuration in a file. Raises ConfigError."""
    return parse_config(read_config(path), str(path))


def draw(
    config: L7Config, number: int, previous: Blueprint | None, sessions: dict[str, SharedMemory]
) -> Blueprint:
    """Reads and checks everything that `config` names; nothing else is changed. Raises ConfigError.

    `sessions` is the memory of sessions that there is already.

    A listener whose TLS settings stay keeps its context, and with it the keys of its session tickets.
    """
    workers = config.workers or len(os.sched_getaffinity(0))
    layout = Layout(config, [rule.name for rule in RULES])
    return Blueprint(
        number=number,
        config=config,
        workers=workers,
        identity=find_identity(config.user, config.group),
        layout=layout,
        ledger=Ledger(number, layout.columns, layout.counters(workers)),
        stores=_stores(config, previous),
        backend_contexts={pool.name: backend_context(pool.tls) for pool in config.pools if pool.tls},
        pages=read_pages(config.error_pages),
        sessions=provide_sessions(config, sessions),
        secret=secret_of(config),
    )


def secret_of(config: L7Config) -> bytes:
    """What signs cookies and keys hashes."""
    return config.secret or machine_key(b"l7lb key", "sessions end with a restart; set l7.secret")


def read_pems(config: L7Config) -> dict[str, list[Pem]]:
    """The certificates of every listener that ends TLS. Raises ConfigError."""
    return {
        listener.name: [read_pem(certificate) for certificate in listener.tls.certificates]
        for listener in config.listeners
        if listener.tls
    }


def _stores(config: L7Config, previous: Blueprint | None) -> dict[str, TlsStore]:
    pems = read_pems(config)
    before = {one.name: one for one in previous.config.listeners} if previous else {}
    # All that is new first: what stays is changed only when nothing can go wrong any more.
    stores: dict[str, TlsStore] = {}
    staying: list[tuple[TlsStore, list[Pem]]] = []
    for listener in config.listeners:
        if listener.tls is None:
            continue
        known = before.get(listener.name)
        if previous and known and known.tls == listener.tls and not listener.tls.client_ca:
            stores[listener.name] = previous.stores[listener.name]
            staying.append((previous.stores[listener.name], pems[listener.name]))
        else:
            stores[listener.name] = TlsStore(listener.tls, pems[listener.name], _client_ca(listener))
    for store, own in staying:
        store.replace(own)
    return stores


def _client_ca(listener: Listener) -> bytes | None:
    if listener.tls is None or listener.tls.client_ca is None:
        return None
    try:
        return listener.tls.client_ca.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{listener.tls.client_ca}: cannot be read: {error.strerror}; check the path and its permissions"
        ) from error
