"""Version, status and reason."""
from libc.string cimport memcmp

from l7.http1.refusals cimport REFUSED_NOT, REFUSED_STATUS_LINE

cdef enum:
    STATUS_AT = 9       # behind `HTTP/1.1 `
    SHORTEST = 12       # with the status; a space and a reason may follow
    SP = 32


cdef int read_status_line(void* line, const char* base, uint32_t at, uint32_t length) noexcept nogil:
    cdef StatusLine* out = <StatusLine*>line
    cdef const char* text = base + at
    cdef int i
    if length < SHORTEST or memcmp(text, b"HTTP/1.", 7) != 0 or text[STATUS_AT - 1] != SP:
        return REFUSED_STATUS_LINE
    if text[7] != 48 and text[7] != 49:
        return REFUSED_STATUS_LINE
    out.version = 10 + text[7] - 48
    out.status = 0
    for i in range(STATUS_AT, SHORTEST):
        if not 48 <= text[i] <= 57:
            return REFUSED_STATUS_LINE
        out.status = out.status * 10 + text[i] - 48
    # The space behind the status is asked for even without a reason, and often left out.
    if out.status < 100 or (length > SHORTEST and text[SHORTEST] != SP):
        return REFUSED_STATUS_LINE
    out.phrase_at = at + min(length, <uint32_t>SHORTEST + 1)
    out.phrase_length = length - min(length, <uint32_t>SHORTEST + 1)
    return REFUSED_NOT
