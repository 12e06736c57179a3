"""See pace.pxd."""
from l7.proxy.clock cimport now_s as clock_s
from l7.proxy.wheel cimport NEVER


cdef void pace_clear(Pace* pace) noexcept nogil:
    pace.due_s = pace.left_s = NEVER


cdef void pace_begin(Pace* pace, double period_s) noexcept nogil:
    pace.mark = 0
    pace.left_s = period_s


cdef void pace_run(Pace* pace, double now_s) noexcept nogil:
    if pace.due_s == NEVER:
        pace.due_s = now_s + pace.left_s


cdef void pace_stand(Pace* pace) noexcept nogil:
    if pace.due_s != NEVER:
        pace.left_s = pace.due_s - clock_s()
        pace.due_s = NEVER


cdef bint pace_holds(Pace* pace, double now_s, uint64_t received, double rate, double period_s,
                     double byte_due_s) noexcept nogil:
    if <double>(received - pace.mark) >= rate * period_s:
        pace.mark = received
        pace.due_s = now_s + period_s
        return True
    if byte_due_s - now_s < period_s / 2:
        # It does not trickle, it has stopped.
        pace.due_s = byte_due_s
        return True
    pace.due_s = NEVER
    return False
