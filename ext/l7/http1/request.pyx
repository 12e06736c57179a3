"""The head of a request."""
from l7.http1.head cimport HEAD_MORE

cdef class RequestHead:
    cdef int take(self, const char* data, size_t length, size_t* used) noexcept nogil:
        return HEAD_MORE

    cdef void clear(self):
        pass

    cdef void release(self):
        pass
