"""Messages read piece by piece, and what was made of them as values that can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from l7.http1.body import BodyReader, BodyState
from l7.http1.head import HeadState
from l7.http1.request import RequestHead
from l7.http1.response import ResponseHead

Pieces = Iterable[bytes]


@dataclass(frozen=True)
class ReadHead:
    """What was made of the bytes of a head. `refused` is the name of a rule; `used` counts bytes."""

    refused: str | None = None
    is_complete: bool = False
    used: int = 0
    facts: dict[str, object] = field(default_factory=dict)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The pieces between places, in any order; places beyond the end are the end."""
    return [
        data[a:b] for a, b in pairwise([0, *sorted(min(place, len(data)) for place in places), len(data)])
    ]


def each_byte(data: bytes) -> list[bytes]:
    return cut(data, range(1, len(data)))


REQUEST_FACTS = (
    *("method", "target", "host", "authority", "path", "query", "version", "content_length", "is_chunked"),
    *("keeps_alive", "expects_continue", "asks_upgrade", "upgrade", "is_idempotent"),
)
RESPONSE_FACTS = (
    *("status", "phrase", "version", "content_length", "is_chunked", "keeps_alive", "body_kind", "switches"),
)


def read_request(pieces: Pieces, head: RequestHead | None = None) -> ReadHead:
    head = head or RequestHead()
    return _read(pieces, head, REQUEST_FACTS)


def read_response(pieces: Pieces, for_head: bool = False, head: ResponseHead | None = None) -> ReadHead:
    head = head or ResponseHead()
    head.restart(for_head)
    return _read(pieces, head, RESPONSE_FACTS)


def _read(pieces: Pieces, head: RequestHead | ResponseHead, names: Sequence[str]) -> ReadHead:
    used = 0
    for piece in pieces:
        taken = head.feed(piece)
        assert 0 <= taken <= len(piece)
        used += taken
        if head.state != HeadState.HEAD_MORE:
            break
        assert taken == len(piece)
    if head.state == HeadState.HEAD_REFUSED:
        assert head.refusal
        # What is asked all the same is empty.
        assert head.headers() == [] and head.header(b"host") is None
        assert not any(getattr(head, name) for name in names if name not in ("content_length", "body_kind"))
        return ReadHead(refused=head.reason)
    assert head.refusal == 0
    if head.state == HeadState.HEAD_MORE:
        return ReadHead(used=used)
    facts = {name: getattr(head, name) for name in names}
    return ReadHead(None, True, used, facts | {"headers": head.headers()})


@dataclass(frozen=True)
class ReadBody:
    """What was made of a body's bytes."""

    payload: bytes
    used: int
    is_over: bool = False
    refused: str | None = None


def read_body(pieces: Pieces, kind: int, length: int = 0) -> ReadBody:
    reader = BodyReader()
    reader.start(kind, length)
    payload, used = b"", 0
    for piece in pieces:
        spans, read, state = reader.spans(piece)
        payload += b"".join(spans)
        used += read
        if state == BodyState.BODY_REFUSED:
            return ReadBody(payload, 0, refused=reader.reason)
        assert reader.received == len(payload)
        if state == BodyState.BODY_END:
            break
        assert read == len(piece)
    return ReadBody(payload, used, reader.is_over)
