"""Certificates: which there are, when they expire, and whether their files have changed.

The files are only looked at here (stat), for a steward need not be allowed to read keys; the master reads
them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from l4lb.net.logs import log
from l7.process.blueprint import Blueprint
from l7.process.channel import Json
from l7.tls.pem import Pem

_LOOK_EVERY_S = 2.0
_WARN_EVERY_S = 86_400.0
_WARN_DAYS = 14
_DAY_S = 86_400

Stamp = tuple[int, int, int]
PackedPems = dict[str, list[list[str]]]


class Certificates:
    """The certificates of all listeners. `on_change` is called when files have changed and rest again."""

    def __init__(self, blueprint: Blueprint, on_change: Callable[[], None]) -> None:
        self._blueprint = blueprint
        self._on_change = on_change
        self._unwatched: set[Path] = set()
        self._warned_s = float("-inf")

    async def run(self) -> None:
        """Looks at the files now and then, until it is cancelled."""
        seen = self._stamps()
        before = seen
        while True:
            self._warn()
            await asyncio.sleep(_LOOK_EVERY_S)
            now = self._stamps()
            # Twice the same: a renewal writes several files, one after the other.
            if now != seen and now == before:
                seen = now
                log("files of certificates have changed")
                self._on_change()
            before = now

    def rows(self) -> Iterator[Json]:
        """A row for each certificate of each listener."""
        now_s = time.time()
        for listener, store in self._blueprint.stores.items():
            for one in store.descriptions:
                yield {
                    "listener": listener,
                    "names": list(one.names),
                    "expires": datetime.fromtimestamp(one.not_after_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "expires_s": int(one.not_after_s),
                    "days": int((one.not_after_s - now_s) // _DAY_S),
                    "file": one.file,
                    "fingerprint": one.fingerprint,
                    "subject": one.subject,
                    "issuer": one.issuer,
                    "key_type": one.key_type,
                }

    def _warn(self) -> None:
        """Says once a day what is about to expire."""
        if time.monotonic() < self._warned_s + _WARN_EVERY_S:
            return
        self._warned_s = time.monotonic()
        for row in self.rows():
            if row["days"] < _WARN_DAYS:
                words = {"file": row["file"], "expires": row["expires"], "listener": row["listener"]}
                log("certificate expires", level=logging.WARNING, **words)

    def _files(self) -> Iterator[Path]:
        for listener in self._blueprint.config.listeners:
            for certificate in listener.tls.certificates if listener.tls else ():
                yield certificate.cert
                if certificate.key is not None:
                    yield certificate.key

    def _stamps(self) -> dict[Path, Stamp]:
        stamps = {}
        for path in self._files():
            try:
                found = path.stat()
            except PermissionError:
                if path not in self._unwatched:
                    self._unwatched.add(path)
                    log(
                        "file cannot be watched; `l7lb reload` reads it anew",
                        level=logging.WARNING,
                        file=path,
                    )
            except OSError:
                continue  # being replaced, or gone: the one that is served stays
            else:
                stamps[path] = found.st_mtime_ns, found.st_size, found.st_ino
        return stamps


def pack_pems(pems: dict[str, list[Pem]]) -> PackedPems:
    """The certificates of all listeners for a message: chain and key of each."""
    return {name: [[pem.chain.decode(), pem.key.decode()] for pem in own] for name, own in pems.items()}


def replace_certificates(blueprint: Blueprint, packed: PackedPems) -> None:
    """Serves what the master has read, from the next handshake on. The settings are this process's own."""
    for listener in blueprint.config.listeners:
        if listener.tls is not None:
            pems = [
                Pem(settings, chain.encode(), key.encode())
                for settings, (chain, key) in zip(
                    listener.tls.certificates, packed[listener.name], strict=True
                )
            ]
            blueprint.stores[listener.name].replace(pems)
