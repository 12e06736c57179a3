"""Runs a program of the operator's.

It gets the backend's address and port as its last arguments, and the rights and environment of the balancer.
Its exit code 0 is a success. A whole number from 0 to 65535 alone on its first line is the weight that it
wishes for; any other first line is shown as the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal

from l4lb.model import HealthCheck
from l4lb.net.checks.judge import CheckFailedError, Success, Waiting, judge
from l4lb.net.checks.target import Outcome, Target

_LARGEST_WEIGHT = 65535
_NUMBER = re.compile(r"[0-9]{1,9}")
_SHOWN = 120
_MOST_READ = 4096
_KILL_TIMEOUT_S = 1.0


async def check(target: Target, settings: HealthCheck) -> Outcome:
    """Whether the command ends with 0 in time. After the timeout it is killed with all that it started in its
    session; one that the kernel cannot end is left after one more second."""

    async def ask(waiting: Waiting) -> Success:
        waiting.what = "end of the program"
        output = _FirstLine()
        try:
            code = await _run((*settings.command, str(target.address), str(target.port)), output)
        finally:
            output.close()
        line = output.text()
        if code != 0:
            ended = f"exit code {code}" if code > 0 else f"ended by signal {-code}"
            raise CheckFailedError(f"{ended}: {line}" if line else ended)
        if _NUMBER.fullmatch(line) is None:
            return Success(f"exit code 0: {line}" if line else "exit code 0")
        if int(line) > _LARGEST_WEIGHT:
            return Success(f"exit code 0; {line} is no weight, the largest is {_LARGEST_WEIGHT}")
        return Success(f"exit code 0, weight {int(line)}", int(line))

    return await judge(settings.timeout_s, ask)


async def _run(argv: tuple[str, ...], output: _FirstLine) -> int:
    """Runs the program; its exit code, or minus the signal that ended it."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output.descriptor,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise CheckFailedError(f"{argv[0]} cannot be run: {(error.strerror or '').lower()}") from None
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _KILL_TIMEOUT_S)


class _FirstLine:
    """A pipe for a program's output. All of it is read, so that the program never waits; the start is kept.

    The end of the program, not of the output, ends a check: a child of its may hold the pipe for longer.
    """

    def __init__(self) -> None:
        self._read, self.descriptor = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        self._start = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read, self._take)

    def text(self) -> str:
        """The first line, or what there is of it. After `close`."""
        line = self._start.partition(b"\n")[0].decode(errors="replace").strip()
        return "".join(c for c in line if c.isprintable())[:_SHOWN]

    def close(self) -> None:
        """Takes what is still in the pipe, and closes it."""
        self._loop.remove_reader(self._read)
        self._take()
        os.close(self._read)
        os.close(self.descriptor)

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._read, 1 << 16)
            self._start += data[: max(0, _MOST_READ - len(self._start))]
