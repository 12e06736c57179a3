"""Heads as they are sent on.

A header that is kept goes out as `name: value`, whatever white space stood around the value. Neighbours that stand so already, nearly all,
are copied in one go.
"""
from http import HTTPStatus

from l7.http1.body cimport BODY_CHUNKED, BODY_LENGTH, BODY_NONE
from l7.http1.fields cimport (
    FIELD_DATE,
    FIELD_HOST,
    FIELD_OTHER,
    FIELD_UPGRADE,
    TRAIT_HOP_BY_HOP,
    field_of,
    field_traits,
    folded_char,
)
from l7.http1.head cimport HEAD_COMPLETE, HEADER_DROPPED, Head, Header, first_of, has_field
from l7.http1.output cimport Output, output_close, output_open, put, put_crlf, put_decimal

cdef enum:
    SP = 32
    # More than all that is written besides what is handed in: start line, framing, Connection, Expect.
    FIXED = 256

# Of a 405 (RFC 9110 15.5.6): what the rule `method_not_allowed` leaves.
cdef bytes ALLOW = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

cdef dict STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}


cdef class Overrides:
    def __init__(self, names):
        cdef bint is_alias
        cdef int field
        cdef bytes name
        others = []
        for name in sorted(set([name.lower().replace(b"_", b"-") for name in names])):
            field = field_of(name, len(name), &is_alias)
            if field != FIELD_OTHER:
                self.fields |= <uint64_t>1 << field
            else:
                others.append(name)
                self.lengths |= <uint64_t>1 << min(len(name), 63)
        self.names = tuple(others)

    cdef bint removes(self, int field, const char* name, size_t length):
        cdef bytes other
        cdef const char* text
        cdef size_t i
        if field != FIELD_OTHER:
            return self.fields >> field & 1
        if not self.lengths >> min(length, <size_t>63) & 1:
            return False
        for other in self.names:
            if <size_t>len(other) != length:
                continue
            text = other
            i = 0
            while i < length and folded_char(name[i]) == <unsigned char>text[i]:
                i += 1
            if i == length:
                return True
        return False


cdef class Forwarding:
    def __init__(self, lines):
        cdef bint is_alias
        cdef bytes name, value, line
        self.before = []
        self.after = []
        self.plain = []
        for name, value, around in lines:
            if self.count == MAX_FORWARDING:
                raise ValueError(f"more than {MAX_FORWARDING} forwarding headers")
            self.fields[self.count] = field_of(name, len(name), &is_alias)
            self.count += 1
            line = name + b": " + value
            if around is None:
                self.before.append(None)
                self.after.append(None)
            else:
                self.before.append(line + around[0])
                self.after.append(around[1] + b"\r\n")
                self.length += len(around[0]) + len(around[1])
            self.plain.append(line + b"\r\n" if value or around is None else None)
            self.length += len(line) + 2


cdef int _put_forwarding(Output* output, Forwarding forwarding, Overrides overrides, const char* host,
                         size_t host_length) except -1:
    cdef uint32_t i
    cdef bytes before, after, plain
    for i in range(forwarding.count):
        if overrides is not None and overrides.fields >> forwarding.fields[i] & 1:
            continue
        before = forwarding.before[i]
        plain = forwarding.plain[i]
        if before is not None and host_length:
            after = forwarding.after[i]
            put(output, before, len(before))
            put(output, host, host_length)
            put(output, after, len(after))
        elif plain is not None:
            put(output, plain, len(plain))
    return 0


cdef int _put_headers(Output* output, const Head* head, Overrides overrides, uint64_t replaced) except -1:
    """The end-to-end headers but those of `replaced`, a bit for each known field."""
    cdef const char* data = head.data
    cdef const Header* header
    cdef uint32_t i, line_end
    # What is to be copied in one go.
    cdef uint32_t start = 0
    cdef uint32_t end = 0
    for i in range(head.count):
        header = head.headers + i
        if header.flags & HEADER_DROPPED or field_traits[header.field] & TRAIT_HOP_BY_HOP:
            continue
        if replaced >> header.field & 1:
            continue
        if overrides is not None and overrides.removes(header.field, data + header.name_at, header.name_length):
            continue
        line_end = head.headers[i + 1].name_at if i + 1 < head.count else head.length - 2
        if (header.value_at == header.name_at + header.name_length + 2 and data[header.value_at - 1] == SP
                and header.value_at + header.value_length + 2 == line_end):
            if header.name_at != end:
                put(output, data + start, end - start)
                start = header.name_at
            end = line_end
            continue
        put(output, data + start, end - start)
        start = end = 0
        put(output, data + header.name_at, header.name_length)
        put(output, b": ", 2)
        put(output, data + header.value_at, header.value_length)
        put_crlf(output)
    put(output, data + start, end - start)
    return 0


cdef void _put_connection(Output* output, const Head* head, int flags) noexcept nogil:
    cdef const Header* upgrade = first_of(head, FIELD_UPGRADE)
    if flags & BUILD_UPGRADE and upgrade != NULL:
        put(output, b"Connection: upgrade\r\nUpgrade: ", 30)
        put(output, head.data + upgrade.value_at, upgrade.value_length)
        put_crlf(output)
    else:
        _put_persistence(output, flags)


