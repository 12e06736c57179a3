"""Version, status and reason (RFC 9112 4)."""
from libc.stdint cimport uint32_t


cdef struct StatusLine:
    int version             # 10 or 11
    int status              # 100 to 999
    # Counted as `at` in read_status_line is.
    uint32_t phrase_at      # the reason phrase
    uint32_t phrase_length


# A LineReader (head.pxd); `line` is a StatusLine.
cdef int read_status_line(void* line, const char* base, uint32_t at, uint32_t length) noexcept nogil
