"""The bodies of the proxy's own answers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from l4lb.control.message import printable
from l4lb.errors import ConfigError

Pages = dict[int, tuple[bytes, bytes]]
"""Status → content type and body."""

_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".htm": b"text/html; charset=utf-8",
    ".json": b"application/json",
}
_PLAIN = b"text/plain; charset=utf-8"


def read_pages(pages: Iterable[tuple[int, Path]]) -> Pages:
    """Reads the files; the content type goes by their names. Raises ConfigError."""
    read: Pages = {}
    for status, path in pages:
        try:
            read[status] = (_TYPES.get(path.suffix, _PLAIN), path.read_bytes())
        except OSError as error:
            raise ConfigError(
                f"{printable(str(path))}: cannot be read: {error.strerror}; it is the page of status {status}"
            ) from None
    return read
