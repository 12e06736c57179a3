"""A head as offsets into its buffer.

A line is parsed as soon as its bytes are there, in the hope that it is whole. Where it is not, the search goes on for its LF alone,
from where it had come to, and the line is parsed again when that is found. A line that is wrong is refused when its
LF is there, so that the same bytes are refused for the same reason however they were cut.
"""
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy

from l7.http1.fields cimport CHAR_TOKEN, CHAR_VALUE, FIELD_OTHER, field_of, is_char, same_text
from l7.http1.refusals cimport (
    REFUSED_BARE_CR,
    REFUSED_BARE_LF,
    REFUSED_CONTROL,
    REFUSED_FOLDED_LINE,
    REFUSED_HEADER_BYTES,
    REFUSED_HEADER_COUNT,
    REFUSED_HEADER_NAME,
    REFUSED_LINE_TOO_LONG,
    REFUSED_SPACE_BEFORE_COLON,
)

cdef enum:
    CR = 13
    LF = 10
    SP = 32
    HTAB = 9
    COLON = 58
    FIRST_BYTES = 1024      # of a buffer, and of what grows
    FIRST_HEADERS = 24


cdef void head_open(Head* head, uint32_t max_bytes, uint32_t max_line, uint32_t max_headers) noexcept nogil:
    head.max_line = max_line
    # An empty line before the first and both CRLF fit in, so that one bound or the other is broken, never either.
    head.max_bytes = max(max_bytes, max_line + 6)
    head.max_headers = min(max_headers, <uint32_t>0xFFFF)
    head_clear(head)


cdef void head_forget(Head* head) noexcept nogil:
    head.count = 0
    head.fields = 0
    head.repeated = 0


cdef void head_clear(Head* head) noexcept nogil:
    head_forget(head)
    head.length = 0
    head.at = 0
    head.searched = 0
    head.line_at = 0
    head.line_length = 0
    head.refusal = 0


cdef void head_release(Head* head) noexcept nogil:
    free(head.data)
    free(head.headers)
    head.data = NULL
    head.headers = NULL
    head.size = 0
    head.room = 0
    head_clear(head)


