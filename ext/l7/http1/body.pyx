"""Bodies: where they end."""
cdef class BodyReader:
    cdef void begin(self, int kind, int64_t length) noexcept nogil:
        pass

    cdef int read(self, const char* data, size_t length, size_t* at,
                  const char** span, size_t* span_length) noexcept nogil:
        return BODY_MORE

    cdef bytes collect(self, const char* data, size_t length, size_t* used, bint as_chunk, bint with_trailers):
        return b""
