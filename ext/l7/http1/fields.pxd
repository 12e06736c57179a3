"""Header fields that the proxy acts on, by number, and the alphabet of HTTP/1."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t


# Field numbers are below 64, so that a set of fields is one word.
cpdef enum Field:
    FIELD_OTHER = 0
    FIELD_HOST = 1
    FIELD_CONTENT_LENGTH = 2
    FIELD_TRANSFER_ENCODING = 3
    FIELD_CONNECTION = 4
    FIELD_KEEP_ALIVE = 5
    FIELD_PROXY_CONNECTION = 6
    FIELD_TE = 7
    FIELD_TRAILER = 8
    FIELD_UPGRADE = 9
    FIELD_HTTP2_SETTINGS = 10
    FIELD_EXPECT = 11
    FIELD_PROXY_AUTHENTICATE = 12
    FIELD_PROXY_AUTHORIZATION = 13
    FIELD_COOKIE = 14
    FIELD_SET_COOKIE = 15
    FIELD_AUTHORIZATION = 16
    FIELD_CONTENT_TYPE = 17
    FIELD_CONTENT_ENCODING = 18
    FIELD_CONTENT_RANGE = 19
    FIELD_RANGE = 20
    FIELD_CACHE_CONTROL = 21
    FIELD_DATE = 22
    FIELD_SERVER = 23
    FIELD_LOCATION = 24
    FIELD_USER_AGENT = 25
    FIELD_REFERER = 26
    FIELD_FORWARDED = 27
    FIELD_X_FORWARDED_FOR = 28
    FIELD_X_FORWARDED_PROTO = 29
    FIELD_X_FORWARDED_HOST = 30
    FIELD_X_FORWARDED_PORT = 31
    FIELD_X_REAL_IP = 32
    FIELD_COUNT = 33


cpdef enum Trait:
    # For this connection alone; never forwarded (RFC 9110 7.6.1).
    TRAIT_HOP_BY_HOP = 1
    # Connection may not name it, so that a client cannot have it dropped.
    TRAIT_END_TO_END = 2
    # Never taken from a trailer section (RFC 9110 6.5.1).
    TRAIT_NOT_IN_TRAILERS = 4


cdef enum:
    CHAR_TOKEN = 1      # tchar, RFC 9110 5.6.2
    CHAR_TARGET = 2     # visible ASCII but `#`
    CHAR_VALUE = 4      # HTAB, SP, visible ASCII, obs-text
    CHAR_HOST = 8       # of a name in Host: what DNS and hosts files use
    CHAR_METHOD = 16    # A-Z, `-` and `_`

cdef uint8_t[256] char_class
cdef uint8_t[FIELD_COUNT] field_traits


cdef inline bint is_char(char c, int kind) noexcept nogil:
    return char_class[<uint8_t>c] & kind


cdef inline uint8_t lower(char c) noexcept nogil:
    """Of ASCII letters."""
    cdef uint8_t u = <uint8_t>c
    return u | 0x20 if 65 <= u <= 90 else u


# Lower case, and `_` as `-`.
cdef uint8_t folded_char(char c) noexcept nogil

# Whether the two are equal but for the case of ASCII letters; `text` is in lower case.
cdef bint same_text(const char* data, size_t length, const char* text, size_t text_length) noexcept nogil

# The number of a field by a name made of token characters. `_` counts as `-`: behind the proxy, CGI and its
# heirs cannot tell the two apart; `is_alias` says that the name was written so.
cdef int field_of(const char* name, size_t length, bint* is_alias) noexcept nogil
