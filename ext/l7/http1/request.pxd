"""The head of a request, checked and understood."""
from libc.stdint cimport int64_t, uint32_t

from l7.http1.head cimport Head
from l7.http1.requestline cimport RequestLine


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
    cdef readonly bint asks_upgrade     # to `upgrade`; never of a request with a body
    cdef RequestLine line
    # Places in head.data
    cdef uint32_t authority_at          # the value of Host
    cdef uint32_t authority_length      # 0: HTTP/1.0 without Host
    cdef uint32_t host_length           # of the authority's part before the port and a final dot
    cdef uint32_t path_at               # normalised
    cdef uint32_t path_length
    # Made when they are asked for
    cdef object _method
    cdef object _target
    cdef object _host
    cdef object _path
    cdef object _id
    cdef object _make_id
    cdef void _forget(self) noexcept nogil
    cdef int _finish(self) noexcept nogil
    cdef int _read_host(self) noexcept nogil
    cdef int _read_path(self) noexcept nogil
    cdef void _give_path(self) noexcept nogil
    cdef int _read_expectation(self) noexcept nogil

    # Reads on; a HEAD_… state. `used` are the bytes of `data` that belong to the head: all of them where more is needed.
    cdef int take(self, const char* data, size_t length, size_t* used) noexcept nogil
    # Ready for the next request; memory is kept.
    cdef void clear(self)
    # The same, and memory is given back: for connections that are idle.
    cdef void release(self)
