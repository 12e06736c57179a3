"""Host and port, as they stand in Host and in URIs."""
from libc.stdint cimport uint32_t

# Whether it is a name, an IPv4 address or an IPv6 address in brackets, and an optional port (RFC 9110 7.2). `host_length` is
# how much of it is the host, without a final dot.
cdef bint read_authority(const char* text, uint32_t length, uint32_t* host_length) noexcept nogil
