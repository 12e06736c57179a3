"""The access log: a line for each request and each connection that is passed through, appended to a buffer and written when that is full or a second old.

Whatever a client sent is escaped, so that nobody can end a line, forge one, or send a terminal's control sequences:
`"`, `\\` and every byte outside of printable ASCII become `\\xXX` (as in nginx) or, in JSON, `\\u00XX`. A
file is written in whole lines with O_APPEND, so that workers can share it. A pipe that nobody reads does not stop the
worker: what does not fit into MAX_BUFFER is lost and counted.
"""
from libc.stdint cimport int64_t

from l7.proxy.sides cimport Front


cdef enum:
    FLUSH_BYTES = 1 << 16
    MAX_BUFFER = 1 << 22


cdef class AccessLog:
    cdef readonly object path           # None: standard output
    cdef bint is_json
    cdef bint is_file
    cdef int descriptor
    cdef char* buffer
    cdef size_t length
    cdef size_t size
    cdef readonly int64_t lost          # lines
    cdef int64_t _second
    cdef char[32] _time                 # `02/Jan/2026:…`, or ISO 8601
    cdef size_t _time_length

    cdef void add(self, Front request, double now_s)
    cpdef flush(self)

    cdef bint _reserve(self, size_t length) noexcept
    cdef void _put(self, const char* text, size_t length) noexcept
    cdef void _put_text(self, const char* text) noexcept
    cdef void _put_escaped(self, const char* text, size_t length) noexcept
    cdef void _put_bytes(self, bytes text)
    cdef void _put_number(self, int64_t number) noexcept
    cdef void _put_seconds(self, double seconds) noexcept
    cdef void _put_header(self, Front request, int field) noexcept
    cdef void _put_time(self, double now_s) noexcept
    cdef void _put_combined(self, Front request, double now_s)
    cdef void _put_json(self, Front request, double now_s)
    cdef void _put_client(self, peer, double now_s)
    cdef void _put_passed_combined(self, passage, bytes name, double now_s)
    cdef void _put_passed_json(self, passage, bytes name, double now_s)
    cdef void _put_key(self, const char* key) noexcept
    cdef void _put_string(self, const char* key, bytes text)
