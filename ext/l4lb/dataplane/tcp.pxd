"""TCP states as seen from between the two ends (docs/design/decision.md, section 8)."""
from libc.stdint cimport uint8_t

from l4lb.dataplane.packet cimport FLAG_ACK, FLAG_FIN, FLAG_RST, FLAG_SYN
from l4lb.dataplane.reasons cimport STATE_CLOSE, STATE_CLOSE_WAIT, STATE_FIN_WAIT, STATE_SYN_RECV


cdef extern from *:
    """
    /* Columns: NONE SYN_RECV ESTABLISHED FIN_WAIT TIME_WAIT CLOSE CLOSE_WAIT UDP.
       SR=1 ES=2 FW=3 TW=4 CL=5 CW=6 */
    static const unsigned char l4lb_tcp[3][4][8] = {
        {   /* from the client */
            {0, 1, 5, 5, 5, 5, 5, 7},  /* RST */
            {0, 1, 2, 3, 4, 5, 6, 7},  /* SYN */
            {0, 4, 6, 4, 4, 5, 6, 7},  /* FIN */
            {0, 2, 2, 3, 4, 5, 6, 7},  /* ACK */
        },
        {   /* from the client, answers unseen */
            {0, 1, 5, 5, 5, 5, 5, 7},
            {0, 1, 2, 3, 4, 5, 6, 7},
            {0, 4, 3, 3, 4, 5, 6, 7},
            {0, 2, 2, 3, 4, 5, 6, 7},
        },
        {   /* from the backend */
            {0, 5, 5, 5, 4, 5, 5, 7},
            {0, 1, 2, 3, 4, 5, 6, 7},
            {0, 4, 3, 3, 4, 5, 4, 7},
            {0, 2, 2, 3, 4, 5, 6, 7},
        },
    };
    """
    const unsigned char tcp_table "l4lb_tcp"[3][4][8]


cdef enum:
    FROM_CLIENT = 0
    FROM_CLIENT_ONLY = 1
    FROM_BACKEND = 2


cdef inline int tcp_class(uint8_t flags) noexcept nogil:
    """The first of RST, SYN, FIN, ACK that is set, or -1."""
    if flags & FLAG_RST:
        return 0
    if flags & FLAG_SYN:
        return 1
    if flags & FLAG_FIN:
        return 2
    if flags & FLAG_ACK:
        return 3
    return -1


cdef inline uint8_t tcp_next(int seen, uint8_t flags, uint8_t state) noexcept nogil:
    cdef int row = tcp_class(flags)
    return state if row < 0 else tcp_table[seen][row][state]


cdef inline uint8_t tcp_begin(uint8_t flags) noexcept nogil:
    """The state of a flow that this packet begins."""
    return STATE_CLOSE if tcp_class(flags) == 2 else STATE_SYN_RECV


cdef inline bint tcp_opens(uint8_t flags) noexcept nogil:
    """SYN alone: the only packet that may reuse the ports of a closing flow."""
    return flags & (FLAG_SYN | FLAG_ACK | FLAG_RST | FLAG_FIN) == FLAG_SYN


cdef inline bint tcp_cannot_begin(uint8_t flags) noexcept nogil:
    return flags & FLAG_RST or flags & (FLAG_SYN | FLAG_ACK) == FLAG_SYN | FLAG_ACK


cdef inline bint tcp_closing(uint8_t state) noexcept nogil:
    return STATE_FIN_WAIT <= state <= STATE_CLOSE_WAIT
