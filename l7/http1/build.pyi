"""Heads as they are sent on: built anew from what was parsed."""

from collections.abc import Iterable
from enum import IntEnum

from l7.http1.request import RequestHead
from l7.http1.response import ResponseHead

class BuildFlag(IntEnum):
    """What is said of the connection, and of the request's expectation."""

    BUILD_CLOSE = 1
    BUILD_KEEP_ALIVE = 2
    BUILD_UPGRADE = 4
    BUILD_EXPECT = 8

class Overrides:
    """Headers that stay behind; names in any case, and those written with `_` for `-` as well."""

    def __init__(self, names: Iterable[bytes]) -> None: ...

class Forwarding:
    """Forwarding headers: (name, value, around). Where `around` is not None its halves stand around the
    client's Host, behind the value; of a request without Host neither is written, nor a header without value.
    ValueError for more than 8."""

    def __init__(self, lines: Iterable[tuple[bytes, bytes, tuple[bytes, bytes] | None]]) -> None: ...

def build_request(
    head: RequestHead,
    target: bytes | None,
    host: bytes | None,
    overrides: Overrides | None,
    forwarding: Forwarding | None,
    lines: bytes,
    flags: int,
) -> bytes:
    """The head of a request to a backend; the body is announced as it came. `lines` end with CRLF each."""

def build_response(
    head: ResponseHead,
    body_kind: int,
    length: int,
    overrides: Overrides | None,
    lines: bytes,
    date: bytes,
    flags: int,
) -> bytes:
    """The head of an answer to a client; `date` is a line that is added where the answer has none."""

def build_answer(
    status: int, content_type: bytes, body: bytes, lines: bytes, date: bytes, flags: int, for_head: bool
) -> bytes:
    """An answer of the proxy's own, whole; for HEAD without its body."""
