"""A pool and its backends, as connections see them: settings unpacked, counters found, kept connections.

Kept connections are used last in, first out, so that the ones a lull leaves over grow old and go. A connection
is on the list exactly while it has no request.
"""
from l7.proxy.worker cimport Worker


cdef class Upstream:
    cdef readonly Worker worker
    cdef readonly object pool           # l7.balancing.Pool
    cdef readonly bytes name
    cdef readonly Py_ssize_t columns
    cdef readonly object context        # SSLContext, or None
    cdef readonly object server_name    # for SNI and the certificate; None: the backend's own
    cdef readonly int proxy_protocol    # version, or 0; its connections speak of one client and are kept for it alone
    cdef readonly object sessions       # l7.balancing.Sessions, or None
    cdef bytes learns                   # the application's cookie that names a session, or None
    cdef Py_ssize_t max_idle
    cdef Py_ssize_t idle                # kept connections of all backends
    cdef tuple failures                 # ranges of statuses that count as failures
    cdef object pick
    cdef object begin
    cdef object end
    # Requests that the pool has not been told of, for its budget of retries.
    cdef double unreported

    cdef bint may_retry(self, double budget)
    cdef bint is_failure(self, int status) noexcept


cdef class Lane:
    cdef readonly Upstream upstream
    cdef readonly object server         # l7.balancing.Server
    cdef readonly bytes name
    cdef readonly Py_ssize_t columns
    cdef readonly list idle             # BackendConnection, the one used last at the end
    cdef readonly bint is_gone          # its backend was removed
    cdef bint is_http10                 # what its last answer was
    cdef size_t turn                    # of its endpoints


cdef bint is_in_ranges(int status, tuple ranges) noexcept