cdef bint _reserve(Head* head, uint32_t wanted) noexcept nogil:
    cdef uint32_t size
    cdef char* data
    if wanted <= head.size:
        return True
    size = max(wanted + wanted // 2, <uint32_t>FIRST_BYTES)
    data = <char*>realloc(head.data, size)
    if data == NULL:
        return False
    head.data = data
    head.size = size
    return True


cdef uint32_t head_gather(Head* head, const char* data, size_t length, const char** base) noexcept nogil:
    cdef uint32_t more
    if head.length == 0:
        base[0] = data
        # Bytes beyond the bound cannot belong to the head; with the one that breaks it a head is refused.
        return <uint32_t>min(length, <size_t>head.max_bytes + 1)
    more = <uint32_t>min(length, <size_t>(head.max_bytes + 1 - head.length))
    if not _reserve(head, head.length + more):
        head.refusal = REFUSED_HEADER_BYTES
        base[0] = head.data
        return head.length
    memcpy(head.data + head.length, data, more)
    base[0] = head.data
    return head.length + more


cdef size_t head_keep(Head* head, const char* base, uint32_t have, int state) noexcept nogil:
    cdef uint32_t before = head.length
    cdef uint32_t length = head.at if state == HEAD_COMPLETE else have
    if state == HEAD_REFUSED:
        return 0
    if base != head.data and length:
        if not _reserve(head, length):
            head.refusal = REFUSED_HEADER_BYTES
            return 0
        memcpy(head.data, base, length)
    head.length = length
    return length - before


cdef int head_take(Head* head, const char* data, size_t length, size_t* used, bint skip_empty, LineReader read_line,
                   void* line) noexcept nogil:
    cdef const char* base
    cdef uint32_t have = head_gather(head, data, length, &base)
    cdef int state = HEAD_COMPLETE
    used[0] = 0
    if head.line_length == 0:
        state = head_line(head, base, have, skip_empty)
        if state == HEAD_COMPLETE:
            head.refusal = read_line(line, base, head.line_at, head.line_length)
    if state == HEAD_COMPLETE and head.refusal == 0:
        state = head_fields(head, base, have)
    if head.refusal == 0:
        used[0] = head_keep(head, base, have, state)
    return state if head.refusal == 0 else HEAD_REFUSED


cdef char* head_spare(Head* head, uint32_t wanted) noexcept nogil:
    return head.data + head.length if _reserve(head, head.length + wanted) else NULL


cdef int _wait(Head* head, uint32_t have, bint first) noexcept nogil:
    """The line at `head.at` is not whole. Refused where it cannot become so within the bounds."""
    head.searched = have
    if first and have - head.at > head.max_line + 1:
        head.refusal = REFUSED_LINE_TOO_LONG
    elif not first and have > head.max_bytes:
        head.refusal = REFUSED_HEADER_BYTES
    else:
        return HEAD_MORE
    return HEAD_REFUSED


cdef int _refuse(Head* head, const char* base, uint32_t have, bint first, int refusal) noexcept nogil:
    """The line at `head.at` is wrong: judged when its LF is there; a bound that it breaks goes first."""
    cdef const char* lf = <const char*>memchr(base + head.at, LF, have - head.at)
    cdef uint32_t end
    if lf == NULL:
        return _wait(head, have, first)
    end = <uint32_t>(lf - base) + 1
    if first:
        end -= head.at + 1 + (lf > base + head.at and lf[-1] == CR)
        head.refusal = REFUSED_LINE_TOO_LONG if end > head.max_line else refusal
    elif end > head.max_bytes:
        head.refusal = REFUSED_HEADER_BYTES
    elif head.count >= head.max_headers:
        head.refusal = REFUSED_HEADER_COUNT
    else:
        head.refusal = refusal
    return HEAD_REFUSED


cdef inline bint _lacks_lf(Head* head, const char* base, uint32_t have) noexcept nogil:
    """Whether a line that was met before is still not whole."""
    return head.searched > head.at and memchr(base + head.searched, LF, have - head.searched) == NULL


cdef inline const char* _skip_value(const char* p, const char* end) noexcept nogil:
    """The first byte that cannot stand in a value, or `end`. Eight at a time: a control character but HTAB
    (or DEL) lights the top bit of its byte; bytes above it may light theirs too, which the table sorts out."""
    cdef uint64_t word
    while True:
        while end - p >= 8:
            memcpy(&word, p, 8)
            if (((word - <uint64_t>0x2020202020202020) & ~word)
                    | ((word ^ <uint64_t>0x7F7F7F7F7F7F7F7F) - <uint64_t>0x0101010101010101)
                    & ~(word ^ <uint64_t>0x7F7F7F7F7F7F7F7F)) & <uint64_t>0x8080808080808080:
                break
            p += 8
        # Here is one within eight bytes, or the end.
        while p < end and is_char(p[0], CHAR_VALUE):
            if p[0] == HTAB:
                p += 1
                break
            p += 1
        else:
            return p


cdef int _why(const char* p) noexcept nogil:
    """What is wrong with a byte that cannot stand where it does, and is followed by another."""
    if p[0] == LF:
        return REFUSED_BARE_LF
    if p[0] == CR:
        return REFUSED_BARE_CR
    return REFUSED_CONTROL


cdef int head_line(Head* head, const char* base, uint32_t have, bint skip_empty) noexcept nogil:
    cdef const char* end = base + have
    cdef const char* p
    if _lacks_lf(head, base, have):
        return _wait(head, have, True)
    if skip_empty and head.at == 0 and have and base[0] == CR:
        # One empty line before a request: some clients send a CRLF too many behind a body (RFC 9112 2.2).
        if have == 1:
            return _wait(head, have, True)
        if base[1] == LF:
            head.at = 2
    p = _skip_value(base + head.at, end)
    if p == end or (p[0] == CR and p + 1 == end):
        return _wait(head, have, True)
    if p[0] != CR or p[1] != LF:
        return _refuse(head, base, have, True, _why(p))
    head.line_at = head.at
    head.line_length = <uint32_t>(p - base) - head.at
    if head.line_length > head.max_line:
        head.refusal = REFUSED_LINE_TOO_LONG
        return HEAD_REFUSED
    head.at += head.line_length + 2
    return HEAD_COMPLETE


cdef int head_fields(Head* head, const char* base, uint32_t have) noexcept nogil:
    cdef const char* end = base + have
    cdef const char* p
    cdef const char* name
    cdef const char* value
    cdef uint32_t next_line
    if _lacks_lf(head, base, have):
        return _wait(head, have, False)
    while True:
        name = base + head.at
        if name == end:
            return _wait(head, have, False)
        p = name
        while p < end and is_char(p[0], CHAR_TOKEN):
            p += 1
        if p == end:
            return _wait(head, have, False)
        if p[0] != COLON or p == name:
            return _end_or_refuse(head, base, have, p)
        value = p + 1
        while value < end and (value[0] == SP or value[0] == HTAB):
            value += 1
        next_line = <uint32_t>(p - name)
        p = _skip_value(value, end)
        if p == end or (p[0] == CR and p + 1 == end):
            return _wait(head, have, False)
        if p[0] != CR or p[1] != LF:
            return _refuse(head, base, have, False, _why(p))
        if <uint32_t>(p - base) + 2 > head.max_bytes or head.count >= head.max_headers or next_line > 0xFFFF:
            return _refuse(head, base, have, False, REFUSED_HEADER_NAME)
        if not _add(head, base, name, <uint16_t>next_line, value, p):
            head.refusal = REFUSED_HEADER_COUNT
            return HEAD_REFUSED
        head.at = <uint32_t>(p - base) + 2


cdef int _end_or_refuse(Head* head, const char* base, uint32_t have, const char* p) noexcept nogil:
    """The end of the head, or a line whose name ends at `p` with something else than a colon."""
    cdef const char* end = base + have
    cdef const char* name = base + head.at
    if p[0] == CR:
        if p + 1 == end:
            return _wait(head, have, False)
        if p[1] != LF:
            return _refuse(head, base, have, False, REFUSED_BARE_CR)
        if p > name:
            return _refuse(head, base, have, False, REFUSED_HEADER_NAME)
        if head.at + 2 > head.max_bytes:
            head.refusal = REFUSED_HEADER_BYTES
            return HEAD_REFUSED
        head.at += 2
        return HEAD_COMPLETE
    if p[0] == LF:
        return _refuse(head, base, have, False, REFUSED_BARE_LF)
    if p[0] == SP or p[0] == HTAB:
        if p == name:
            return _refuse(head, base, have, False, REFUSED_FOLDED_LINE)
        while p < end and (p[0] == SP or p[0] == HTAB):
            p += 1
        if p < end and p[0] == COLON:
            return _refuse(head, base, have, False, REFUSED_SPACE_BEFORE_COLON)
    return _refuse(head, base, have, False, REFUSED_HEADER_NAME)


cdef bint _add(Head* head, const char* base, const char* name, uint16_t name_length, const char* value,
               const char* value_end) noexcept nogil:
    cdef Header* header
    cdef Header* headers
    cdef uint32_t room
    cdef uint64_t bit
    cdef bint is_alias
    if head.count == head.room:
        room = min(max(head.room * 2, <uint32_t>FIRST_HEADERS), head.max_headers)
        headers = <Header*>realloc(head.headers, room * sizeof(Header))
        if headers == NULL:
            return False
        head.headers = headers
        head.room = room
    while value_end > value and (value_end[-1] == SP or value_end[-1] == HTAB):
        value_end -= 1
    header = head.headers + head.count
    header.name_at = <uint32_t>(name - base)
    header.name_length = name_length
    header.value_at = <uint32_t>(value - base)
    header.value_length = <uint32_t>(value_end - value)
    header.field = <uint8_t>field_of(name, name_length, &is_alias)
    header.flags = 0
    if is_alias:
        header.field = FIELD_OTHER
        header.flags = HEADER_DROPPED
    elif header.field != FIELD_OTHER:
        bit = <uint64_t>1 << header.field
        if head.fields & bit:
            head.repeated |= bit
        else:
            head.fields |= bit
            head.first[header.field] = <uint16_t>head.count
    head.count += 1
    return True


cdef const Header* find_header(const Head* head, const char* name, size_t length, uint32_t start) noexcept nogil:
    cdef const Header* header
    cdef uint32_t i
    for i in range(start, head.count):
        header = head.headers + i
        if header.name_length == length and same_text(head.data + header.name_at, length, name, length):
            return header
    return NULL


cdef bytes join_values(const Head* head, const char* name, size_t length, bytes separator):
    cdef const Header* header = find_header(head, name, length, 0)
    cdef bytes value
    cdef list values
    if header == NULL:
        return None
    value = value_of(head, header)
    header = find_header(head, name, length, <uint32_t>(header - head.headers) + 1)
    if header == NULL:
        return value
    values = [value]
    while header != NULL:
        values.append(value_of(head, header))
        header = find_header(head, name, length, <uint32_t>(header - head.headers) + 1)
    return separator.join(values)


cdef bytes value_of(const Head* head, const Header* header):
    return head.data[header.value_at : header.value_at + header.value_length]


cdef list list_headers(const Head* head):
    cdef const Header* header
    cdef uint32_t i
    cdef list found = []
    for i in range(head.count):
        header = head.headers + i
        found.append((head.data[header.name_at : header.name_at + header.name_length], value_of(head, header)))
    return found
