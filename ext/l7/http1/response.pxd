"""The head of an answer, checked and understood."""
from libc.stdint cimport int64_t

from l7.http1.head cimport Head
from l7.http1.statusline cimport StatusLine


cdef class ResponseHead:
    # All but `refusal` only where `state` is HEAD_COMPLETE.
    cdef Head head
    cdef readonly int state             # HEAD_…
    cdef readonly int refusal           # REFUSED_…; what the client gets is a 502
    cdef readonly int status
    cdef readonly int version           # 10 or 11
    cdef readonly int64_t content_length    # -1 where there is none
    cdef readonly bint is_chunked
    cdef readonly bint keeps_alive      # no answer until the close does
    cdef readonly int body_kind         # BODY_…, of the answer to this request
    cdef readonly bint for_head         # the request was HEAD
    cdef readonly bint switches         # 101 with Upgrade: what follows is another protocol
    cdef StatusLine line

    # Reads on; a HEAD_… state. `used` are the bytes of `data` that belong to the head: all of them where more is needed.
    cdef int take(self, const char* data, size_t length, size_t* used) noexcept nogil
    # Ready for the answer to the next request, or for the one behind a 1xx; memory is kept.
    cdef void clear(self, bint for_head) noexcept nogil
    # The same, and memory is given back: for connections that are idle.
    cdef void release(self) noexcept nogil

    cdef void _forget(self) noexcept nogil
    cdef int _finish(self) noexcept nogil
