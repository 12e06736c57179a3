"""A head, or a trailer section, as offsets into a buffer of its own: what requests, answers and trailers share.

Lines are parsed as they become complete, each byte at most three times however the head is cut; nothing is allocated for a header
but its entry in one array. Errors are found at the same place however it is cut: a line is judged when its LF is there.

Bounds: `max_bytes` of the whole head and `max_line` of its first line; `max_headers`. The buffer grows up to the former.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from l7.http1.fields cimport FIELD_COUNT


cpdef enum HeadState:
    HEAD_MORE = 0
    HEAD_COMPLETE = 1
    HEAD_REFUSED = 2


cdef enum:
    # Named by Connection, or an alias of a known field: stays behind.
    HEADER_DROPPED = 1


cdef struct Header:     # 16 bytes
    uint32_t name_at
    uint32_t value_at
    uint32_t value_length   # without white space around it
    uint16_t name_length
    uint8_t field           # FIELD_…
    uint8_t flags           # HEADER_…


cdef struct Head:
    char* data              # all of the head, with its last CRLF
    uint32_t length
    uint32_t size           # of the buffer
    uint32_t count
    uint32_t room           # of `headers`
    Header* headers
    uint64_t fields         # a bit for each known field that is there
    uint64_t repeated       # and for each that is there more than once
    uint16_t[FIELD_COUNT] first     # index of the first header of a known field, where its bit is set
    # Bounds
    uint32_t max_bytes
    uint32_t max_line
    uint32_t max_headers
    # Progress
    uint32_t at             # start of the line that comes next
    uint32_t searched       # no LF between `at` and here
    uint32_t line_at        # the first line
    uint32_t line_length    # without CRLF; 0 until it is complete
    int refusal             # REFUSED_…


# `head` is all zero bytes before. `max_bytes` is at least enough for a first line of `max_line`.
cdef void head_open(Head* head, uint32_t max_bytes, uint32_t max_line, uint32_t max_headers) noexcept nogil
# No headers: those of a head that is refused may stand in bytes that are gone.
cdef void head_forget(Head* head) noexcept nogil
# Ready for the next one; memory is kept.
cdef void head_clear(Head* head) noexcept nogil
# The same, and memory is given back.
cdef void head_release(Head* head) noexcept nogil

# A head is read in steps, each until it returns HEAD_COMPLETE:
#     have = head_gather(&head, data, length, &base)
#     state = head_line(&head, base, have, True)           not for trailers
#     state = head_fields(&head, base, have)
#     used = head_keep(&head, base, have, state)
# `base` is the data itself where nothing was kept from before: most heads come in one piece. Without memory,
# `head.refusal` is set by the first and the last.
cdef uint32_t head_gather(Head* head, const char* data, size_t length, const char** base) noexcept nogil
cdef int head_line(Head* head, const char* base, uint32_t have, bint skip_empty) noexcept nogil
cdef int head_fields(Head* head, const char* base, uint32_t have) noexcept nogil
cdef size_t head_keep(Head* head, const char* base, uint32_t have, int state) noexcept nogil

# Reads the first line, of `length` bytes at base + at, into what `line` points to; a REFUSED_…, or 0.
ctypedef int (*LineReader)(void* line, const char* base, uint32_t at, uint32_t length) noexcept nogil
# All of these steps, for a head with a first line; a HEAD_… state. `used` are the bytes of `data` that belong to the head.
cdef int head_take(Head* head, const char* data, size_t length, size_t* used, bint skip_empty, LineReader read_line,
                   void* line) noexcept nogil
# Writable bytes behind the head for what is derived from it, or NULL; they move with the buffer.
cdef char* head_spare(Head* head, uint32_t wanted) noexcept nogil

cdef inline bint has_field(const Head* head, int field) noexcept nogil:
    return head.fields >> field & 1


cdef inline const Header* first_of(const Head* head, int field) noexcept nogil:
    """The first header of a known field, or NULL."""
    return head.headers + head.first[field] if head.fields >> field & 1 else NULL


# The next header from index `start` on whose name is `name` (in lower case), or NULL.
cdef const Header* find_header(const Head* head, const char* name, size_t length, uint32_t start) noexcept nogil
# The values of that name, joined by `separator`; None where there is none.
cdef bytes join_values(const Head* head, const char* name, size_t length, bytes separator)
cdef bytes value_of(const Head* head, const Header* header)
# All of them, as sent: (name, value).
cdef list list_headers(const Head* head)
