"""Tells systemd how the daemon is: sd_notify(3), without its library. Nothing happens under another
supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time

_WATCHDOG_SHARE = 3
"""How often the watchdog is answered within its time."""


def notify(**words: str | int) -> None:
    """Sends `WORD=value` lines, such as READY=1 or STATUS=text. What cannot be sent is not sent."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    message = "\n".join(f"{word}={value}" for word, value in words.items()).encode()
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.send(message)


def notify_reloading() -> None:
    """A reload begins; READY=1 ends it. systemd wants to know when (Type=notify-reload)."""
    notify(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)


def watchdog_interval_s() -> float | None:
    """How often the watchdog is to be answered, or None where there is none."""
    wanted = os.environ.get("WATCHDOG_USEC", "")
    if not wanted.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(wanted) / 1_000_000 / _WATCHDOG_SHARE


async def feed_watchdog() -> None:
    """Answers the watchdog for as long as the event loop turns; returns at once where there is none."""
    interval_s = watchdog_interval_s()
    while interval_s is not None:
        notify(WATCHDOG=1)
        await asyncio.sleep(interval_s)
