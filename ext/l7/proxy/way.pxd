"""A route as the path sees it: the compiled route with its settings unpacked."""
from libc.stdint cimport int64_t

from l7.http1.build cimport Overrides
from l7.proxy.upstream cimport Upstream
from l7.proxy.worker cimport Worker


cdef class Way:
    cdef readonly object route          # CompiledRoute
    cdef readonly bytes name
    cdef readonly Py_ssize_t columns
    cdef bint answers                   # a redirect or a fixed answer
    cdef bint rewrites
    cdef Upstream upstream              # its one pool, or None
    cdef list shares                    # Upstreams with sessions, of a split
    cdef object request_edits           # Edits, or None
    cdef object response_edits
    cdef Overrides request_overrides
    cdef Overrides response_overrides
    cdef int64_t max_body               # -1: no limit
    cdef tuple upgrades
    # Retries
    cdef int attempts
    cdef double budget
    cdef tuple retried_statuses
    # Time-outs
    cdef double body_s
    cdef double body_rate               # bytes a second; 0: no limit
    cdef double write_s
    cdef double write_rate
    cdef double idle_s
    cdef double connect_s
    cdef double read_s
    cdef double read_rate
    cdef double backend_write_s
    cdef double total_s                 # NEVER: no limit
    cdef double upgraded_s
    cdef double queue_s
    cdef double backend_idle_s

    cdef Upstream choose(self, Worker worker, head, peer, double now_s)
