"""How long a body is, by Content-Length and Transfer-Encoding (RFC 9112 6)."""
from libc.stdint cimport int64_t

from l7.http1.head cimport Head

# Fills `length` (-1 where none is given) and `is_chunked`; a REFUSED_…, or 0. `version` is 10 or 11.
cdef int read_framing(const Head* head, int version, int64_t* length, bint* is_chunked) noexcept nogil
