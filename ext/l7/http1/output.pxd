"""Bytes that are written once: an object as large as they can become, cut to size at the end."""
from cpython.object cimport PyObject
from libc.string cimport memcpy


cdef struct Output:
    PyObject* object
    char* at                # where the next byte goes


# `size` bounds what is written; nothing checks it later.
cdef int output_open(Output* output, size_t size) except -1
cdef bytes output_close(Output* output)


cdef inline void put(Output* output, const char* text, size_t length) noexcept nogil:
    memcpy(output.at, text, length)
    output.at += length


cdef inline void put_crlf(Output* output) noexcept nogil:
    output.at[0] = 13
    output.at[1] = 10
    output.at += 2


cdef inline void put_decimal(Output* output, unsigned long long number) noexcept nogil:
    """At most 20 bytes."""
    cdef char[20] digits
    cdef int first = 20
    while True:
        first -= 1
        digits[first] = <char>(48 + number % 10)
        number //= 10
        if number == 0:
            break
    put(output, digits + first, 20 - first)


cdef inline int hex_length(unsigned long long number) noexcept nogil:
    """Digits that `put_hex` writes."""
    cdef int length = 1
    while number > 15:
        number >>= 4
        length += 1
    return length


cdef inline void put_hex(Output* output, unsigned long long number) noexcept nogil:
    """At most 16 bytes."""
    cdef const char* digits = b"0123456789abcdef"
    cdef int left = hex_length(number)
    while left:
        left -= 1
        output.at[0] = digits[number >> 4 * left & 15]
        output.at += 1
