"""Paths as they are matched.

What is sent on stays as the client wrote it; this is for choosing a route. A path whose reading would differ between the
two is refused: an escape that is none, NUL, and `..` beyond the root.
"""
from l7.http1.refusals cimport REFUSED_TARGET_ABOVE_ROOT, REFUSED_TARGET_ESCAPE

cdef enum:
    SLASH = 47
    DOT = 46
    PERCENT = 37


cdef int hex_digit(char c) noexcept nogil:
    if 48 <= c <= 57:
        return c - 48
    if 65 <= c <= 70:
        return c - 55
    if 97 <= c <= 102:
        return c - 87
    return -1


cdef int32_t normalise(const char* raw, uint32_t length, char* out) noexcept nogil:
    cdef uint32_t read = 1
    cdef uint32_t written = 1
    cdef uint32_t segment = 1       # where the present one begins in `out`
    cdef int high, low
    cdef char c
    out[0] = SLASH
    while read < length:
        c = raw[read]
        read += 1
        if c == PERCENT:
            if read + 2 > length:
                return -REFUSED_TARGET_ESCAPE
            high = hex_digit(raw[read])
            low = hex_digit(raw[read + 1])
            if high < 0 or low < 0 or high + low == 0:
                return -REFUSED_TARGET_ESCAPE
            c = <char>(high << 4 | low)
            read += 2
        if c != SLASH:
            out[written] = c
            written += 1
            continue
        if not _end_segment(out, &segment, &written):
            return -REFUSED_TARGET_ABOVE_ROOT
        if written > segment:
            out[written] = SLASH
            written += 1
            segment = written
    if not _end_segment(out, &segment, &written):
        return -REFUSED_TARGET_ABOVE_ROOT
    return <int32_t>written


cdef bint _end_segment(char* out, uint32_t* segment, uint32_t* written) noexcept nogil:
    """Takes a dot segment back; False where that would leave the root."""
    cdef uint32_t length = written[0] - segment[0]
    if length == 1 and out[segment[0]] == DOT:
        written[0] = segment[0]
    elif length == 2 and out[segment[0]] == DOT and out[segment[0] + 1] == DOT:
        if segment[0] == 1:
            return False
        segment[0] -= 1
        while out[segment[0] - 1] != SLASH:
            segment[0] -= 1
        written[0] = segment[0]
    return True


def normalise_path(bytes path not None):
    """`path` (from its `/` on, without a query) as it is matched, or None where it is refused."""
    cdef bytearray out = bytearray(len(path))
    cdef int32_t length
    if not path.startswith(b"/"):
        return None
    length = normalise(path, <uint32_t>len(path), <char*>out)
    return None if length < 0 else bytes(out[:length])
