"""The numbers of `l4lb.dataplane.decision` for code without the GIL; a test holds the two together."""

cpdef enum NativeReason:
    REASON_FLOW = 0
    REASON_SCHEDULED = 1
    REASON_AFFINITY = 2
    REASON_RESCHEDULED = 3
    REASON_STATELESS = 4
    REASON_HASHED = 5
    REASON_REPLY = 6
    REASON_REPLY_STATIC = 7
    REASON_NOT_BALANCED = 8
    REASON_OTHER_PROTOCOL = 9
    REASON_REPLY_UNMATCHED = 10
    REASON_TOO_BIG = 11
    REASON_TTL_EXPIRED = 12
    REASON_RESET = 13
    REASON_REJECTED = 14
    REASON_TRUNCATED = 15
    REASON_MALFORMED = 16
    REASON_FRAGMENT = 17
    REASON_SOURCE_ROUTED = 18
    REASON_NO_BACKEND = 19
    REASON_NO_FLOW = 20
    REASON_NO_PORT = 21
    REASON_LIMITED = 22
    REASON_BACKENDS_FULL = 23
    REASON_COUNT = 24

cpdef enum NativeVerdict:
    VERDICT_ACCEPT = 0
    VERDICT_FORWARD = 1
    VERDICT_DROP = 2
    VERDICT_ANSWER = 3

cpdef enum NativeState:
    STATE_NONE = 0
    STATE_SYN_RECV = 1
    STATE_ESTABLISHED = 2
    STATE_FIN_WAIT = 3
    STATE_TIME_WAIT = 4
    STATE_CLOSE = 5
    STATE_CLOSE_WAIT = 6
    STATE_UDP = 7
    STATE_COUNT = 8


cdef inline NativeVerdict verdict_of(int reason) noexcept nogil:
    if reason <= REASON_REPLY_STATIC:
        return VERDICT_FORWARD
    if reason <= REASON_REPLY_UNMATCHED:
        return VERDICT_ACCEPT
    if reason <= REASON_REJECTED:
        return VERDICT_ANSWER
    return VERDICT_DROP
