"""The numbers of `l4lb.dataplane.decision` for code without the GIL; a test holds the two together."""

cpdef enum NativeReason:
    REASON_FLOW = 0
    REASON_SCHEDULED = 1
    REASON_RESCHEDULED = 2
    REASON_STATELESS = 3
    REASON_HASHED = 4
    REASON_REPLY = 5
    REASON_REPLY_STATIC = 6
    REASON_NOT_BALANCED = 7
    REASON_OTHER_PROTOCOL = 8
    REASON_REPLY_UNMATCHED = 9
    REASON_TOO_BIG = 10
    REASON_TTL_EXPIRED = 11
    REASON_TRUNCATED = 12
    REASON_MALFORMED = 13
    REASON_FRAGMENT = 14
    REASON_SOURCE_ROUTED = 15
    REASON_NO_BACKEND = 16
    REASON_NO_FLOW = 17
    REASON_NO_PORT = 18
    REASON_LIMITED = 19
    REASON_COUNT = 20

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
    if reason <= REASON_TTL_EXPIRED:
        return VERDICT_ANSWER
    return VERDICT_DROP
