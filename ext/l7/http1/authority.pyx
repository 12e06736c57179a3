"""Host and port, as they stand in Host and in URIs.

RFC 3986 lets a host have percent-escapes and `!$&'()*+,;=`. No name of DNS does, and each is read differently by somebody:
they are refused, as is a user in front of the host.
"""
from l7.http1.fields cimport CHAR_HOST, is_char
from l7.http1.paths cimport hex_digit

cdef enum:
    MAX_NAME = 255      # RFC 1035 2.3.4, with a final dot
    MAX_IPV6 = 45       # with an IPv4 address at its end
    DOT = 46
    COLON = 58
    OPENING = 91
    CLOSING = 93


cdef bint read_authority(const char* text, uint32_t length, uint32_t* host_length) noexcept nogil:
    cdef uint32_t end = 0
    if length and text[0] == OPENING:
        end = _ipv6_end(text, length)
    else:
        while end < length and is_char(text[end], CHAR_HOST):
            end += 1
        if end > MAX_NAME or (end and text[0] == DOT):
            return False
    if end == 0:
        return False
    host_length[0] = end - 1 if text[end - 1] == DOT else end
    return end == length or (text[end] == COLON and _is_port(text + end + 1, length - end - 1))


cdef uint32_t _ipv6_end(const char* text, uint32_t length) noexcept nogil:
    """Behind the closing bracket, or 0. Digits and colons are checked, not the address: it only has to be unambiguous."""
    cdef uint32_t i = 1
    while i < length and (hex_digit(text[i]) >= 0 or text[i] == COLON or text[i] == DOT):
        i += 1
    return i + 1 if 3 <= i <= MAX_IPV6 + 1 and i < length and text[i] == CLOSING else 0


cdef bint _is_port(const char* digits, uint32_t length) noexcept nogil:
    """It may be empty (RFC 3986 3.2.3)."""
    cdef uint32_t value = 0
    cdef uint32_t i
    if length > 5:
        return False
    for i in range(length):
        if not 48 <= digits[i] <= 57:
            return False
        value = value * 10 + <uint32_t>(digits[i] - 48)
    return value <= 65535
