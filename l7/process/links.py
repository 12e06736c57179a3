"""Channels inside an event loop, and the steward's side of those to workers: what is said and asked."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from l4lb.errors import L4lbError
from l7.process.channel import Channel, ChannelClosedError, Json

_ANSWER_TIMEOUT_S = 5.0
SILENT_S = 30.0
"""A worker that has not answered for so long is hung: something keeps its event loop from turning."""


class Wire:
    """A channel that an event loop listens to. `on_message` is called with each message and its descriptors,
    `on_closed` once, when no more will come."""

    def __init__(
        self,
        channel: Channel,
        on_message: Callable[[Json, list[int]], None],
        on_closed: Callable[[str], None],
    ) -> None:
        self.channel = channel
        self._on_message = on_message
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._is_open = True
        self._loop.add_reader(channel.fileno(), self._on_readable)

    def send(self, message: Json) -> None:
        """Sends now, or when the other process reads again. Into a closed channel nothing is sent."""
        self._try(partial(self.channel.send, message))

    def begin_anew(self) -> None:
        """Ends a line that whoever had this end before may have left unfinished."""
        self._try(self.channel.begin_anew)

    def _try(self, send: Callable[[], None]) -> None:
        if not self._is_open:
            return
        try:
            send()
        except ChannelClosedError as error:
            self._end(str(error))
            return
        if self.channel.is_waiting:
            self._loop.add_writer(self.channel.fileno(), self._on_writable)

    def close(self) -> None:
        """Stops listening and closes the channel; `on_closed` is not called."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self.channel.fileno())
            self._loop.remove_writer(self.channel.fileno())
            self.channel.close()

    def _on_readable(self) -> None:
        try:
            for message, descriptors in self.channel.receive():
                self._on_message(message, descriptors)
        except ChannelClosedError as error:
            self._end(str(error))

    def _on_writable(self) -> None:
        try:
            self.channel.flush()
        except ChannelClosedError as error:
            self._end(str(error))
            return
        if not self.channel.is_waiting:
            self._loop.remove_writer(self.channel.fileno())

    def _end(self, why: str) -> None:
        if self._is_open:
            self.close()
            self._on_closed(why)


@dataclass(slots=True, eq=False)
class Link:
    """A worker, as the steward knows it."""

    generation: int
    number: int
    pid: int
    serves: bool = False
    heard_s: float = field(default_factory=time.monotonic)
    wire: Wire | None = None
    _asked: dict[int, asyncio.Future[Any]] = field(default_factory=dict)


class Links:
    """All workers, those of older generations too. `on_event` hears what a worker says of itself."""

    def __init__(self, on_event: Callable[[Link, Json], None]) -> None:
        self._on_event = on_event
        self._links: list[Link] = []
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._links))

    def of(self, generation: int) -> list[Link]:
        """The workers of one generation, by their numbers."""
        own = [link for link in self._links if link.generation == generation]
        return sorted(own, key=lambda link: link.number)

    def add(self, generation: int, number: int, pid: int, channel: Channel) -> Link:
        """Takes up a worker."""
        link = Link(generation, number, pid)

        def on_message(message: Json, _: list[int]) -> None:
            link.heard_s = time.monotonic()
            answered = link._asked.pop(message["id"], None) if "id" in message else None
            if answered is not None and not answered.done():
                answered.set_result(message.get("answer"))
            elif "event" in message:
                self._on_event(link, message)

        def on_closed(why: str) -> None:
            self._links.remove(link)
            for waiting in link._asked.values():
                if not waiting.done():
                    waiting.set_exception(L4lbError(f"worker {link.number} has ended: {why}"))
            self._on_event(link, {"event": "gone"})

        self._links.append(link)
        link.wire = Wire(channel, on_message, on_closed)
        link.wire.begin_anew()
        return link

    def tell(self, link: Link, messages: Iterable[Json]) -> None:
        """Sends messages to one worker."""
        if link.wire is not None:
            for message in messages:
                link.wire.send(message)

    def tell_all(self, generation: int, messages: Iterable[Json]) -> None:
        """Sends messages to all workers of a generation."""
        said = list(messages)
        for link in self.of(generation):
            self.tell(link, said)

    async def ask(self, link: Link, what: str, **more: Any) -> Any:
        """The worker's answer. L4lbError where there is none in time."""
        number = next(self._numbers)
        answer = asyncio.get_running_loop().create_future()
        link._asked[number] = answer
        self.tell(link, [{"do": "ask", "id": number, "what": what, **more}])
        try:
            return await asyncio.wait_for(answer, _ANSWER_TIMEOUT_S)
        except TimeoutError:
            raise L4lbError(f"worker {link.number} (process {link.pid}) did not answer") from None
        finally:
            link._asked.pop(number, None)

    def silent(self, now_s: float) -> list[Link]:
        """Workers that have said nothing for too long although they were asked."""
        return [link for link in self._links if link.serves and now_s - link.heard_s > SILENT_S]

    def close(self) -> None:
        """Closes all channels."""
        for link in self._links:
            if link.wire is not None:
                link.wire.close()
        self._links.clear()
