"""Damaged messages in pieces: the same bytes mean the same however they are cut, and what is built is sound.

Under scripts/asan this is also the search for reads and writes beyond a buffer.
"""

from __future__ import annotations

from collections import Counter
from urllib.parse import unquote_to_bytes

from hypothesis import example, given
from hypothesis import strategies as st

from l7.http1.body import BodyKind, BodyReader, BodyState
from l7.http1.build import Forwarding, Overrides, build_request, build_response
from l7.http1.head import HeadState
from l7.http1.paths import normalise_path
from l7.http1.request import RequestHead
from l7.http1.response import ResponseHead
from tests.support.damage import damaged, random_cut, rounds
from tests.support.h11_oracle import opinion_of_request
from tests.support.http1 import cut, each_byte, read_body, read_request, read_response
from tests.unit.l7 import test_body_rows as bodies
from tests.unit.l7 import test_request_rows as requests
from tests.unit.l7 import test_response_rows as responses

COUNT = 6_000

REQUESTS = [row.data for row in (*requests.READ, *requests.REFUSED)]
RESPONSES = [row.data for row in (*responses.READ, *responses.REFUSED)]
CHUNKS = [row.data for row in (*bodies.READ, *bodies.REFUSED)]
FORWARDING = Forwarding(
    [
        (b"X-Forwarded-For", b"192.0.2.1", None),
        (b"X-Forwarded-Host", b"", (b"", b"")),
        (b"Forwarded", b"for=192.0.2.1", (b';host="', b'"')),
    ]
)
OVERRIDES = Overrides([b"A", b"X-Sum", b"User-Agent"])


def test_requests_mean_the_same_however_they_are_cut():
    met: Counter[str | None] = Counter()
    for _, random in rounds(COUNT):
        data = damaged(random, REQUESTS)
        bounds = {"request_line": random.choice((40, 8192)), "header_bytes": random.choice((80, 32768))}
        bounds["header_count"] = random.choice((2, 100))
        whole = read_request([data], RequestHead(**bounds))
        met[whole.refused] += 1
        places = random_cut(random, data)
        assert read_request(cut(data, places), RequestHead(**bounds)) == whole, (data, places, bounds)
        assert read_request(each_byte(data), RequestHead(**bounds)) == whole, (data, bounds)
    assert len(met) > 30, met


def test_answers_mean_the_same_however_they_are_cut():
    met: Counter[str | None] = Counter()
    for _, random in rounds(COUNT):
        data = damaged(random, RESPONSES)
        for_head = random.randrange(4) == 0
        whole = read_response([data], for_head)
        met[whole.refused] += 1
        places = random_cut(random, data)
        assert read_response(cut(data, places), for_head) == whole, (data, places)
        assert read_response(each_byte(data), for_head) == whole, data
    assert len(met) > 15, met


def test_chunks_mean_the_same_however_they_are_cut():
    met: Counter[str | None] = Counter()
    for _, random in rounds(COUNT):
        data = damaged(random, CHUNKS)
        whole = read_body([data], BodyKind.BODY_CHUNKED)
        met[whole.refused] += 1
        places = random_cut(random, data)
        assert read_body(cut(data, places), BodyKind.BODY_CHUNKED) == whole, (data, places)
        assert read_body(each_byte(data), BodyKind.BODY_CHUNKED) == whole, data
        check_relayed(cut(data, places), whole.payload, whole.refused)
    assert len(met) > 8, met


def check_relayed(pieces: list[bytes], payload: bytes, refused: str | None) -> None:
    """What is sent on is a chunked body of the same payload, which another parser reads to its end."""
    reader = BodyReader()
    reader.start(BodyKind.BODY_CHUNKED)
    sent = b""
    for piece in pieces:
        made, used = reader.relay(piece, as_chunks=True)
        if made is None:
            assert reader.reason == refused
            return
        sent += made
        if reader.is_over:
            assert used <= len(piece)
            break
    request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    opinion = opinion_of_request(request + sent)
    assert (opinion.error, opinion.payload, opinion.is_over) == (None, payload, reader.is_over)
    if opinion.is_over:
        assert opinion.rest == b""
        assert not {name for name, _ in opinion.trailers} & {b"host", b"content-length", b"transfer-encoding"}


def test_what_is_built_is_read_alike():
    read = 0
    for _, random in rounds(COUNT):
        head = RequestHead()
        head.feed(damaged(random, REQUESTS))
        if head.state == HeadState.HEAD_COMPLETE:
            read += 1
            host = None if head.authority else b"backend"
            built = build_request(head, None, host, OVERRIDES, FORWARDING, b"Y: 1\r\n", random.randrange(16))
            again = RequestHead()
            assert again.feed(built) == len(built), (again.reason, built)
            assert again.authority == (host or head.authority)
            for fact in ("method", "target", "content_length", "is_chunked"):
                assert getattr(again, fact) == getattr(head, fact), (fact, built)
            names = [name.lower() for name, _ in again.headers()]
            assert b"a" not in names
            assert [names.count(name) for name in (b"host", b"y", b"x-forwarded-for", b"forwarded")] == [
                1
            ] * 4
            # What nobody named is not forwarded.
            assert names.count(b"x-forwarded-host") == bool(head.authority)
        answer = ResponseHead()
        answer.feed(damaged(random, RESPONSES))
        if answer.state == HeadState.HEAD_COMPLETE:
            kind = random.choice((answer.body_kind, BodyKind.BODY_CHUNKED, BodyKind.BODY_UNTIL_CLOSE))
            built = build_response(
                answer, kind, max(answer.content_length, 0), OVERRIDES, b"", b"Date: x\r\n", 0
            )
            again_answer = ResponseHead()
            assert again_answer.feed(built) == len(built), (again_answer.reason, built)
            assert (again_answer.status, again_answer.phrase) == (answer.status, answer.phrase)
    assert read > COUNT // 10


PATHS = st.lists(
    st.sampled_from(
        ["/", "//", "/.", "/..", ".", "..", "a", "é", "%2e", "%2F", "%C3%A9", "%ff", "%41", "b/"]
    ),
    max_size=12,
).map(lambda parts: ("/" + "".join(parts)).encode())


@given(PATHS)
@example(b"/a/%2e%2e//b/./")
def test_paths_are_what_a_plain_reading_makes_of_them(path):
    assert normalise_path(path) == plainly_normalised(path)


def plainly_normalised(path: bytes) -> bytes | None:
    kept: list[bytes] = []
    segments = unquote_to_bytes(path).split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if not kept:
                return None
            kept.pop()
        elif segment not in (b"", b"."):
            kept.append(segment)
    ends_open = kept and segments[-1] in (b"", b".", b"..")
    return b"/" + b"/".join(kept) + (b"/" if ends_open else b"")


@given(st.binary(max_size=300), st.integers(0, 400))
def test_a_body_of_known_length_ends_there(data, length):
    body = read_body(each_byte(data), BodyKind.BODY_LENGTH, length)
    assert body.payload == data[:length]
    assert body.used == min(len(data), length)
    assert body.is_over == (len(data) >= length)


@given(st.binary(max_size=300))
def test_a_body_until_the_close_never_ends_before(data):
    body = read_body([data, data], BodyKind.BODY_UNTIL_CLOSE)
    assert (body.payload, body.is_over) == (data + data, False)
    reader = BodyReader()
    reader.start(BodyKind.BODY_UNTIL_CLOSE)
    assert reader.spans(b"") == ([], 0, BodyState.BODY_MORE)
