"""Why a message is refused, as numbers; `l7.http1.rules` says what each means, and with which status it is answered.

A test holds the two together. 0 is no refusal.
"""

cpdef enum Refusal:
    REFUSED_NOT = 0
    # Lines of heads and trailers
    REFUSED_BARE_LF = 1
    REFUSED_BARE_CR = 2
    REFUSED_CONTROL = 3
    REFUSED_HEADER_NAME = 4
    REFUSED_SPACE_BEFORE_COLON = 5
    REFUSED_FOLDED_LINE = 6
    REFUSED_HEADER_BYTES = 7
    REFUSED_HEADER_COUNT = 8
    # Request line
    REFUSED_REQUEST_LINE = 9
    REFUSED_LINE_TOO_LONG = 10
    REFUSED_METHOD = 11
    REFUSED_METHOD_NOT_ALLOWED = 12
    REFUSED_TARGET = 13
    REFUSED_TARGET_NOT_ASCII = 14
    REFUSED_TARGET_FRAGMENT = 15
    REFUSED_TARGET_ESCAPE = 16
    REFUSED_TARGET_ABOVE_ROOT = 17
    REFUSED_VERSION = 18
    REFUSED_HTTP2_PREFACE = 19
    # Host
    REFUSED_HOST_MISSING = 20
    REFUSED_HOST_REPEATED = 21
    REFUSED_HOST_INVALID = 22
    REFUSED_HOST_DIFFERS = 23
    # Framing
    REFUSED_LENGTH_INVALID = 24
    REFUSED_LENGTH_REPEATED = 25
    REFUSED_LENGTH_AND_CODING = 26
    REFUSED_CODING = 27
    REFUSED_CODING_UNKNOWN = 28
    REFUSED_CODING_IN_HTTP10 = 29
    # Connection and expectations
    REFUSED_CONNECTION = 30
    REFUSED_CONNECTION_NAMES_FIELD = 31
    REFUSED_EXPECTATION = 32
    # Chunks
    REFUSED_CHUNK_SIZE = 33
    REFUSED_CHUNK_EXTENSION = 34
    REFUSED_CHUNK_END = 35
    # Answers of backends
    REFUSED_STATUS_LINE = 36
    REFUSED_COUNT = 37


# The status that a request so refused is answered with. An answer so refused is a 502.
cdef int status_of(int refusal) noexcept nogil
