"""The head of an answer, checked and understood."""
from libc.stdint cimport int64_t, uint32_t

from l7.http1.head cimport Head


cdef class ResponseHead:
    cdef Head head
    cdef readonly int state             # HEAD_…
    cdef readonly int refusal           # REFUSED_…; the answer to the client is a 502
    cdef readonly int status
    cdef readonly int version           # 10 or 11
    cdef readonly int64_t content_length    # -1 where there is none
    cdef readonly bint is_chunked
    cdef readonly bint keeps_alive      # as far as the head says; a body until the close ends it too
    cdef readonly int body_kind         # BODY_…, of the answer to this request
    cdef bint for_head                  # the request was HEAD
    cdef uint32_t reason_at
    cdef uint32_t reason_length
    cdef uint32_t upgrade_at
    cdef uint32_t upgrade_length        # 0: none, or the status is not 101

    cdef int take(self, const char* data, size_t length, size_t* used) noexcept nogil
    # Ready for the answer to the next request, or for the one behind a 1xx.
    cdef void clear(self, bint for_head) noexcept nogil
    cdef void release(self) noexcept nogil
