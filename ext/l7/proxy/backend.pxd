"""A connection to a backend.

    opening ──▶ carrying a request: WAITING ──▶ HEAD ──▶ BODY ──▶ kept, or closed
                    ▲                                                │
                    └────────────────────────────────────────────────┘

WAITING: the request is still being sent; HEAD: all of it was, the answer is waited for; BODY: the answer's body
comes. The answer may begin while WAITING. What a backend says while it is kept closes it: it answers nothing.
"""
from l7.proxy.pace cimport Pace
from l7.proxy.sides cimport Back, Front


cdef class BackendConnection(Back):
    cdef int phase
    cdef int fileno
    cdef bint is_sent           # the whole request was handed over
    cdef bint is_reading_paused
    cdef double read_due_s      # of the answer's next byte; NEVER while it is not waited for
    cdef Pace pace              # of its body

    # Whether the kept connection is still open as far as this host knows.
    cdef bint is_alive(self) noexcept
    cdef void _await_answer(self)
    cdef void _await_nothing(self)
    cdef void _set_due(self)
    cdef void _take_answer(self, bytes data)
    cdef void _fail(self, int end)
    cdef void _leave_list(self)
    cdef void _close_transport(self, bint at_once)


# The kept connection that was used last, or None; of a pool that says who the client is, the one that `front`'s client
# has there. `must_be_alive` asks the kernel first, for requests that could not be sent a second time.
cdef BackendConnection take_kept(lane, Front front, bint must_be_alive)
# Closes what is kept for `front`, whose client has gone.
cdef void close_own(Front front)
