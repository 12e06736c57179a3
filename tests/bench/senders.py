"""The programs in C that send packets: compiled when needed, run in the client's namespace."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import machine
from tests.bench.errors import BenchError
from tests.support.lab import ROOT, Host

_SOURCES = Path(__file__).parent
_PROGRAMS = ROOT / "build" / "bench"
_END_TIMEOUT_S = 10.0


def build(name: str, *, static: bool = False) -> Path:
    """The program of `NAME.c`, compiled if it or the header that all share is newer.

    `static` for a machine with other libraries."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise BenchError("no C compiler: run ./scripts/setup")
    program, source = _PROGRAMS / (f"{name}-static" if static else name), _SOURCES / f"{name}.c"
    newest = max(file.stat().st_mtime for file in (source, _SOURCES / "pace.h"))
    if not program.exists() or program.stat().st_mtime < newest:
        program.parent.mkdir(parents=True, exist_ok=True)
        options = ["-O2", "-Wall", *(["-static"] if static else [])]
        command = [compiler, *options, "-o", str(program), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise BenchError(f"{source.name} does not compile: {done.stderr.strip()}")
    return program


def pin(place: int) -> list[str]:
    """The words that keep a command on one core: the sender's is place 0, a lone worker's place 1."""
    available = machine.cores()
    return ["taskset", "-c", str(available[place % len(available)])]


class Sender:
    """A sender that runs. It says when it begins and, at its end, how much it sent in which time."""

    def __init__(self, host: Host, argv: Sequence[str]) -> None:
        self._process = host.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def wait_begin(self) -> None:
        """Returns when the warm-up is over."""
        self._line()

    def wait_end(self) -> tuple[int, float]:
        """Packets that were sent since the beginning, and in how many seconds; at once when it says so."""
        _, sent, seconds = self._line().split()
        return int(sent), float(seconds)

    def check(self) -> None:
        """Waits until it has ended; BenchError with what it said where it failed."""
        if self._process.wait(_END_TIMEOUT_S):
            assert self._process.stderr is not None
            raise BenchError(f"the sender failed: {self._process.stderr.read().strip()}")

    def terminate(self) -> None:
        """Asks it to end now; it then says what it sent so far, if it is one that does."""
        self._process.terminate()

    def stop(self) -> None:
        """Ends it whatever it does."""
        self._process.stop()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line: str = self._process.stdout.readline()
        if not line:
            self.check()
            raise BenchError("the sender ended before it said what it did")
        return line


@contextlib.contextmanager
def sending(host: Host, argv: Sequence[str]) -> Iterator[Sender]:
    """A sender on `host` and on the first core, ended in any case."""
    sender = Sender(host, [*pin(0), *argv])
    try:
        yield sender
        sender.check()
    finally:
        sender.stop()
