"""What Connection says.

It may name headers that the sender made for the next hop alone. That is also a way to have headers taken away that a proxy in front
added, or that the backend relies on; what is known to be meant for everyone cannot be named.
"""
from libc.stdint cimport uint32_t

from l7.http1.fields cimport (
    CHAR_TOKEN,
    FIELD_CONNECTION,
    FIELD_OTHER,
    FIELD_UPGRADE,
    TRAIT_END_TO_END,
    field_of,
    field_traits,
    is_char,
    lower,
    same_text,
)
from l7.http1.head cimport HEADER_DROPPED, Header, first_of, has_field
from l7.http1.refusals cimport REFUSED_CONNECTION, REFUSED_CONNECTION_NAMES_FIELD, REFUSED_NOT

cdef enum:
    # Each is looked for among all headers, so their number bounds the work.
    MAX_OPTIONS = 32
    COMMA = 44
    SLASH = 47


cdef inline bint _is_space(char c) noexcept nogil:
    return c == 32 or c == 9


cdef int read_connection(Head* head, int* options) noexcept nogil:
    cdef const Header* header
    cdef uint32_t i
    cdef int refusal
    cdef int left = MAX_OPTIONS
    options[0] = 0
    if has_field(head, FIELD_CONNECTION):
        for i in range(head.first[<int>FIELD_CONNECTION], head.count):
            header = head.headers + i
            if header.field == FIELD_CONNECTION:
                refusal = _read_options(head, header, options, &left)
                if refusal:
                    return refusal
    if has_field(head, FIELD_UPGRADE):
        return _check_upgrade(head)
    return REFUSED_NOT


cdef int _read_options(Head* head, const Header* header, int* options, int* left) noexcept nogil:
    cdef const char* p = head.data + header.value_at
    cdef const char* end = p + header.value_length
    cdef const char* option
    cdef int refusal
    while True:
        # Empty elements of a list are skipped (RFC 9110 5.6.1.2).
        while p < end and (_is_space(p[0]) or p[0] == COMMA):
            p += 1
        if p == end:
            return REFUSED_NOT
        option = p
        while p < end and is_char(p[0], CHAR_TOKEN):
            p += 1
        left[0] -= 1
        if p == option or left[0] < 0:
            return REFUSED_CONNECTION
        refusal = _take_option(head, option, p - option, options)
        if refusal:
            return refusal
        while p < end and _is_space(p[0]):
            p += 1
        if p < end and p[0] != COMMA:
            return REFUSED_CONNECTION


cdef int _take_option(Head* head, const char* option, size_t length, int* options) noexcept nogil:
    cdef bint is_alias
    cdef int field
    cdef uint32_t i
    cdef Header* header
    if same_text(option, length, b"keep-alive", 10):
        options[0] |= CONNECTION_KEEP_ALIVE
        return REFUSED_NOT
    if same_text(option, length, b"close", 5):
        options[0] |= CONNECTION_CLOSE
        return REFUSED_NOT
    if same_text(option, length, b"upgrade", 7):
        options[0] |= CONNECTION_UPGRADE
        return REFUSED_NOT
    field = field_of(option, length, &is_alias)
    if field != FIELD_OTHER:
        return REFUSED_CONNECTION_NAMES_FIELD if field_traits[field] & TRAIT_END_TO_END else REFUSED_NOT
    for i in range(head.count):
        header = head.headers + i
        if header.name_length == length and _same_names(head.data + header.name_at, option, length):
            header.flags |= HEADER_DROPPED
    return REFUSED_NOT


cdef bint _same_names(const char* a, const char* b, size_t length) noexcept nogil:
    cdef size_t i
    for i in range(length):
        if lower(a[i]) != lower(b[i]):
            return False
    return True


cdef int _check_upgrade(Head* head) noexcept nogil:
    """One header of protocols: tokens with an optional version, separated by commas (RFC 9110 7.8)."""
    cdef const Header* header = first_of(head, FIELD_UPGRADE)
    cdef const char* value = head.data + header.value_at
    cdef uint32_t i
    if head.repeated >> FIELD_UPGRADE & 1 or header.value_length == 0:
        return REFUSED_CONNECTION
    for i in range(header.value_length):
        if not (is_char(value[i], CHAR_TOKEN) or value[i] == COMMA or value[i] == SLASH or _is_space(value[i])):
            return REFUSED_CONNECTION
    return REFUSED_NOT
