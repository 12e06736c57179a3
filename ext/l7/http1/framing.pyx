"""How long a body is.

The rules are narrower than RFC 9112 6.3 where it lets a recipient choose. One Content-Length of digits alone, or one
Transfer-Encoding that is `chunked` and nothing else; never both. All smuggling of requests lives in the rest.
"""
from libc.stdint cimport uint32_t

from l7.http1.fields cimport FIELD_CONTENT_LENGTH, FIELD_TRANSFER_ENCODING, same_text
from l7.http1.head cimport Header, first_of, has_field
from l7.http1.refusals cimport (
    REFUSED_CODING,
    REFUSED_CODING_IN_HTTP10,
    REFUSED_CODING_UNKNOWN,
    REFUSED_LENGTH_AND_CODING,
    REFUSED_LENGTH_INVALID,
    REFUSED_LENGTH_REPEATED,
    REFUSED_NOT,
)

cdef enum:
    COMMA = 44


cdef int read_framing(const Head* head, int version, int64_t* length, bint* is_chunked) noexcept nogil:
    length[0] = -1
    is_chunked[0] = False
    if has_field(head, FIELD_TRANSFER_ENCODING):
        if has_field(head, FIELD_CONTENT_LENGTH):
            return REFUSED_LENGTH_AND_CODING
        if version == 10:
            return REFUSED_CODING_IN_HTTP10
        is_chunked[0] = True
        return _read_coding(head)
    if has_field(head, FIELD_CONTENT_LENGTH):
        return _read_length(head, length)
    return REFUSED_NOT


cdef int _read_length(const Head* head, int64_t* length) noexcept nogil:
    cdef const Header* header = first_of(head, FIELD_CONTENT_LENGTH)
    cdef const char* digits = head.data + header.value_at
    cdef int64_t value = 0
    cdef uint32_t i
    if head.repeated >> FIELD_CONTENT_LENGTH & 1:
        return REFUSED_LENGTH_REPEATED
    # 18 digits cannot overflow, and nobody sends an exabyte.
    if not 0 < header.value_length <= 18:
        return REFUSED_LENGTH_INVALID
    for i in range(header.value_length):
        if not 48 <= digits[i] <= 57:
            return REFUSED_LENGTH_INVALID
        value = value * 10 + (digits[i] - 48)
    length[0] = value
    return REFUSED_NOT


cdef int _read_coding(const Head* head) noexcept nogil:
    cdef const Header* header = first_of(head, FIELD_TRANSFER_ENCODING)
    cdef const char* value = head.data + header.value_at
    cdef uint32_t length = header.value_length
    cdef uint32_t start = 0
    cdef uint32_t i
    cdef bint chunked = False
    if head.repeated >> FIELD_TRANSFER_ENCODING & 1:
        return REFUSED_CODING
    if same_text(value, length, b"chunked", 7):
        return REFUSED_NOT
    # Codings in front of a single final chunked are well-formed, and unknown here.
    for i in range(length + 1):
        if i < length and value[i] != COMMA:
            continue
        if chunked:
            return REFUSED_CODING
        while start < i and (value[start] == 32 or value[start] == 9):
            start += 1
        chunked = i - start >= 7 and same_text(value + start, 7, b"chunked", 7)
        if chunked and i - start > 7:
            return REFUSED_CODING
        start = i + 1
    return REFUSED_CODING_UNKNOWN if chunked else REFUSED_CODING
