"""Hands a running daemon over to its successor in the same process (execve): state, flows and sockets.

The process stays, so its id, its locks and its place under an init system stay too. Sockets survive as file
descriptors; a queue's socket that stays open keeps its packets waiting until the successor reads them.
State and flows lie in memory files (memfd_create(2)) that nobody else can open. The environment says where
the first one is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from l4lb.errors import L4lbError

_VARIABLE = "L4LB_HANDOVER"
_CHUNK = 1 << 20
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Luggage:
    """What is handed over: plain values, open descriptors by name, and bytes of any length by name."""

    state: Json
    descriptors: dict[str, int]
    files: dict[str, int]


def pack_file(name: str, chunks: Iterable[bytes]) -> int:
    """A memory file with these bytes."""
    descriptor = os.memfd_create(f"l4lb-{name}")
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            view = view[os.write(descriptor, view) :]
    return descriptor


def unpack_file(descriptor: int) -> Iterator[bytes]:
    """The bytes of a memory file, which is closed behind them."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        while chunk := os.read(descriptor, _CHUNK):
            yield chunk
    finally:
        os.close(descriptor)


def try_program(*words: str) -> None:
    """Runs another command of the program as it is now on disk: a broken one must not take over. L4lbError
    says why."""
    # In place of `run` and its options: what stands before it belongs to every command.
    place = len(sys.orig_argv) - 1 - sys.orig_argv[::-1].index("run")
    done = subprocess.run(
        [sys.executable, *sys.orig_argv[1:place], *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise L4lbError(f"the new program does not start: {lines[-1] if lines else 'no reason given'}")


def replace_program(luggage: Luggage) -> NoReturn:
    """Runs the program anew, as this process was started, with the luggage. OSError where that cannot be
    done."""
    content = {"state": luggage.state, "descriptors": luggage.descriptors, "files": luggage.files}
    letter = pack_file("state", [json.dumps(content).encode()])
    kept = [letter, *luggage.descriptors.values(), *luggage.files.values()]
    for descriptor in kept:
        os.set_inheritable(descriptor, True)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(sys.executable, sys.orig_argv, {**os.environ, _VARIABLE: str(letter)})
    finally:
        for descriptor in kept:
            os.set_inheritable(descriptor, False)
        os.close(letter)


def receive_luggage() -> Luggage | None:
    """What the program before handed over, or None where there was none. L4lbError where it makes no
    sense."""
    text = os.environ.pop(_VARIABLE, None)
    if text is None:
        return None
    try:
        content = json.loads(b"".join(unpack_file(int(text))))
        luggage = Luggage(content["state"], content["descriptors"], content["files"])
        for descriptor in (*luggage.descriptors.values(), *luggage.files.values()):
            os.set_inheritable(descriptor, False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise L4lbError(f"{_VARIABLE}: the program before left something unreadable: {error}") from error
    return luggage
