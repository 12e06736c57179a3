"""The head of an answer."""
from l7.http1.head cimport HEAD_MORE


cdef class ResponseHead:
    cdef int take(self, const char* data, size_t length, size_t* used) noexcept nogil:
        return HEAD_MORE

    cdef void clear(self, bint for_head) noexcept nogil:
        pass

    cdef void release(self) noexcept nogil:
        pass
