"""The chunked coding: what is read, what is refused and what is sent on; each whole and byte by byte."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from l7.http1.body import BodyKind, BodyReader
from tests.support.http1 import each_byte, read_body

CHUNKED = BodyKind.BODY_CHUNKED


@dataclass(frozen=True)
class Row:
    name: str
    data: bytes
    refused: str | None = None
    payload: bytes = b""
    trailers: bytes = b""
    """Those that are sent on."""


def read(name: str, data: bytes, payload: bytes, trailers: bytes = b"") -> Row:
    return Row(name, data, None, payload, trailers)


def refused(rule: str, name: str, data: bytes, payload: bytes = b"") -> Row:
    return Row(name, data, rule, payload)


END = b"0\r\n\r\n"

READ = [
    read("nothing", END, b""),
    read("one chunk", b"5\r\nhello\r\n" + END, b"hello"),
    read("several", b"1\r\na\r\n2\r\nbc\r\n" + END, b"abc"),
    read("digits of either case", b"a\r\n0123456789\r\nB\r\n0123456789!\r\n" + END, b"01234567890123456789!"),
    read("zeros in front", b"000000000000005\r\nhello\r\n000\r\n\r\n", b"hello"),
    read("CRLF and digits as payload", b"5\r\n\r\n0\r\n\r\n" + END, b"\r\n0\r\n"),
    read("an extension", b"5;a=b;c\r\nhello\r\n0;d\r\n\r\n", b"hello"),
    read("an extension, quoted", b'5;a="b \t\xe9"\r\nhello\r\n' + END, b"hello"),
    read("the longest extension", b"5;" + b"a" * 256 + b"\r\nhello\r\n" + END, b"hello"),
    read("trailers", b"1\r\na\r\n0\r\nX-Sum: 1\r\nY:  2 \r\n\r\n", b"a", b"X-Sum: 1\r\nY: 2\r\n"),
    read(
        "trailers that may not be ones",
        b"1\r\na\r\n0\r\nX: 1\r\nContent-Length: 5\r\nhost: b\r\nTransfer-Encoding: chunked\r\n"
        b"Authorization: x\r\nX-Forwarded-For: 192.0.2.1\r\nSet-Cookie: a\r\nContent_Length: 5\r\n"
        b"Connection: X\r\nTrailer: X\r\n\r\n",
        b"a",
        b"X: 1\r\n",
    ),
]

REFUSED = [
    *(
        refused("chunk_size", repr(size), size + b"\r\nhello\r\n" + END)
        for size in (
            *(
                b"",
                b"x",
                b"-5",
                b"+5",
                b" 5",
                b"5 ",
                b"5\t",
                b"0x5",
                b"5,5",
                b"5h",
                b"0" * 16,
                b"f" * 16,
                b"\xd9\xa5",
            ),
            *(b"5\x00", b"\x0b5", b"5 ;a", b"_5", b"5.", b'"5"'),
        )
    ),
    refused("chunk_size", "no digits before an extension", b";a\r\nhello\r\n" + END),
    refused("bare_lf", "LF behind a size", b"5\nhello\r\n" + END),
    refused("bare_lf", "LF behind an extension", b"5;a\nhello\r\n" + END),
    refused("bare_cr", "CR behind a size", b"5\rhello\r\n" + END),
    refused("bare_cr", "CR in an extension", b"5;a\rb\r\nhello\r\n" + END),
    refused("chunk_extension", "NUL", b"5;a\x00\r\nhello\r\n" + END),
    refused("chunk_extension", "too long", b"5;" + b"a" * 257 + b"\r\nhello\r\n" + END),
    refused("chunk_extension", "without end", b"5;" + b"a" * 1000),
    refused("chunk_end", "payload longer than its size", b"4\r\nhello\r\n" + END, b"hell"),
    refused("chunk_end", "LF alone", b"5\r\nhello\n" + END, b"hello"),
    refused("chunk_end", "CR alone", b"5\r\nhello\r0\r\n\r\n", b"hello"),
    refused("chunk_end", "two CR", b"5\r\nhello\r\r\n" + END, b"hello"),
    refused("chunk_end", "payload shorter than its size", b"6\r\nhello\r\n" + END, b"hello\r"),
    refused("header_name", "no trailer", b"0\r\nGET / HTTP/1.1\r\n\r\n"),
    refused("bare_lf", "a trailer that ends with LF", b"0\r\nA: b\n\r\n"),
    refused("bare_lf", "LF as the last line", b"0\r\n\n"),
    refused("bare_cr", "CR in a trailer", b"0\r\nA: b\rc\r\n\r\n"),
    refused("folded_line", "folding", b"0\r\nA: b\r\n c\r\n\r\n"),
    refused("space_before_colon", "a space", b"0\r\nA : b\r\n\r\n"),
    refused("control", "NUL in a trailer", b"0\r\nA: \x00\r\n\r\n"),
    refused("header_bytes", "long trailers", b"0\r\nA: " + b"b" * 9000 + b"\r\n\r\n"),
    refused("header_count", "many trailers", b"0\r\n" + b"A: b\r\n" * 65 + b"\r\n"),
]


def row_id(row: Row) -> str:
    return f"{row.refused}: {row.name}" if row.refused else row.name


@pytest.mark.parametrize("row", READ, ids=row_id)
def test_read(row):
    rest = b"GET / HTTP/1.1\r\n"
    whole = read_body([row.data + rest], CHUNKED)
    assert (whole.payload, whole.used, whole.is_over, whole.refused) == (
        row.payload,
        len(row.data),
        True,
        None,
    )
    assert read_body(each_byte(row.data + rest), CHUNKED) == whole


@pytest.mark.parametrize("row", REFUSED, ids=row_id)
def test_refused(row):
    whole = read_body([row.data], CHUNKED)
    assert (whole.refused, whole.payload) == (row.refused, row.payload)
    assert read_body(each_byte(row.data), CHUNKED) == whole


@pytest.mark.parametrize("row", READ, ids=row_id)
def test_sent_on_as_one_chunk(row):
    reader = BodyReader()
    reader.start(CHUNKED)
    chunk = b"%x\r\n%b\r\n" % (len(row.payload), row.payload) if row.payload else b""
    end = b"0\r\n" + row.trailers + b"\r\n"
    assert reader.relay(row.data + b"rest", as_chunks=True) == (chunk + end, len(row.data))
    assert reader.relay(b"rest", as_chunks=True) == (b"", 0)
    reader.start(CHUNKED)
    assert reader.relay(row.data + b"rest") == (row.payload, len(row.data))


@pytest.mark.parametrize("size", [1, 15, 16, 17, 255, 256, 257, 4095, 4096, 70_000])
@pytest.mark.parametrize("chunk", [1, 7, 16, 100_000])
def test_sizes_of_what_is_sent_on(size, chunk):
    payload = bytes(n % 251 for n in range(size))
    parts = [payload[n : n + chunk] for n in range(0, size, chunk)]
    data = b"".join([b"%x\r\n%b\r\n" % (len(part), part) for part in parts]) + END
    reader = BodyReader()
    reader.start(CHUNKED)
    assert reader.relay(data, as_chunks=True) == (b"%x\r\n%b\r\n0\r\n\r\n" % (size, payload), len(data))


def test_a_body_of_known_length_that_goes_on_in_chunks():
    reader = BodyReader()
    reader.start(BodyKind.BODY_LENGTH, 7)
    assert reader.relay(b"hello", as_chunks=True) == (b"5\r\nhello\r\n", 5)
    assert reader.relay(b"", as_chunks=True) == (b"", 0)
    assert reader.relay(b"!!rest", as_chunks=True) == (b"2\r\n!!\r\n0\r\n\r\n", 2)
    assert (reader.is_over, reader.received) == (True, 7)


@pytest.mark.parametrize(("kind", "length"), [(BodyKind.BODY_NONE, 0), (BodyKind.BODY_LENGTH, 0)])
def test_a_body_of_nothing_is_over_at_once(kind, length):
    reader = BodyReader()
    reader.start(kind, length)
    assert reader.is_over
    assert reader.relay(b"rest") == (b"", 0)


def test_a_refused_body_stays_refused():
    reader = BodyReader()
    reader.start(CHUNKED)
    assert reader.relay(b"x") == (None, 1)
    assert reader.relay(b"5\r\n", as_chunks=True)[0] is None
    assert reader.reason == "chunk_size"
    reader.start(CHUNKED)
    assert reader.relay(b"1\r\na\r\n", as_chunks=True)[0] == b"1\r\na\r\n"
