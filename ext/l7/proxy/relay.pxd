"""Bytes both ways between two transports that have nothing more to say about HTTP: an upgraded connection, or one
that is passed through. Each side that closes its half closes that half of the other; where a side cannot (TLS),
all is closed when what was received has been sent. One side is not read while the other takes no more.
"""
from libc.stdint cimport uint64_t

from l7.proxy.wheel cimport Timed
from l7.proxy.worker cimport Worker


cdef class Relay(Timed):
    cdef readonly Worker worker
    cdef readonly int end               # END_…
    cdef readonly RelaySide client
    cdef readonly RelaySide backend
    cdef double idle_s
    cdef public object on_end           # called with the relay when both sides have gone
    cdef bint is_joined

    cdef void touch(self)
    cdef void side_lost(self)


cdef class RelaySide:
    cdef Relay relay
    cdef RelaySide other
    cdef object transport
    cdef uint64_t received
    cdef bint has_ended                 # it sends no more
    cdef bint is_lost
    cdef bytes early                    # what came before the other side was there
