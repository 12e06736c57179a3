"""A request on its way: to which backend, and what of its answer comes back.

    start ─▶ route ─▶ own answer
               │
               ▼
             pick ─▶ wait for a place ─┐
               ▲  ◀────────────────────┘
               │                            retry
               ├──────────────────────────────────────────────────────┐
               ▼                                                      │
             kept connection, or connect ─▶ send ─▶ answer ─▶ complete │
                                │              │        │             │
                                └──────────────┴────────┴─▶ failed ───┴─▶ own answer, or the answer is cut off

Whatever happens, a request ends in `_account` once: there it is counted and logged. What the backend was told
with `Pool.begin` ends in `_leave_backend` once.

What of the body has been received is held while there is no connection, and as long as the request may have to be
sent again; beyond MAX_HELD the client is paused, or the request can not be sent again. So a request holds at
most MAX_HELD and what one read brings.
"""
from libc.stdint cimport uint64_t

from l7.http1.build cimport Forwarding
from l7.proxy.sides cimport Back, Front


cdef enum:
    MAX_HELD = 65536

cdef enum Pause:
    # Why the client is not read
    PAUSE_BACKEND = 1       # takes no more
    PAUSE_HELD = 2          # enough of the body is held
    PAUSE_NEXT = 4          # its next request is here already


cdef class Exchange(Front):
    cdef Back back
    cdef Forwarding forwarding
    cdef object connecting      # Task that opens a connection, or None
    cdef list tried             # Servers
    cdef int failure            # END_… of the try before; END_DONE: none
    cdef bytes request          # the head as it is sent to backends
    cdef list held              # pieces of the body
    cdef size_t held_bytes
    cdef bint is_replayable     # all of the body so far is held
    cdef bint is_body_over      # all of it was received
    cdef bint is_waiting        # in the pool's queue
    cdef bint is_counted        # Pool.begin was told
    cdef bint is_open           # not accounted yet
    cdef bint is_begun          # some of the answer was sent, or is about to be
    cdef bint asks_upgrade
    cdef bint keeps_client      # the client's connection goes on behind the answer
    cdef int kind               # BODY_… of the answer as it is sent
    cdef bytes answer_head      # held back to be joined with the first piece
    cdef bytes set_cookie
    cdef double total_due_s

    # -- for the client's side
    cdef void start(self, double now_s)
    # Forgets the request before this one.
    cdef void _reset(self)
    cdef void take_body(self, object piece, bint is_over)
    # The client has gone, or time has run out for it: nobody wants an answer any more.
    cdef void abandon(self, int end)
    # An answer of our own in place of the backend's; where one was begun it is cut off.
    cdef void fail(self, int end)
    cdef void answer(self, int status, int end, bytes content_type, bytes body, bytes lines)
    # The tunnel that the request has become is no more; bytes of either side.
    cdef void leave_tunnel(self, int end, uint64_t from_client, uint64_t from_backend)

    # -- done by the client's side
    cdef void write(self, object data)
    cdef void pause(self, int why)
    cdef void resume(self, int why)
    # Until when a place, or a connection to a backend, is waited for.
    cdef void set_stage(self, double due_s)
    # The answer is whole.
    cdef void on_complete(self)
    # The answer cannot be made whole.
    cdef void on_cut(self)
    cdef void on_tunnel(self, Back back, bytes rest)

    # What `set_stage` gave time for did not happen.
    cdef void on_stage_due(self, double now_s)

    cdef void _pick(self, double now_s)
    cdef void _take(self, picked, double now_s)
    cdef void _connect(self, double now_s)
    cdef void _send(self, Back back, double now_s)
    cdef bytes _build_request(self)
    cdef bint _is_repeatable(self, bint was_sent)
    cdef bint _retry_elsewhere(self, Back back)
    cdef void _retry_or_fail(self, int end, bint was_sent)
    cdef void _connect_failed(self, int end)
    cdef void _note_tried(self)
    cdef void _stop(self)
    cdef bytes _upgrade(self)
    cdef void _leave_backend(self, outcome)
    cdef void _learn_session(self, Back back)
    cdef void _account(self, int end)
    cdef bytes _answer_lines(self)
