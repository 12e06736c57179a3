"""Damaged messages, read by ours and by h11: what passes is read alike, what ours alone refuses is listed.

It is a proxy's business to be narrower than a server: what two servers could read differently must not pass.
"""

from __future__ import annotations

from collections import Counter

from l7.http1.body import BodyKind
from l7.http1.build import build_request
from l7.http1.head import HeadState
from l7.http1.request import RequestHead
from l7.http1.response import ResponseHead
from tests.support.damage import damaged, rounds
from tests.support.h11_oracle import Opinion, opinion_of_request, opinion_of_response
from tests.support.http1 import read_body
from tests.unit.l7 import test_request_rows as requests
from tests.unit.l7 import test_response_rows as responses

COUNT = 20_000

BODIES = (
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"hello",
    b"0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
)
REQUESTS = [row.data + body for row in (*requests.READ, *requests.REFUSED) for body in (b"", *BODIES)]
RESPONSES = [
    row.data + body
    for row in (*responses.READ, *responses.REFUSED)
    for body in BODIES
    if len(row.data) < 2000
]

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


def test_requests_that_are_let_through_h11_reads_alike():
    met: Counter[str | None] = Counter()
    differences: set[str] = set()
    for _, random in rounds(COUNT):
        data = damaged(random, REQUESTS)
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
    assert headers_of(head) == list(theirs.headers), data
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


def headers_of(head: RequestHead | ResponseHead) -> list[tuple[bytes, bytes]]:
    """As h11 gives them: names, and codings, in lower case."""
    headers = [(name.lower(), value) for name, value in head.headers()]
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in headers]


def split_uri(target: object) -> tuple[bytes, ...]:
    """What may become of a URI as target."""
    assert isinstance(target, bytes)
    rest = target.partition(b"//")[2]
    path = rest[len(rest.partition(b"/")[0].partition(b"?")[0]) :]
    return (path if path.startswith(b"/") else b"/" + path, path or b"*")


NARROWER_ANSWERS = {
    # As of requests.
    *("bare_lf", "folded_line", "control", "connection", "connection_names_field"),
    *("length_repeated", "length_invalid", "length_and_coding", "coding_in_http10"),
    # It takes any version, and headers without number.
    *("status_line", "header_count"),
}


def test_answers_that_are_let_through_h11_reads_alike():
    met: Counter[str | None] = Counter()
    differences: set[str] = set()
    for _, random in rounds(COUNT):
        data = damaged(random, RESPONSES)
        head = ResponseHead()
        head.restart(for_head=random.randrange(4) == 0)
        used = head.feed(data)
        theirs = opinion_of_response(data, b"HEAD" if head.for_head else b"GET")
        met[head.reason] += 1
        if head.state == HeadState.HEAD_COMPLETE:
            # h11 lets nobody switch who was not asked to; the proxy's exchange sees to that.
            if head.status != 101:
                compare_answers(head, data, used, theirs)
        elif head.reason is not None and theirs.line is not None:
            differences.add(head.reason)
        elif head.state == HeadState.HEAD_MORE:
            assert theirs.line is None, (data, theirs)
    assert differences == NARROWER_ANSWERS
    assert met[None] > COUNT // 10


def compare_answers(head: ResponseHead, data: bytes, used: int, theirs: Opinion) -> None:
    assert theirs.line == (head.status, b"1.%d" % (head.version - 10)), (data, theirs)
    assert headers_of(head) == list(theirs.headers), data
    if head.status < 200:
        return
    body = read_body([data[used:]], head.body_kind, head.content_length)
    if body.refused is None:
        assert (theirs.error, theirs.payload) == (None, body.payload), (data, theirs)
        if body.is_over:
            assert data[used + body.used :] == theirs.rest, data
    elif theirs.error is None:
        assert body.refused in NARROWER_BODY, (body, data, theirs)
