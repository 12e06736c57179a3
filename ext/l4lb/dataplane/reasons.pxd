"""The numbers of `l4lb.dataplane.decision` for code without the GIL; a test holds the two together."""

cpdef enum NativeReason:
    REASON_FLOW = 0
    REASON_SCHEDULED = 1
    REASON_RESCHEDULED = 2
    REASON_STATELESS = 3
    REASON_REPLY = 4
    REASON_REPLY_STATIC = 5
    REASON_NOT_BALANCED = 6
    REASON_OTHER_PROTOCOL = 7
    REASON_REPLY_UNMATCHED = 8
    REASON_TRUNCATED = 9
    REASON_MALFORMED = 10
    REASON_FRAGMENT = 11
    REASON_SOURCE_ROUTED = 12
    REASON_NO_BACKEND = 13
    REASON_NO_FLOW = 14
    REASON_COUNT = 15

cpdef enum NativeVerdict:
    VERDICT_ACCEPT = 0
    VERDICT_FORWARD = 1
    VERDICT_DROP = 2

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
    return VERDICT_DROP
