"""Time-outs without a handle for each.

A wheel has a slot for each of the next ticks; an object with a deadline stands in at most one. It is lazy: a
deadline that is moved further away, as every request does, is one store. When the slot comes up the object is
put where its deadline is by now, or told. So an object costs something once for each time its *first* deadline
passes, not for each deadline. Deadlines are met up to a tick late, never early.
"""
from libc.stdint cimport int64_t


cdef enum:
    SLOTS = 256

cdef double NEVER

ctypedef void* Slot     # the first Timed, or NULL


cdef class Timed:
    cdef readonly double due_s      # NEVER: it waits for nothing
    # Neighbours in the slot. The slot itself holds what stands in it.
    cdef void* _next
    cdef void* _previous
    cdef int64_t _tick              # whose slot it stands in, or -1

    # Its deadline has passed, and is NEVER now.
    cdef void on_due(self, double now_s)


cdef class Wheel:
    cdef Slot[SLOTS] _first
    cdef int64_t _tick              # the last one that was turned to

    cdef void set(self, Timed timed, double due_s) noexcept
    cdef void forget(self, Timed timed) noexcept
    cdef void _link(self, Timed timed, int64_t tick) noexcept
    cpdef turn(self, double now_s)
