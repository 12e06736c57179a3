"""See wheel.pxd."""
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport INFINITY, ceil, floor

cdef double TICK_S = 0.5

NEVER = INFINITY


cdef class Timed:
    """Something with a deadline."""

    def __cinit__(self):
        self.due_s = NEVER
        self._tick = -1

    cdef void on_due(self, double now_s):
        raise NotImplementedError


cdef class Wheel:
    """The deadlines of a worker; `turn` is called twice a second with the clock of `set`."""

    def __init__(self, double now_s):
        self._tick = <int64_t>floor(now_s / TICK_S)

    cdef void set(self, Timed timed, double due_s) noexcept:
        """Moves the deadline of `timed`; NEVER takes it away."""
        cdef int64_t tick
        timed.due_s = due_s
        if due_s == NEVER:
            return
        tick = <int64_t>ceil(due_s / TICK_S)
        if timed._tick >= 0:
            if tick >= timed._tick:
                return
            self.forget(timed)
        self._link(timed, tick)

    cdef void forget(self, Timed timed) noexcept:
        """Takes `timed` off the wheel."""
        if timed._tick < 0:
            return
        if timed._next:
            (<Timed>timed._next)._previous = timed._previous
        if timed._previous:
            (<Timed>timed._previous)._next = timed._next
        else:
            self._first[timed._tick % SLOTS] = timed._next
        timed._next = timed._previous = NULL
        timed._tick = -1
        Py_DECREF(timed)

    cdef void _link(self, Timed timed, int64_t tick) noexcept:
        cdef void* first
        tick = min(max(tick, self._tick + 1), self._tick + SLOTS - 1)
        first = self._first[tick % SLOTS]
        Py_INCREF(timed)
        timed._tick = tick
        timed._previous = NULL
        timed._next = first
        if first:
            (<Timed>first)._previous = <void*>timed
        self._first[tick % SLOTS] = <void*>timed

    cpdef turn(self, double now_s):
        """Tells everything whose deadline has passed."""
        cdef int64_t until = <int64_t>floor(now_s / TICK_S)
        cdef Timed timed
        # Who comes back late turns once around at most: nothing stands further away.
        self._tick = max(self._tick, until - SLOTS)
        while self._tick < until:
            self._tick += 1
            while self._first[self._tick % SLOTS]:
                timed = <Timed>self._first[self._tick % SLOTS]
                self.forget(timed)
                if timed.due_s <= now_s:
                    timed.due_s = NEVER
                    timed.on_due(now_s)
                elif timed.due_s != NEVER:
                    self._link(timed, <int64_t>ceil(timed.due_s / TICK_S))
