"""Forking a child, and what the master remembers of it."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from l4lb.net.logs import log
from l7.process.channel import Channel
from l7.process.privileges import Identity, become, end_with_parent

_TO_DEFAULT = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
CAUGHT = (*_TO_DEFAULT, *_IGNORED)
"""Signals that one of the processes listens to."""


class Closable(Protocol):
    """Something with a descriptor."""

    def close(self) -> None:
        """Closes it."""


@dataclass(slots=True, eq=False)
class Child:
    """A worker or a steward. `channel` is the master's end of a steward's channel, or the steward's end of a
    worker's, which the master keeps for the next steward."""

    pid: int
    channel: Channel
    began_s: float
    number: int = 0
    failures: int = 0
    """How often the one in this place died soon after it began, in a row."""
    is_lost: bool = False
    """Nothing more is to be heard from it."""


def fork_child(
    run: Callable[[], int], name: str, identity: Identity | None, not_its_own: Iterable[Closable]
) -> int:
    """Runs `run` in a new process, with its exit code; the process's id.

    The child closes what is not its own. The signals of `CAUGHT` stay blocked in it until it calls
    `unblock_signals`, so that none is lost before it has handlers.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
    parent = os.getpid()
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _TO_DEFAULT:
            signal.signal(number, signal.SIG_DFL)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        for closable in not_its_own:
            closable.close()
        become(identity)
        end_with_parent(parent)
        code = run()
    except BaseException:
        log(f"{name} failed", level=logging.ERROR, pid=os.getpid())
        logging.getLogger("l4lb").exception("traceback")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not by sys.exit: the frames below belong to the master.
        os._exit(code)


def unblock_signals() -> None:
    """Lets signals in, now that there are handlers."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)


def describe_end(status: int) -> str:
    """How a process ended, from waitpid's status: `exit code 1`, `killed by SIGKILL`."""
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
