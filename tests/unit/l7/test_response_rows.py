"""Heads of answers: what is read of them, and what is refused; each whole and byte by byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from l7.http1.body import BodyKind
from l7.http1.response import ResponseHead
from tests.support.http1 import each_byte, read_response


@dataclass(frozen=True)
class Row:
    name: str
    data: bytes
    refused: str | None = None
    facts: dict[str, Any] | None = None
    for_head: bool = False


def head(line: bytes = b"HTTP/1.1 200 OK", *headers: bytes) -> bytes:
    return b"\r\n".join([line, *headers, b"", b""])


def read(name: str, data: bytes, for_head: bool = False, **facts: Any) -> Row:
    return Row(name, data, facts=facts, for_head=for_head)


def refused(rule: str, name: str, data: bytes) -> Row:
    return Row(name, data, rule)


NONE, LENGTH, CHUNKED, UNTIL_CLOSE = BodyKind
SIZED, CODED = b"Content-Length: 5", b"Transfer-Encoding: chunked"
UPGRADED = (b"Connection: upgrade", b"Upgrade: websocket")

READ = [
    read("the shortest", head(), status=200, phrase=b"OK", version=11, headers=[]),
    read("no reason", head(b"HTTP/1.1 204 "), status=204, phrase=b""),
    read("not even a space", head(b"HTTP/1.1 404"), status=404, phrase=b""),
    read(
        "a reason of many words",
        head(b"HTTP/1.0 500 Oh \xe9\tno"),
        status=500,
        phrase=b"Oh \xe9\tno",
        version=10,
    ),
    read("a status of nobody", head(b"HTTP/1.1 999 x"), status=999),
    read("length", head(b"HTTP/1.1 200 OK", SIZED), body_kind=LENGTH, content_length=5, keeps_alive=True),
    read("chunked", head(b"HTTP/1.1 200 OK", CODED), body_kind=CHUNKED, is_chunked=True, keeps_alive=True),
    read("neither", head(), body_kind=UNTIL_CLOSE, keeps_alive=False, content_length=-1),
    read(
        "neither, though it says so", head(b"HTTP/1.1 200 OK", b"Connection: keep-alive"), keeps_alive=False
    ),
    read("close", head(b"HTTP/1.1 200 OK", SIZED, b"Connection: close"), keeps_alive=False),
    read("HTTP/1.0", head(b"HTTP/1.0 200 OK", SIZED), keeps_alive=False),
    read("HTTP/1.0 goes on", head(b"HTTP/1.0 200 OK", SIZED, b"Connection: keep-alive"), keeps_alive=True),
    read(
        "of HEAD", head(b"HTTP/1.1 200 OK", SIZED), True, body_kind=NONE, content_length=5, keeps_alive=True
    ),
    read("of HEAD, chunked", head(b"HTTP/1.1 200 OK", CODED), True, body_kind=NONE, keeps_alive=True),
    read("of HEAD, neither", head(), True, body_kind=NONE, keeps_alive=True),
    *(
        read(f"{status} {name}", head(b"HTTP/1.1 %d x" % status, *headers), body_kind=NONE, keeps_alive=True)
        for status in (100, 103, 204, 304)
        for name, headers in (("bare", ()), ("with a length", (SIZED,)), ("chunked", (CODED,)))
    ),
    read("205", head(b"HTTP/1.1 205 x", b"Content-Length: 0"), body_kind=LENGTH),
    read("switches", head(b"HTTP/1.1 101 x", *UPGRADED), switches=True, body_kind=NONE),
    read("101 without Upgrade", head(b"HTTP/1.1 101 x"), switches=False),
    read("Upgrade without 101", head(b"HTTP/1.1 200 x", *UPGRADED, SIZED), switches=False, body_kind=LENGTH),
]

REFUSED = [
    *(
        refused("status_line", repr(line), head(line))
        for line in (
            *(
                b"HTTP/1.1",
                b"HTTP/1.1 ",
                b"HTTP/1.1 20",
                b"HTTP/1.1 20x OK",
                b"HTTP/1.1 2000 OK",
                b"HTTP/1.1 099 x",
            ),
            *(
                b"HTTP/1.1  200 OK",
                b"HTTP/1.1\t200 OK",
                b"HTTP/1.1 200\tOK",
                b"HTTP/2.0 200 OK",
                b"HTTP/1.2 200 OK",
            ),
            *(
                b"http/1.1 200 OK",
                b"ICY 200 OK",
                b"200 OK",
                b"HTTP/1.1 -10 x",
                b"HTTP/1.1 +20 x",
                b"",
                b"HTTP/0.9 200",
            ),
        )
    ),
    refused("status_line", "an empty line before it", b"\r\n" + head()),
    refused("control", "NUL in the reason", head(b"HTTP/1.1 200 a\x00")),
    refused("bare_lf", "LF", b"HTTP/1.1 200 OK\nA: b\r\n\r\n"),
    refused("bare_lf", "LF in a value", head(b"HTTP/1.1 200 OK", b"A: b\nC: d")),
    refused("bare_cr", "CR in a value", head(b"HTTP/1.1 200 OK", b"A: b\rSet-Cookie: d")),
    refused("folded_line", "folding", head(b"HTTP/1.1 200 OK", b"A: b", b" c")),
    refused("header_name", "no colon", head(b"HTTP/1.1 200 OK", b"A")),
    refused("space_before_colon", "space", head(b"HTTP/1.1 200 OK", b"Content-Length : 5")),
    refused("length_and_coding", "both", head(b"HTTP/1.1 200 OK", SIZED, CODED)),
    refused("length_repeated", "equal", head(b"HTTP/1.1 200 OK", SIZED, SIZED)),
    refused("length_invalid", "a list", head(b"HTTP/1.1 200 OK", b"Content-Length: 5, 5")),
    refused("length_invalid", "of an answer without a body", head(b"HTTP/1.1 204 x", b"Content-Length: x")),
    refused("coding", "another", head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: gzip")),
    refused(
        "coding_unknown", "another and chunked", head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: gzip, chunked")
    ),
    refused("coding_in_http10", "chunked", head(b"HTTP/1.0 200 OK", CODED)),
    refused("connection", "no tokens", head(b"HTTP/1.1 200 OK", b"Connection: a b")),
    refused("connection_names_field", "Set-Cookie", head(b"HTTP/1.1 200 OK", b"Connection: Set-Cookie")),
    refused("header_bytes", "too many bytes", head(b"HTTP/1.1 200 OK", b"A: " + b"b" * (32 << 10))),
    refused("header_count", "too many headers", head(b"HTTP/1.1 200 OK", *[b"A: b"] * 101)),
    refused("line_too_long", "a long reason", head(b"HTTP/1.1 200 " + b"a" * (8 << 10))),
]


def row_id(row: Row) -> str:
    return f"{row.refused}: {row.name}" if row.refused else row.name


@pytest.mark.parametrize("row", READ, ids=row_id)
def test_read(row):
    whole = read_response([row.data + b"rest"], row.for_head)
    assert whole.is_complete, whole.refused
    assert whole.used == len(row.data)
    assert {name: whole.facts[name] for name in row.facts} == row.facts
    assert read_response(each_byte(row.data + b"rest"), row.for_head) == whole


@pytest.mark.parametrize("row", REFUSED, ids=row_id)
def test_refused(row):
    assert read_response([row.data]).refused == row.refused
    assert read_response(each_byte(row.data)).refused == row.refused


def test_one_parser_reads_the_answer_behind_an_interim_one():
    answer = ResponseHead()
    data = head(b"HTTP/1.1 100 Continue", b"A: b") + head(b"HTTP/1.1 200 OK", SIZED)
    used = answer.feed(data)
    assert (answer.status, answer.body_kind, answer.header(b"a")) == (100, NONE, b"b")
    answer.restart()
    assert answer.feed(data[used:]) == len(data) - used
    assert (answer.status, answer.body_kind, answer.header(b"a")) == (200, LENGTH, None)
    answer.restart(for_head=True)
    answer.feed(head(b"HTTP/1.1 200 OK", SIZED))
    assert (answer.for_head, answer.body_kind) == (True, NONE)
