"""Whether enough of a body comes: so many bytes a second, on average over each period.

Its clock runs only while the side that sends is waited for. A body that has stopped is not its business but that
of the deadline of the next byte, which stands beside it.
"""
from libc.stdint cimport uint64_t


ctypedef struct Pace:
    double due_s        # the end of the period; NEVER: the clock stands
    double left_s       # of the period, while the clock stands; NEVER: nothing is asked for
    uint64_t mark       # bytes of the body that had come when the last period ended


# Nothing is asked for.
cdef void pace_clear(Pace* pace) noexcept nogil
# A body begins, whose first period begins with the next `pace_run`.
cdef void pace_begin(Pace* pace, double period_s) noexcept nogil
cdef void pace_run(Pace* pace, double now_s) noexcept nogil
cdef void pace_stand(Pace* pace) noexcept nogil
# At the end of a period: whether the body goes on, `received` bytes of it having come. `byte_due_s` is the deadline of
# the next byte, which comes a period after the last one.
cdef bint pace_holds(Pace* pace, double now_s, uint64_t received, double rate, double period_s,
                     double byte_due_s) noexcept nogil
