"""Paths as they are matched."""
from libc.stdint cimport int32_t, uint32_t

# Writes the path for matching to `out`, which has room for `length` bytes: percent-decoded, slashes merged, dot segments
# removed (RFC 3986 5.2.4), in this order, as nginx does. `raw` begins with `/`. Its length, or -REFUSED_….
cdef int32_t normalise(const char* raw, uint32_t length, char* out) noexcept nogil
# The value of a hexadecimal digit, or -1.
cdef int hex_digit(char c) noexcept nogil
