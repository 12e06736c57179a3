"""Cookies of a request."""
from libc.stdint cimport uint32_t
from libc.string cimport memchr, memcmp

from l7.http1.fields cimport FIELD_COOKIE
from l7.http1.head cimport Header, has_field

cdef enum:
    SEMICOLON = 59
    EQUALS = 61


cdef bytes find_cookie(const Head* head, const char* name, size_t length):
    cdef const Header* header
    cdef uint32_t i
    cdef bytes value
    if not has_field(head, FIELD_COOKIE):
        return None
    for i in range(head.first[<int>FIELD_COOKIE], head.count):
        header = head.headers + i
        if header.field == FIELD_COOKIE:
            value = _find_pair(head.data + header.value_at, header.value_length, name, length)
            if value is not None:
                return value
    return None


cdef bytes _find_pair(const char* p, size_t length, const char* name, size_t name_length):
    cdef const char* end = p + length
    cdef const char* stop
    while p < end:
        while p < end and (p[0] == 32 or p[0] == 9):
            p += 1
        stop = <const char*>memchr(p, SEMICOLON, end - p)
        if stop == NULL:
            stop = end
        if <size_t>(stop - p) > name_length and p[name_length] == EQUALS and memcmp(p, name, name_length) == 0:
            p += name_length + 1
            while stop > p and (stop[-1] == 32 or stop[-1] == 9):
                stop -= 1
            return p[: stop - p]
        p = stop + 1
    return None
