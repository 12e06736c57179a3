"""Reads the operator's files, with limits, and writes our own."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from l4lb.control.message import error_at, printable
from l4lb.errors import ConfigError

MAX_CONFIG_BYTES = 4 << 20
"""Room for 1000 services of 20 backends four times over."""


def read_config(path: str | Path) -> str:
    """The text of a configuration file. Raises ConfigError; one that is too large is not read to its end."""
    try:
        # Without O_NONBLOCK a named pipe would wait here for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(path, error.strerror) from None
    except ValueError as error:  # a zero byte in the name
        raise _unreadable(path, str(error)) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise ConfigError(f"{printable(str(path))}: is {what}; name the configuration file itself")
        data = _read_at_most(descriptor, MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error.strerror) from None
    finally:
        os.close(descriptor)
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(
            f"{printable(str(path))}: is larger than {MAX_CONFIG_BYTES >> 20} MiB; is this the right file?"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8").split("\n")
        raise error_at(
            str(path),
            len(before),
            len(before[-1]) + 1,
            "",
            f"byte 0x{data[error.start]:02X} is not UTF-8; save the file as UTF-8",
        ) from None


def write_durably(path: Path, value: Any) -> None:
    """Writes a value as JSON. Whatever happens, the file holds it whole or what it held before. OSError."""
    draft = path.with_name(f"{path.name}.new")
    with draft.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _read_at_most(descriptor: int, size: int) -> bytes:
    """The size that the file claims is not asked: it may grow, and files of /proc claim none."""
    data = bytearray()
    while len(data) < size and (piece := os.read(descriptor, size - len(data))):
        data += piece
    return bytes(data)


def _unreadable(path: str | Path, why: str | None) -> ConfigError:
    return ConfigError(f"{printable(str(path))}: cannot be read: {why}; check the path and its permissions")
