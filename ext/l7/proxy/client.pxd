"""A client's connection: requests one after the other, each answered before the next is acted on.

    HEAD ──▶ BUSY ──▶ HEAD …            a kept connection
              │ └──▶ TUNNEL             upgraded: the transport goes to a Relay
              └────▶ LINGER ──▶ CLOSED  answered before all of the request was read: the rest is read and thrown
                                        away for a while, or the answer would be lost to a reset
              └────▶ CLOSING ─▶ CLOSED  what was written is sent first

What comes behind a request that is not answered yet waits in `held` and the client is not read on, so a connection
holds one read of at most 256 KiB and otherwise what is said in `exchange` and `backend`.
"""
from libc.stdint cimport uint64_t

from l7.http1.body cimport BodyReader
from l7.http1.build cimport Forwarding
from l7.proxy.exchange cimport Exchange
from l7.proxy.pace cimport Pace


cdef enum Phase:
    HEAD
    BUSY
    TUNNEL
    LINGER
    CLOSING
    CLOSED


cdef class ClientConnection(Exchange):
    cdef object transport
    cdef object proxy_header    # l7.wire.proxyprotocol.ProxyHeader, or None
    # Who is connected; `peer` and `forwarding` may be of somebody that it speaks for.
    cdef object own_peer
    cdef Forwarding own_forwarding
    cdef int phase
    cdef BodyReader body
    cdef bytes rest             # received, not looked at
    cdef size_t rest_at
    cdef int pauses             # PAUSE_…
    cdef bint is_full           # the transport's buffer is above its mark
    cdef bint is_half_closed    # the client sends no more
    cdef bint is_reading        # `_read` is at work
    cdef bint was_made
    cdef uint64_t requests
    cdef double idle_since_s
    # Deadlines: of the head or of what Exchange waits for; of the body's next byte, and of enough of it; of the client's
    # taking of the answer.
    cdef double stage_due_s
    cdef double body_due_s
    cdef Pace pace
    cdef double write_due_s
    cdef size_t unsent          # bytes that the client had not taken when its last period ended; lingering: received

    cdef void _read(self, bytes data, size_t at)
    cdef void _read_rest(self)
    cdef size_t _read_body(self, bytes data, size_t at)
    cdef void _begin(self)
    cdef void _refuse(self, int refusal)
    cdef void _await_head(self)
    cdef void _give_up_head(self)
    cdef void _close(self)
    cdef void _break(self)
    cdef void _linger(self)
    cdef void _await_body(self)
    cdef void _set_body_due(self, bint is_awaited)
    cdef double _body_s(self) noexcept
    cdef double _write_s(self) noexcept
    cdef size_t _count_unsent(self)
    cdef size_t _count_in_kernel(self, unsigned long queue)
    cdef void _await_taking(self)
    cdef bint _takes_too_little(self)
    cdef void _arm(self)
    cdef void _idle_due(self, double now_s)
