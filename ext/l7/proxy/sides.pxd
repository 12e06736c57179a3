"""The two sides of a request, as each other sees them.

`Front` is the client's side with the request it has now, `Back` a connection to a backend. They are one pair
from `Back.begin` until `Back.release` or `Back.abort`, which cut the tie in both directions at once, so that
no late event of either finds the other.

Methods of a Front that a Back calls, in this order:

    on_interim*  on_answer  on_piece*  on_answer_end
                                       or, at any point, on_back_lost
    on_interim*  on_upgrade
"""
from libc.stdint cimport uint64_t

from l7.http1.body cimport BodyReader
from l7.http1.request cimport RequestHead
from l7.http1.response cimport ResponseHead
from l7.proxy.upstream cimport Lane, Upstream
from l7.proxy.way cimport Way
from l7.proxy.wheel cimport Timed
from l7.proxy.worker cimport ListenerPart, Worker


cdef class Front(Timed):
    cdef Worker worker
    cdef ListenerPart listener
    cdef object peer            # l7.wire.peer.Peer of this request
    cdef RequestHead head
    cdef Way way                # None before it has a route
    cdef Upstream upstream
    cdef Lane lane
    # What the log and the counters say of the request
    cdef int status             # 0: no answer was begun
    cdef int end                # END_…
    cdef int tries              # backends that it was given to
    cdef uint64_t bytes_in      # of bodies
    cdef uint64_t bytes_out
    cdef double began_s         # first byte of the request
    cdef double sent_s          # given to a backend; 0: never
    cdef double connecting_s    # when a connection to a backend was asked for
    cdef double connected_s     # when it stood, where a new one was made; else 0
    cdef double first_byte_s    # of the answer; 0: none
    # Kept connections that told their backends of this client: no other may use them. None before there is one.
    cdef set own_backs

    # A 1xx other than 101; its head is `back.head`.
    cdef void on_interim(self, Back back)
    # The answer's head is there. False where the request goes elsewhere, and `back` has been let go.
    cdef bint on_answer(self, Back back) except -1
    # Some of the body, framed as `on_answer` asked for.
    cdef void on_piece(self, object piece)
    # That is all for now: what was held back to be joined is sent.
    cdef void on_pause(self)
    cdef void on_answer_end(self, Back back)
    cdef void on_back_lost(self, Back back, int end)
    cdef void on_upgrade(self, Back back, bytes rest)
    # The backend takes no more, or takes more again.
    cdef void on_back_full(self, bint is_full)


cdef class Back(Timed):
    cdef Lane lane
    cdef Front front            # None: it is kept, or gone
    cdef object transport       # None: gone
    cdef ResponseHead head
    cdef BodyReader body
    cdef bint is_reused         # it has carried a request before this one
    cdef bint has_spoken        # a byte of the answer has come
    cdef bint is_full           # its transport's buffer is above the mark
    cdef bint may_be_kept
    cdef Front owner            # while it is kept: the only one that may use it; None: anybody
    cdef object told_peer       # the client that the backend was told of; None: it was told of nobody
    cdef bint as_chunk          # the front wants the body as chunks
    cdef double read_s
    cdef double read_rate       # bytes a second of the answer's body, over each `read_s`; 0: no limit
    cdef double write_s
    cdef double idle_s

    cdef void begin(self, Front front, bint for_head)
    cdef void send(self, object data)
    # The whole request has been handed to `send`: from now on the backend is waited for.
    cdef void expect_answer(self)
    # The answer is over; it is kept if it may be.
    cdef void release(self)
    # It is of no use any more.
    cdef void abort(self)
    cdef void pause_reading(self)
    cdef void resume_reading(self)
    # Its transport goes to a tunnel.
    cdef object detach(self)
