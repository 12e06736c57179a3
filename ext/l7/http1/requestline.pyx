"""Method, target and version.

A target is a path, a URI of http or https whose authority Host must repeat, or the `*` of OPTIONS. What a URI's scheme says is not
believed: the listener knows it.
"""
from libc.string cimport memcmp

from l7.http1.fields cimport CHAR_METHOD, CHAR_TARGET, CHAR_TOKEN, is_char, same_text
from l7.http1.refusals cimport (
    REFUSED_HTTP2_PREFACE,
    REFUSED_METHOD,
    REFUSED_METHOD_NOT_ALLOWED,
    REFUSED_NOT,
    REFUSED_REQUEST_LINE,
    REFUSED_TARGET,
    REFUSED_TARGET_FRAGMENT,
    REFUSED_TARGET_NOT_ASCII,
    REFUSED_VERSION,
)

cdef enum:
    MAX_METHOD = 32
    VERSION_LENGTH = 8
    SP = 32
    HASH = 35
    PERCENT = 37
    STAR = 42
    DOT = 46
    SLASH = 47
    QUESTION = 63


cdef int read_request_line(void* line, const char* base, uint32_t at, uint32_t length) noexcept nogil:
    return _read_line(<RequestLine*>line, base, at, length)


cdef int _read_line(RequestLine* line, const char* base, uint32_t at, uint32_t length) noexcept nogil:
    cdef const char* end = base + at + length
    cdef const char* p = base + at
    cdef const char* method = p
    cdef const char* target
    cdef int refusal
    while p < end and is_char(p[0], CHAR_METHOD):
        p += 1
    if p < end and p[0] != SP and is_char(p[0], CHAR_TOKEN):
        return REFUSED_METHOD
    if p == method or p == end or p[0] != SP:
        return REFUSED_REQUEST_LINE
    if p - method > MAX_METHOD:
        return REFUSED_METHOD
    line.method_at = at
    line.method_length = <uint32_t>(p - method)
    target = p + 1
    p = _scan_target(line, target, end)
    if p < end and p[0] != SP:
        if <unsigned char>p[0] > 127:
            return REFUSED_TARGET_NOT_ASCII
        return REFUSED_TARGET_FRAGMENT if p[0] == HASH else REFUSED_REQUEST_LINE
    if p == target or p == end:
        return REFUSED_REQUEST_LINE
    line.target_at = <uint32_t>(target - base)
    line.target_length = <uint32_t>(p - target)
    refusal = _read_version(line, p + 1, end)
    if refusal == REFUSED_NOT:
        refusal = _read_method(line, method)
    if refusal == REFUSED_NOT and target[0] != SLASH:
        refusal = _read_other_target(line, target)
    if refusal == REFUSED_VERSION and line.method_length == 3 and memcmp(method, b"PRI * HTTP/2.0", 14) == 0:
        refusal = REFUSED_HTTP2_PREFACE
    return refusal


cdef inline const char* _scan_target(RequestLine* line, const char* target, const char* end) noexcept nogil:
    """The first byte that cannot stand in a target. Notes where its path ends and whether that needs to be normalised."""
    cdef const char* p = target
    line.path_is_plain = True
    while p < end and is_char(p[0], CHAR_TARGET) and p[0] != QUESTION:
        if p[0] == PERCENT or (p[0] == SLASH and p + 1 < end and (p[1] == SLASH or p[1] == DOT)):
            line.path_is_plain = False
        p += 1
    line.raw_path_length = <uint32_t>(p - target)
    while p < end and is_char(p[0], CHAR_TARGET):
        p += 1
    return p


cdef int _read_version(RequestLine* line, const char* text, const char* end) noexcept nogil:
    if end - text != VERSION_LENGTH or memcmp(text, b"HTTP/", 5) != 0:
        return REFUSED_REQUEST_LINE
    if not (48 <= text[5] <= 57 and text[6] == DOT and 48 <= text[7] <= 57):
        return REFUSED_REQUEST_LINE
    if text[5] != 49 or text[7] > 49:
        return REFUSED_VERSION
    line.version = 10 + text[7] - 48
    return REFUSED_NOT


cdef int _read_method(RequestLine* line, const char* method) noexcept nogil:
    cdef uint32_t length = line.method_length
    line.method = METHOD_OTHER
    if length == 3:
        if memcmp(method, b"GET", 3) == 0:
            line.method = METHOD_GET
        elif memcmp(method, b"PUT", 3) == 0:
            line.method = METHOD_PUT
    elif length == 4:
        if memcmp(method, b"POST", 4) == 0:
            line.method = METHOD_POST
        elif memcmp(method, b"HEAD", 4) == 0:
            line.method = METHOD_HEAD
    elif length == 5:
        if memcmp(method, b"PATCH", 5) == 0:
            line.method = METHOD_PATCH
        elif memcmp(method, b"TRACE", 5) == 0:
            return REFUSED_METHOD_NOT_ALLOWED
    elif length == 6:
        if memcmp(method, b"DELETE", 6) == 0:
            line.method = METHOD_DELETE
    elif length == 7:
        if memcmp(method, b"OPTIONS", 7) == 0:
            line.method = METHOD_OPTIONS
        elif memcmp(method, b"CONNECT", 7) == 0:
            return REFUSED_METHOD_NOT_ALLOWED
    return REFUSED_NOT


cdef int _read_other_target(RequestLine* line, const char* target) noexcept nogil:
    """A target that does not begin with `/`."""
    cdef uint32_t scheme, end
    if target[0] == STAR:
        return REFUSED_NOT if line.target_length == 1 and line.method == METHOD_OPTIONS else REFUSED_TARGET
    if line.target_length > 7 and same_text(target, 7, b"http://", 7):
        scheme = 7
    elif line.target_length > 8 and same_text(target, 8, b"https://", 8):
        scheme = 8
    else:
        return REFUSED_TARGET
    end = scheme
    while end < line.raw_path_length and target[end] != SLASH:
        end += 1
    if end == scheme:
        return REFUSED_TARGET
    line.uri_at = line.target_at + scheme
    line.uri_length = end - scheme
    line.target_at += end
    line.target_length -= end
    line.raw_path_length -= end
    # The `//` of the scheme made it look otherwise.
    line.path_is_plain = False
    return REFUSED_NOT
