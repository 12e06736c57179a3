"""Cookies of a request (RFC 6265 4.2)."""
from l7.http1.head cimport Head

# The value of the first cookie of that name in all Cookie headers, as sent; None where there is none.
cdef bytes find_cookie(const Head* head, const char* name, size_t length)
