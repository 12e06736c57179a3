"""Long steps: said when they begin, shown to go on, explained when they fail."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]
WORK = ROOT / "build" / "vm"
LOG = WORK / "vm-lab.log"
_LOCK = Path("/run/l4lb-vm-lab.lock")
_TICK_S = 15.0
_TAIL = 30


class VmLabError(Exception):
    """A step failed: one line that says what, why and what to do."""


def say(message: str) -> None:
    """A line for the person who waits."""
    print(f"vm-lab: {message}", file=sys.stderr, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Says what is done, every now and then that it still is, and how long it took."""
    say(what)
    start_s = time.monotonic()
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(_TICK_S):
            say(f"{what}: still working, {time.monotonic() - start_s:.0f} s")

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        ended.set()
        ticker.join()
    say(f"{what}: {time.monotonic() - start_s:.0f} s")


@contextmanager
def alone() -> Iterator[None]:
    """Keeps a second vm-lab away while this one works, also that of another checkout: the machines and their
    networks are the host's. VmLabError where one works already."""
    with _LOCK.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise VmLabError(
                f"another vm-lab is at work (process {file.read().strip()}); wait until it ends, or end it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def run(
    words: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path = ROOT, check: bool = True
) -> int:
    """Runs a program with its output in the log; its exit code. VmLabError, with the end of the log, if it
    fails."""
    WORK.mkdir(parents=True, exist_ok=True)
    with LOG.open("ab") as log:
        log.write(f"\n=== {' '.join(map(str, words))}\n".encode())
        log.flush()
        begin = log.tell()
        ended = subprocess.run(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
    if check and ended.returncode:
        with LOG.open("rb") as log:
            log.seek(begin)
            tail = log.read().decode(errors="replace").splitlines()[-_TAIL:]
        print("\n".join(tail), file=sys.stderr)
        raise VmLabError(f"{words[0]} ended with {ended.returncode}; its end is above, all of it in {LOG}")
    return ended.returncode
