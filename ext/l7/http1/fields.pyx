"""Header fields and characters, as tables that are filled once, at import."""
from libc.string cimport memcpy

cdef enum:
    SLOTS = 256
    # Factors of the hash, found by trying: no two names below share a slot, or this would not import.
    BY_LENGTH = 3
    BY_FIRST = 52
    BY_MIDDLE = 15
    BY_LAST = 59

HOP = TRAIT_HOP_BY_HOP | TRAIT_NOT_IN_TRAILERS
END = TRAIT_END_TO_END
END_NOT_IN_TRAILERS = TRAIT_END_TO_END | TRAIT_NOT_IN_TRAILERS

# Fields in the order of their numbers, and what they are. Hop-by-hop are those of RFC 9110 7.6.1 and the two that concern
# a proxy itself; Host and the framing are built anew, so they stay behind as well. A trailer must not say what had to be
# known before the body: framing, routing, authentication, content (RFC 9110 6.5.1).
FIELDS = (
    (b"host", HOP | END),
    (b"content-length", HOP | END),
    (b"transfer-encoding", HOP | END),
    (b"connection", HOP),
    (b"keep-alive", HOP),
    (b"proxy-connection", HOP),
    (b"te", HOP),
    (b"trailer", TRAIT_NOT_IN_TRAILERS),
    (b"upgrade", HOP),
    (b"http2-settings", HOP),
    (b"expect", HOP),
    (b"proxy-authenticate", HOP),
    (b"proxy-authorization", HOP),
    (b"cookie", END_NOT_IN_TRAILERS),
    (b"set-cookie", END_NOT_IN_TRAILERS),
    (b"authorization", END_NOT_IN_TRAILERS),
    (b"content-type", END_NOT_IN_TRAILERS),
    (b"content-encoding", END_NOT_IN_TRAILERS),
    (b"content-range", END_NOT_IN_TRAILERS),
    (b"range", END_NOT_IN_TRAILERS),
    (b"cache-control", END_NOT_IN_TRAILERS),
    (b"date", END_NOT_IN_TRAILERS),
    (b"server", END),
    (b"location", END_NOT_IN_TRAILERS),
    (b"user-agent", END),
    (b"referer", END),
    (b"forwarded", END_NOT_IN_TRAILERS),
    (b"x-forwarded-for", END_NOT_IN_TRAILERS),
    (b"x-forwarded-proto", END_NOT_IN_TRAILERS),
    (b"x-forwarded-host", END_NOT_IN_TRAILERS),
    (b"x-forwarded-port", END_NOT_IN_TRAILERS),
    (b"x-real-ip", END_NOT_IN_TRAILERS),
)

cdef struct Known:
    char[24] name           # in lower case
    uint8_t length

cdef Known[FIELD_COUNT] known
cdef uint8_t[SLOTS] slots   # FIELD_…, or 0
cdef uint8_t[256] folded    # lower case, and `_` as `-`


cdef inline uint32_t slot_of(const char* name, size_t length) noexcept nogil:
    # The last but one, since `…-Host` and `…-Port` differ in no other of these.
    return (<uint32_t>length * BY_LENGTH + folded[<uint8_t>name[0]] * BY_FIRST
            + folded[<uint8_t>name[(length - 1) >> 1]] * BY_MIDDLE
            + folded[<uint8_t>name[length - 1 - (length > 1)]] * BY_LAST) % SLOTS


cdef inline uint64_t eight(const char* p) noexcept nogil:
    """Eight characters of a name with the bit of lower case set: exact where the other side is letters, digits and `-`,
    since no other token character becomes one of these by it."""
    cdef uint64_t word
    memcpy(&word, p, 8)
    return word | <uint64_t>0x2020202020202020


cdef inline bint same_name(const char* name, const char* other, size_t length) noexcept nogil:
    """`other` is a known name."""
    cdef size_t i = 0
    if length >= 8:
        while i + 8 <= length:
            if eight(name + i) != eight(other + i):
                return False
            i += 8
        return eight(name + length - 8) == eight(other + length - 8)
    while i < length:
        if name[i] | 0x20 != other[i]:
            return False
        i += 1
    return True


cdef int field_of(const char* name, size_t length, bint* is_alias) noexcept nogil:
    cdef int field
    cdef size_t i
    is_alias[0] = False
    if length == 0:
        return FIELD_OTHER
    field = slots[slot_of(name, length)]
    if field == FIELD_OTHER or known[field].length != length:
        return FIELD_OTHER
    if same_name(name, known[field].name, length):
        return field
    for i in range(length):
        if folded_char(name[i]) != <uint8_t>known[field].name[i]:
            return FIELD_OTHER
    is_alias[0] = True
    return field


cdef uint8_t folded_char(char c) noexcept nogil:
    return folded[<uint8_t>c]


cdef bint same_text(const char* data, size_t length, const char* text, size_t text_length) noexcept nogil:
    cdef size_t i
    if length != text_length:
        return False
    for i in range(length):
        if lower(data[i]) != <uint8_t>text[i]:
            return False
    return True


def field_number(bytes name not None):
    """The number of a field by its name in any case; FIELD_OTHER for one that is not known or is an alias."""
    cdef bint is_alias = False
    cdef int field = field_of(name, len(name), &is_alias)
    return FIELD_OTHER if is_alias else field


cdef int _mark(bytes characters, int kind) except -1:
    cdef uint8_t c
    for c in characters:
        char_class[c] |= kind
    return 0


cdef int _load() except -1:
    cdef int number
    cdef uint32_t slot
    cdef bytes name
    letters = bytes(range(65, 91)) + bytes(range(97, 123))
    digits = b"0123456789"
    visible = bytes(range(33, 127))
    _mark(letters + digits + b"!#$%&'*+-.^_`|~", CHAR_TOKEN)
    _mark(visible.replace(b"#", b""), CHAR_TARGET)
    _mark(b"\t " + visible + bytes(range(128, 256)), CHAR_VALUE)
    _mark(letters + digits + b"-._", CHAR_HOST)
    _mark(bytes(range(65, 91)) + b"-_", CHAR_METHOD)
    for number in range(256):
        folded[number] = 45 if number == 95 else lower(<char>number)
    for number, (name, traits) in enumerate(FIELDS, start=1):
        memcpy(known[number].name, <const char*>name, len(name))
        known[number].length = <uint8_t>len(name)
        field_traits[number] = traits
        slot = slot_of(name, len(name))
        if slots[slot] or len(name) > 24:
            raise ImportError(f"fields: {name} shares a slot with {FIELDS[slots[slot] - 1][0]}, or is too long")
        slots[slot] = <uint8_t>number
    return 0


if len(FIELDS) != FIELD_COUNT - 1:
    raise ImportError(f"fields: {len(FIELDS)} names, and {FIELD_COUNT - 1} numbers")
_load()
