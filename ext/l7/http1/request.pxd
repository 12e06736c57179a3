"""The head of a request, checked and understood."""
from libc.stdint cimport int64_t, uint8_t, uint32_t

from l7.http1.head cimport Head


cpdef enum Method:
    METHOD_OTHER = 0
    METHOD_GET = 1
    METHOD_HEAD = 2
    METHOD_POST = 3
    METHOD_PUT = 4
    METHOD_DELETE = 5
    METHOD_OPTIONS = 6
    METHOD_PATCH = 7


cdef class RequestHead:
    # All but `refusal` only where `state` is HEAD_COMPLETE.
    cdef Head head
    cdef readonly int state             # HEAD_…
    cdef readonly int refusal           # REFUSED_…
    cdef readonly int method_number     # METHOD_…
    cdef readonly int version           # 10 or 11
    cdef readonly int64_t content_length    # -1 where there is none
    cdef readonly bint is_chunked
    cdef readonly bint keeps_alive
    cdef readonly bint expects_continue
    cdef readonly bint is_idempotent    # by its method (RFC 9110 9.2.2)
    # Places in head.data
    cdef uint32_t method_length         # from 0 on, behind `method_at`
    cdef uint32_t method_at
    cdef uint32_t target_at
    cdef uint32_t target_length
    cdef uint32_t raw_path_length       # of the target's part before `?`
    cdef uint32_t authority_at
    cdef uint32_t authority_length
    cdef uint32_t host_length           # of the authority's part before the port and a final dot
    cdef uint32_t path_at               # normalised
    cdef uint32_t path_length
    cdef uint32_t upgrade_at
    cdef uint32_t upgrade_length        # 0: no upgrade is asked for
    # Made when they are asked for
    cdef object _method
    cdef object _target
    cdef object _host
    cdef object _path

    # Reads on; a HEAD_… state. `used` are the bytes of `data` that belong to the head: all of them where more is needed.
    cdef int take(self, const char* data, size_t length, size_t* used) noexcept nogil
    # Ready for the next request; memory is kept.
    cdef void clear(self)
    # The same, and memory is given back: for connections that are idle.
    cdef void release(self)