cdef void _put_persistence(Output* output, int flags) noexcept nogil:
    if flags & BUILD_CLOSE:
        put(output, b"Connection: close\r\n", 19)
    elif flags & BUILD_KEEP_ALIVE:
        put(output, b"Connection: keep-alive\r\n", 24)


cdef void _put_length(Output* output, unsigned long long length) noexcept nogil:
    put(output, b"Content-Length: ", 16)
    put_decimal(output, length)
    put_crlf(output)


cpdef bytes build_request(RequestHead head, bytes target, bytes host, Overrides overrides, Forwarding forwarding,
                          bytes lines, int flags):
    cdef Output output
    cdef const char* data = head.head.data
    cdef const char* authority = data + head.authority_at
    cdef uint64_t replaced = 0
    cdef uint32_t i
    cdef size_t size = head.head.length + head.head.count + len(lines) + FIXED
    if head.state != HEAD_COMPLETE:
        raise ValueError("there is no request to build from: its head is not complete")
    if target is not None:
        size += len(target)
    if host is not None:
        size += len(host)
    if forwarding is not None:
        size += forwarding.length + forwarding.count * head.authority_length
        for i in range(forwarding.count):
            replaced |= <uint64_t>1 << forwarding.fields[i]
    # A header that is not known has the bit 0, and is none of them.
    replaced &= ~<uint64_t>1
    output_open(&output, size)
    put(&output, data + head.line.method_at, head.line.method_length + 1)
    if target is None:
        put(&output, data + head.line.target_at, head.line.target_length)
    else:
        put(&output, target, len(target))
    put(&output, b" HTTP/1.1\r\n", 11)
    if overrides is None or not overrides.fields >> FIELD_HOST & 1:
        put(&output, b"Host: ", 6)
        if host is None:
            put(&output, authority, head.authority_length)
        else:
            put(&output, host, len(host))
        put_crlf(&output)
    _put_headers(&output, &head.head, overrides, replaced)
    if forwarding is not None:
        _put_forwarding(&output, forwarding, overrides, authority, head.authority_length)
    put(&output, lines, len(lines))
    if head.is_chunked:
        put(&output, b"Transfer-Encoding: chunked\r\n", 28)
    elif head.content_length >= 0:
        _put_length(&output, head.content_length)
    if flags & BUILD_EXPECT and head.expects_continue:
        put(&output, b"Expect: 100-continue\r\n", 22)
    _put_connection(&output, &head.head, flags)
    put_crlf(&output)
    return output_close(&output)


cpdef bytes build_response(ResponseHead head, int body_kind, int64_t length, Overrides overrides, bytes lines,
                           bytes date, int flags):
    cdef Output output
    cdef Head* source = &head.head
    if head.state != HEAD_COMPLETE:
        raise ValueError("there is no answer to build from: its head is not complete")
    output_open(&output, source.length + source.count + len(lines) + len(date) + FIXED)
    put(&output, b"HTTP/1.1 ", 9)
    put_decimal(&output, head.status)
    put(&output, b" ", 1)
    put(&output, source.data + head.line.phrase_at, head.line.phrase_length)
    put_crlf(&output)
    _put_headers(&output, source, overrides, 0)
    if head.status >= 200 and not has_field(source, FIELD_DATE):
        put(&output, date, len(date))
    put(&output, lines, len(lines))
    if body_kind == BODY_CHUNKED:
        put(&output, b"Transfer-Encoding: chunked\r\n", 28)
    elif body_kind == BODY_LENGTH:
        _put_length(&output, length)
    elif body_kind == BODY_NONE and head.content_length >= 0 and (head.for_head or head.status == 304):
        _put_length(&output, head.content_length)
    # 426 says what to upgrade to (RFC 9110 15.5.22).
    _put_connection(&output, source, flags | BUILD_UPGRADE if head.status == 426 else flags)
    put_crlf(&output)
    return output_close(&output)


cpdef bytes build_answer(int status, bytes content_type, bytes body, bytes lines, bytes date, int flags,
                         bint for_head):
    cdef Output output
    cdef bytes status_line = STATUS_LINES.get(status)
    cdef bint has_body = status >= 200 and status != 204 and status != 304
    if status_line is None:
        status_line = b"HTTP/1.1 %d \r\n" % status
    if status == 405 and b"allow:" not in lines.lower():
        lines += ALLOW
    output_open(&output, len(status_line) + len(content_type) + len(body) + len(lines) + len(date) + FIXED)
    put(&output, status_line, len(status_line))
    put(&output, date, len(date))
    put(&output, lines, len(lines))
    if has_body:
        if body:
            put(&output, b"Content-Type: ", 14)
            put(&output, content_type, len(content_type))
            put_crlf(&output)
        _put_length(&output, len(body))
    _put_persistence(&output, flags)
    put_crlf(&output)
    if has_body and not for_head:
        put(&output, body, len(body))
    return output_close(&output)
