"""Damaged requests, read by ours and by h11: what passes is read alike, what ours alone refuses is listed.

It is a proxy's business to be narrower than a server: what two servers could read differently must not pass.
"""

from __future__ import annotations

from collections import Counter

from l7.http1.body import BodyKind
from l7.http1.build import build_request
from l7.http1.head import HeadState
from l7.http1.request import RequestHead
from tests.support.damage import damaged, rounds
from tests.support.h11_oracle import Opinion, opinion_of_request
from tests.support.http1 import read_body
from tests.unit.l7.test_request_rows import READ, REFUSED

COUNT = 20_000

BODIES = (
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"hello",
    b"0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
)
SEEDS = [row.data + body for row in (*READ, *REFUSED) for body in (b"", *BODIES)]

NARROWER = {
    # h11 takes LF for CRLF, puts folded lines together (RFC 9112, 2.2 and 5.2 allow both) and lets DEL pass.
    *("bare_lf", "folded_line", "control"),
    # It leaves the meaning of methods, targets, hosts, options and expectations to whoever uses it.
    *("method", "method_not_allowed", "target", "target_fragment", "target_escape", "target_above_root"),
    *("host_invalid", "host_differs", "connection", "connection_names_field", "expectation"),
    # It takes equal lengths for one, `5, 5` too, any version, codings in any version, and the coding where a
    # length is given as well (RFC 9112, 6.3 allows it; the next server may not).
    *(
        "length_repeated",
        "length_invalid",
        "version",
        "http2_preface",
        "coding_in_http10",
        "length_and_coding",
    ),
}
"""What ours refuses of heads and h11 may let through."""

NARROWER_BODY = {
    "chunk_size",
    "chunk_extension",
    "bare_lf",
    "bare_cr",
    "folded_line",
    "control",
    "header_name",
}
"""The same of chunks and trailers."""


def test_what_is_let_through_h11_reads_alike():
    met: Counter[str | None] = Counter()
    differences: set[str] = set()
    for _, random in rounds(COUNT):
        data = damaged(random, SEEDS)
        head = RequestHead()
        used = head.feed(data)
        # h11 has no patience for the empty line that may stand in front.
        theirs = opinion_of_request(data.removeprefix(b"\r\n"))
        met[head.reason] += 1
        if head.state == HeadState.HEAD_COMPLETE:
            compare(head, data, used, theirs)
        elif head.reason is not None and theirs.line is not None:
            differences.add(head.reason)
            assert head.reason in NARROWER, (head.reason, data, theirs)
        elif head.state == HeadState.HEAD_MORE:
            assert theirs.line is None, (data, theirs)
    # A damage that always stays in front of the first check would find nothing.
    assert met[None] > COUNT // 10
    assert len(met) > 25, met
    assert differences == NARROWER


def compare(head: RequestHead, data: bytes, used: int, theirs: Opinion) -> None:
    if head.is_chunked or head.content_length > 0:
        kind = BodyKind.BODY_CHUNKED if head.is_chunked else BodyKind.BODY_LENGTH
        body = read_body([data[used:]], kind, head.content_length)
    else:
        body = read_body([data[used:]], BodyKind.BODY_NONE)
    assert theirs.line is not None, (data, theirs)
    method, target, version = theirs.line
    assert method == head.method, data
    assert version == b"1.%d" % (head.version - 10), data
    assert target == head.target or (
        target.startswith((b"http", b"HTTP")) and head.target in (*split_uri(target),)
    )
    ours = [(name.lower(), value) for name, value in head.headers()]
    # h11 writes the coding in lower case.
    ours = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in ours]
    assert ours == list(theirs.headers), data
    if body.refused is None:
        assert theirs.error is None, (data, theirs)
        assert (body.payload, body.is_over) == (theirs.payload, theirs.is_over), data
        if body.is_over:
            assert data[used + body.used :] == theirs.rest, data
    elif theirs.error is None:
        assert body.refused in NARROWER_BODY, (body, data, theirs)
    again = opinion_of_request(build_request(head, None, None, None, None, b"", 0))
    assert again.error is None, (data, again)
    assert again.line == (head.method, head.target, b"1.1")


def split_uri(target: object) -> tuple[bytes, ...]:
    """What may become of a URI as target."""
    assert isinstance(target, bytes)
    rest = target.partition(b"//")[2]
    path = rest[len(rest.partition(b"/")[0].partition(b"?")[0]) :]
    return (path if path.startswith(b"/") else b"/" + path, path or b"*")
