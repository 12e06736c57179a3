"""A WebSocket server that answers every message with its name and the message, for tests and the demo.

Whoever asks for a page gets the name alone.

python -m tests.support.websocket_echo --name b1 --port 8080
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response


async def run(name: str, bind: str | None, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(f"{name}: {message!s}")

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        is_page = "Upgrade" not in request.headers
        return connection.respond(HTTPStatus.OK, f"{name}\n") if is_page else None

    async with serve(echo, bind, port, process_request=answer):
        await stopped.wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="WebSocket server that answers with its name")
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--bind", help="address; all addresses of both families if not given")
    args = parser.parse_args()
    asyncio.run(run(args.name, args.bind, args.port))


if __name__ == "__main__":
    main()
