"""Method, target and version (RFC 9112 3)."""
from libc.stdint cimport uint32_t


cpdef enum Method:
    METHOD_OTHER = 0
    METHOD_GET = 1
    METHOD_HEAD = 2
    METHOD_POST = 3
    METHOD_PUT = 4
    METHOD_DELETE = 5
    METHOD_OPTIONS = 6
    METHOD_PATCH = 7


cdef struct RequestLine:
    # Places are counted as `at` in read_request_line is.
    uint32_t method_at
    uint32_t method_length
    uint32_t target_at
    uint32_t target_length
    uint32_t raw_path_length    # of the target's part before `?`
    int method                  # METHOD_…
    int version                 # 10 or 11
    bint path_is_plain          # as sent it is normalised
    uint32_t uri_at             # of a target that is a URI: its authority
    uint32_t uri_length         # 0: it is none


# A LineReader (head.pxd); `line` is a RequestLine. A target that is a URI is cut down to its path, which may be empty.
cdef int read_request_line(void* line, const char* base, uint32_t at, uint32_t length) noexcept nogil
