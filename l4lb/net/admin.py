"""The admin socket: HTTP and JSON over a Unix socket.

A thin layer: each route calls a method of `Backend`, whose answers are plain dictionaries. Lists are sent
one object a line (application/x-ndjson) as they are made, so that a million flows need no memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol

from aiohttp import web

from l4lb.net.adminsite import Json, listen_locally, make_app, read_body, send_rows, serve
from l4lb.net.client import TOTAL
from l4lb.net.metrics import metrics_response
from l4lb.net.questions import unpack_packets


class Page(Protocol):
    """Some of many rows."""

    @property
    def rows(self) -> Iterable[Json]:
        """Those of the page."""

    @property
    def matched(self) -> int:
        """How many there are in all."""


class Backend(Protocol):
    """What the daemon answers."""

    def status(self) -> Json:
        """The daemon's state and totals."""

    def services(self) -> Iterable[Json]:
        """A row for each service."""

    def backends(self) -> Iterable[Json]:
        """A row for each backend of each service."""

    async def flows(self, query: dict[str, str]) -> Page:
        """A row for each flow of a page."""

    async def flow_count(self, filters: dict[str, str]) -> Json:
        """How many flows there are, or how many the filters let through."""

    def explain(self, client: str, service: str) -> Json:
        """Where a packet from `client` to `service` would go, and why."""

    async def reload(self, *, dry_run: bool = False) -> Json:
        """Reads the configuration again, or only says what would change."""

    async def change_backend(self, action: str, wish: Json) -> Json:
        """Drains, enables, disables, weighs, adds or removes a backend."""

    async def flush_flows(self, service: str, backend: str | None) -> Json:
        """Forgets the flows of a service, or of one of its backends."""

    def metrics(self) -> str:
        """One scrape in the text format of Prometheus."""

    def decisions(self, packets: list[bytes]) -> list[Json]:
        """What is decided of each of these packets; nothing is changed or counted."""


class AdminServer:
    """Serves a `Backend` on a Unix socket that only its owner and group may use."""

    def __init__(self, backend: Backend, path: Path) -> None:
        self._backend = backend
        self._path = path
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listens. L4lbError where the socket cannot be made."""
        app = make_app()
        get: list[tuple[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]] = [
            ("/status", self._status),
            ("/services", self._services),
            ("/backends", self._backends),
            ("/flows", self._flows),
            ("/flows/count", self._flow_count),
            ("/explain", self._explain),
            ("/metrics", self._metrics),
        ]
        app.add_routes([web.get(path, handler) for path, handler in get])
        post: list[tuple[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]] = [
            ("/reload", self._reload),
            ("/backends/{action}", self._change_backend),
            ("/flows/flush", self._flush_flows),
            ("/decisions", self._decisions),
        ]
        app.add_routes([web.post(path, handler) for path, handler in post])
        self._runner = await serve(app, listen_locally(self._path))

    async def stop(self) -> None:
        """Ends what is being answered and removes the socket."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._path.unlink(missing_ok=True)

    async def _status(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self._backend.status())

    async def _services(self, request: web.Request) -> web.StreamResponse:
        return await send_rows(request, self._backend.services())

    async def _backends(self, request: web.Request) -> web.StreamResponse:
        return await send_rows(request, self._backend.backends())

    async def _flows(self, request: web.Request) -> web.StreamResponse:
        page = await self._backend.flows(dict(request.query))
        return await send_rows(request, page.rows, {TOTAL: str(page.matched)})

    async def _flow_count(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._backend.flow_count(dict(request.query)))

    async def _explain(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        return web.json_response(self._backend.explain(query.get("client", ""), query.get("service", "")))

    async def _reload(self, request: web.Request) -> web.StreamResponse:
        dry_run = bool((await read_body(request)).get("dry_run"))
        return web.json_response(await self._backend.reload(dry_run=dry_run))

    async def _change_backend(self, request: web.Request) -> web.StreamResponse:
        wish = await read_body(request)
        return web.json_response(await self._backend.change_backend(request.match_info["action"], wish))

    async def _flush_flows(self, request: web.Request) -> web.StreamResponse:
        wish = await read_body(request)
        service = str(wish.get("service", ""))
        return web.json_response(await self._backend.flush_flows(service, wish.get("backend")))

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        return metrics_response(self._backend.metrics())

    async def _decisions(self, request: web.Request) -> web.StreamResponse:
        packets = unpack_packets(await read_body(request))
        return web.json_response({"decisions": self._backend.decisions(packets)})
