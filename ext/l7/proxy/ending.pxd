"""What is said of a request when it has ended: its counters, its line in the log."""
from l7.proxy.sides cimport Front


# Once for each request, when `request.end` says how it ended.
cdef void account(Front request)

# The status that a request is answered with that ended so.
cdef int status_of_end(int end) noexcept
