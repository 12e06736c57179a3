"""The admin socket's routes: each calls a method of what answers, whose answers are plain dictionaries."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from aiohttp import web

from l4lb.net.adminsite import Json, make_app, read_body, send_rows, serve
from l4lb.net.metrics import metrics_response

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Answering(Protocol):
    """What the steward answers."""

    async def status(self) -> Json:
        """The daemon's state and totals."""

    def backends(self) -> Iterable[Json]:
        """A row for each backend of each pool."""

    def routes(self) -> Iterable[Json]:
        """A row for each route."""

    def certificates(self) -> Iterable[Json]:
        """A row for each certificate of each listener."""

    def metrics(self) -> str:
        """One scrape in the text format of Prometheus."""

    def explain(self, wish: Json) -> Json:
        """Which route and backend a request would get, and why."""

    async def reload(self, *, dry_run: bool) -> Json:
        """Has the master read the configuration again."""

    async def change_backend(self, action: str, wish: Json) -> Json:
        """Drains, enables, disables, weighs, adds or removes a backend."""


async def serve_admin(answering: Answering, sock: socket.socket) -> web.AppRunner:
    """Serves on a listening socket until the runner that is returned is cleaned up."""

    async def status(_: web.Request) -> web.StreamResponse:
        return web.json_response(await answering.status())

    async def metrics(_: web.Request) -> web.StreamResponse:
        return metrics_response(answering.metrics())

    async def explain(request: web.Request) -> web.StreamResponse:
        return web.json_response(answering.explain(await read_body(request)))

    async def reload(request: web.Request) -> web.StreamResponse:
        dry_run = bool((await read_body(request)).get("dry_run"))
        return web.json_response(await answering.reload(dry_run=dry_run))

    async def change_backend(request: web.Request) -> web.StreamResponse:
        wish = await read_body(request)
        return web.json_response(await answering.change_backend(request.match_info["action"], wish))

    def rows(make: Callable[[], Iterable[Json]]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await send_rows(request, make())

        return answer

    app = make_app()
    app.add_routes(
        [
            web.get("/status", status),
            web.get("/backends", rows(answering.backends)),
            web.get("/routes", rows(answering.routes)),
            web.get("/certificates", rows(answering.certificates)),
            web.get("/metrics", metrics),
            web.post("/explain", explain),
            web.post("/reload", reload),
            web.post("/backends/{action}", change_backend),
        ]
    )
    return await serve(app, sock)


async def serve_metrics(metrics: Callable[[], str], sock: socket.socket) -> web.AppRunner:
    """Serves `GET /metrics` alone on a TCP socket."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return metrics_response(metrics())

    app = web.Application()
    app.add_routes([web.get("/metrics", answer)])
    return await serve(app, sock)
