"""Programs inside a namespace: run to their end, or kept running and ended by pid."""

from __future__ import annotations

import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.lab.errors import LabError

ROOT = Path(__file__).resolve().parents[3]
"""The top of the repository; commands run there unless `cwd` says otherwise."""

STOP_TIMEOUT_S = 5.0
SHOWN_OUTPUT = 2000

Argv = Sequence[str | Path]


def in_namespace(namespace: str, argv: Argv) -> list[str]:
    """The command line that runs `argv` inside: `ip` execs it, so the pid is the program's own."""
    return ["ip", "netns", "exec", namespace, *map(str, argv)]


def run(
    namespace: str, argv: Argv, *, check: bool = True, timeout: float = 30.0, **kw: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; output is captured as text.

    LabError when it takes longer than `timeout` seconds, or fails and `check` is set.
    """
    kw = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kw}
    if "input" not in kw:
        kw.setdefault("stdin", subprocess.DEVNULL)
    shown = f"{namespace}: `{shlex.join(map(str, argv))}`"
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            in_namespace(namespace, argv), text=True, timeout=timeout, check=False, **kw
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{shown} took longer than {timeout:g} s") from error
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout or "").strip()[-SHOWN_OUTPUT:]
        raise LabError(f"{shown} exited with {done.returncode}: {said or 'it said nothing'}")
    return done


class Process(subprocess.Popen[str]):
    """A program that goes on running; its output is in `log` unless the caller took it."""

    log: Path | None
    shown: str

    def __init__(self, namespace: str, argv: Argv, log: Path | None, **kw: Any) -> None:
        self.log = log
        self.shown = f"{namespace}: `{shlex.join(map(str, argv))}`"
        kw = {"cwd": ROOT, "stdin": subprocess.DEVNULL, "text": True, **kw}
        # A session of its own: Ctrl-C on the terminal reaches only us, who then stop things in order.
        kw.setdefault("start_new_session", True)
        if log is None:
            super().__init__(in_namespace(namespace, argv), **kw)
        else:
            with log.open("ab") as output:
                kw = {"stdout": output, "stderr": subprocess.STDOUT, **kw}
                super().__init__(in_namespace(namespace, argv), **kw)

    def output(self) -> str:
        """What it wrote so far (to `log`)."""
        return self.log.read_text(errors="replace") if self.log and self.log.exists() else ""

    def check_running(self) -> None:
        """LabError, with the end of its output, if the program has ended."""
        if self.poll() is not None:
            said = self.output().strip()[-SHOWN_OUTPUT:]
            raise LabError(f"{self.shown} ended with {self.returncode}: {said or 'it said nothing'}")

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = STOP_TIMEOUT_S) -> int:
        """End it: `number`, and SIGKILL after `timeout` seconds. Returns its exit code; safe to repeat."""
        if self.poll() is None:
            self.send_signal(number)
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        code = self.wait()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        return code
