"""Messages between the processes: one JSON object a line, over a socket pair.

Nothing here waits, so that the master can use it beside `poll` and the others inside an event loop: `send`
keeps what the socket does not take yet, `flush` goes on with it, `receive` gives what has come in whole. A
message may carry descriptors (SCM_RIGHTS, unix(7)); they belong to whoever receives it.

A process that is killed in the middle of a message leaves half a line. Whoever takes its place begins with an
empty line, and what is not a whole object is left out by the reader.
"""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

LARGEST_LINE = 16 << 20
"""Bytes of one message: a state of 100,000 backends has room."""
MOST_WAITING = 64 << 20
"""Bytes that wait for a process that does not read."""
_MOST_DESCRIPTORS = 16
_READ = 1 << 18


class ChannelClosedError(Exception):
    """The other process is gone, or does not read or write as agreed."""


class Channel:
    """One end. Both ends are made by `make_pair`, before the fork."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._out: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._out_size = 0
        self._in = bytearray()
        self._searched = 0
        """Bytes of `_in` that are known to hold no end of a line."""
        self._descriptors: deque[int] = deque()

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self.sock.fileno()

    @property
    def is_waiting(self) -> bool:
        """Whether something waits to be taken by the socket: `flush` when it is writable."""
        return bool(self._out)

    def send(self, message: Json, descriptors: Sequence[int] = ()) -> None:
        """Sends a message, or keeps it until `flush`. The descriptors are duplicated, the caller's stay open.

        ChannelClosedError where the other end is gone, or has not read for too long.
        """
        if descriptors:
            message = {**message, "descriptors": len(descriptors)}
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self._keep(line, tuple(os.dup(descriptor) for descriptor in descriptors))
        self.flush()

    def begin_anew(self) -> None:
        """Ends a line that whoever had this end before may have left unfinished."""
        self._keep(b"\n", ())
        self.flush()

    def flush(self) -> None:
        """Gives the socket as much as it takes now."""
        while self._out:
            data, descriptors = self._out[0]
            try:
                sent = socket.send_fds(self.sock, [data], descriptors)
            except BlockingIOError:
                return
            except OSError as error:
                raise ChannelClosedError(str(error)) from error
            for descriptor in descriptors:
                os.close(descriptor)
            self._out_size -= sent
            if sent == len(data):
                self._out.popleft()
            else:
                self._out[0] = (data[sent:], ())

    def receive(self) -> list[tuple[Json, list[int]]]:
        """The messages that have come in, each with its descriptors; ChannelClosedError if no more will."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self.sock, _READ, _MOST_DESCRIPTORS)
        except BlockingIOError:
            return []
        except OSError as error:
            raise ChannelClosedError(str(error)) from error
        self._descriptors.extend(descriptors)
        if not data:
            raise ChannelClosedError("closed by the other process")
        self._in += data
        messages = []
        while (end := self._in.find(b"\n", self._searched)) >= 0:
            message = _parse(bytes(self._in[:end]))
            del self._in[: end + 1]
            self._searched = 0
            if message is not None:
                count = min(message.pop("descriptors", 0), len(self._descriptors))
                messages.append((message, [self._descriptors.popleft() for _ in range(count)]))
        self._searched = len(self._in)
        if self._searched > LARGEST_LINE:
            raise ChannelClosedError(f"a message of more than {LARGEST_LINE >> 20} MiB")
        return messages

    def close(self) -> None:
        """Closes this end, and what was not sent or taken."""
        for _, descriptors in self._out:
            for descriptor in descriptors:
                os.close(descriptor)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._out.clear()
        self._descriptors.clear()
        self.sock.close()

    def _keep(self, line: bytes, descriptors: tuple[int, ...]) -> None:
        self._out.append((line, descriptors))
        self._out_size += len(line)
        if self._out_size > MOST_WAITING:
            raise ChannelClosedError(f"{self._out_size >> 20} MiB wait for a process that does not read")


def make_pair() -> tuple[Channel, Channel]:
    """Both ends of a new channel; each belongs into one process."""
    ours, theirs = socket.socketpair()
    return Channel(ours), Channel(theirs)


def _parse(line: bytes) -> Json | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
