"""The worker's clock: seconds that never go back. Asking costs about 20 ns, so nobody hands a time around
that is older than the event at hand."""
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec


cdef inline double now_s() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <double>time.tv_sec + <double>time.tv_nsec * 1e-9
