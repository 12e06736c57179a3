"""Programs in the machines that are told what to do line by line: to start one for each thing would take
seconds of an emulated machine."""

from __future__ import annotations

import contextlib

from tests.support.vm.lab import GUEST
from tests.support.vm.machines import Machine
from tests.support.vm.steps import VmLabError


class Player:
    """One of `guest/`, running in a machine until `end`."""

    def __init__(self, machine: Machine, program: str, words: str = "", *, python: str = "python3") -> None:
        self._program = program
        machine.write(f"/tmp/{program}", (GUEST / program).read_text())
        self._running = machine.start(f"{python} -u /tmp/{program} {words}", takes_input=True)

    def tell(self, line: str) -> None:
        """Says something that has no answer."""
        assert self._running.stdin
        self._running.stdin.write(line + "\n")
        self._running.stdin.flush()

    def ask(self, line: str) -> list[str]:
        """The words of the answer. VmLabError, with what it said, if the program has ended."""
        self.tell(line)
        assert self._running.stdout
        answer = self._running.stdout.readline()
        if not answer.endswith("\n") or answer.startswith("Traceback"):
            rest = " ".join((answer + self._running.stdout.read()).split())
            raise VmLabError(f"{self._program} ended at {line!r}: {rest[-500:]}")
        return answer.split()

    def end(self) -> None:
        """Ends the program; with it go its connections."""
        assert self._running.stdin and self._running.stdout
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._running.stdin.close()
        self._running.stdout.read()
        self._running.stdout.close()
        self._running.wait(timeout=60)
