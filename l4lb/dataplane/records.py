"""Records of one size, as one program hands them to the next: a line that says what they are, then memory.

The layout is this machine's. The line changes with what a record means; the size is said too, in case
somebody forgets that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def pack_records(form: bytes, size: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Records of `size` bytes with the line `form` before them. Chunks end between records."""
    yield _header(form, size)
    yield from chunks


def unpack_records(form: bytes, size: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The records of `pack_records`, whole ones, whatever the chunks are. ValueError where the form or the
    size is another, or the last record is cut."""
    header = _header(form, size)
    rest = b""
    headed = False
    for chunk in chunks:
        rest += bytes(chunk)
        if not headed:
            if len(rest) < len(header):
                continue
            if not rest.startswith(header):
                raise ValueError(f"these are not records of the form {form.decode().strip()!r}")
            rest = rest[len(header) :]
            headed = True
        whole = len(rest) // size * size
        if whole:
            yield rest[:whole]
            rest = rest[whole:]
    if rest or not headed:
        raise ValueError(f"the records of the form {form.decode().strip()!r} are cut")


def _header(form: bytes, size: int) -> bytes:
    return form + size.to_bytes(2, "little")
