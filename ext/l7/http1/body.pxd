"""Bodies: where they end, and what of the bytes is payload. Nothing is copied.

    while True:
        state = body.read(data, length, &at, &span, &span_length)
        BODY_SPAN      span .. span + span_length is payload; go on
        BODY_MORE      all of data is read
        BODY_END       the message ends before data + at
        BODY_REFUSED   body.refusal says why

`at` is where reading begins, and is moved on. A body that is read until the connection closes never ends here.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from l7.http1.head cimport Head


cpdef enum BodyKind:
    BODY_NONE = 0
    BODY_LENGTH = 1
    BODY_CHUNKED = 2
    BODY_UNTIL_CLOSE = 3

cpdef enum BodyState:
    BODY_MORE = 0
    BODY_SPAN = 1
    BODY_END = 2
    BODY_REFUSED = 3


cdef class BodyReader:
    cdef readonly int kind          # BODY_…
    cdef readonly bint is_over
    cdef readonly int refusal       # REFUSED_…
    cdef readonly uint64_t received # bytes of payload so far
    cdef uint64_t left              # of the length, or of the present chunk
    cdef int step                   # of the chunked coding
    cdef uint32_t digits            # of the present chunk's size
    cdef uint32_t extension         # bytes of the present chunk's extensions
    cdef Head trailers              # complete where a chunked body is over

    # `length` counts for BODY_LENGTH alone. A body of no bytes is over at once.
    cdef void begin(self, int kind, int64_t length) noexcept nogil
    cdef int read(self, const char* data, size_t length, size_t* at,
                  const char** span, size_t* span_length) noexcept nogil
    # The same for all of `data`, as one piece that is ready to be sent on: the payload, or where `as_chunks` one chunk of it, and
    # the last chunk with the trailers when the message ends. b"" where there is nothing to send. `used` is what
    # of `data` belongs to the message. None where the body is refused.
    cdef bytes collect(self, const char* data, size_t length, size_t* used, bint as_chunks)

    cdef int _read_chunks(self, const char* data, size_t length, size_t* at,
                          const char** span, size_t* span_length) noexcept nogil
    cdef int _refuse(self, int refusal) noexcept nogil
    cdef int _read_trailers(self, const char* data, size_t length, size_t* at) noexcept nogil


# The end of a body without trailers.
cdef bytes LAST_CHUNK
