"""Counters that every process of the proxy sees: a row of 64-bit integers for each writer.

A row has one writer, so an add is an add, without lock or atomic instruction; readers sum the rows. A row
begins on a cache line of its own. What a column means is the layout's business (`l7.proxy.layout`), but
the columns of one object (a route, a backend, …) stand together in the order of the enumerations below.
"""
from libc.stdint cimport int64_t


cpdef enum WorkerColumn:
    WORKER_CONNECTIONS      # clients', open now
    WORKER_TUNNELS          # upgraded or passed through, open now
    WORKER_LOG_LINES_LOST   # since nobody took them; stays as long as the worker
    WORKER_COLUMNS


cpdef enum ListenerColumn:
    LISTENER_CONNECTIONS_TOTAL
    LISTENER_CONNECTIONS
    LISTENER_TLS_HANDSHAKES_TOTAL
    LISTENER_TLS_RESUMED_TOTAL
    LISTENER_TLS_FAILURES_TOTAL
    LISTENER_PROXY_REFUSED_TOTAL
    LISTENER_COLUMNS


cpdef enum RouteColumn:
    ROUTE_REQUESTS_TOTAL
    ROUTE_ACTIVE
    ROUTE_1XX               # upgrades
    ROUTE_2XX
    ROUTE_3XX
    ROUTE_4XX
    ROUTE_5XX
    ROUTE_BYTES_IN_TOTAL    # of bodies
    ROUTE_BYTES_OUT_TOTAL
    ROUTE_RETRIES_TOTAL
    ROUTE_MICROSECONDS_TOTAL
    ROUTE_FIRST_BUCKET      # of the histogram of whole times; BUCKETS of them
    ROUTE_COLUMNS = ROUTE_FIRST_BUCKET + 12


cpdef enum PoolColumn:
    POOL_WAITING
    POOL_QUEUE_FULL_TOTAL
    POOL_QUEUE_TIMEOUTS_TOTAL
    POOL_DOWN_TOTAL         # nobody was up
    POOL_COLUMNS


cpdef enum BackendColumn:
    BACKEND_REQUESTS_TOTAL
    BACKEND_ACTIVE
    BACKEND_1XX
    BACKEND_2XX
    BACKEND_3XX
    BACKEND_4XX
    BACKEND_5XX
    BACKEND_CONNECTS_TOTAL
    BACKEND_CONNECT_FAILURES_TOTAL
    BACKEND_FAILURES_TOTAL  # broken or nonsense after the connection stood
    BACKEND_TIMEOUTS_TOTAL
    BACKEND_REUSED_TOTAL    # requests on a kept connection
    BACKEND_STALE_TOTAL     # of those, found closed
    BACKEND_IDLE            # connections kept now
    BACKEND_BYTES_IN_TOTAL  # sent to it, bodies
    BACKEND_BYTES_OUT_TOTAL
    BACKEND_FIRST_BYTE_MICROSECONDS_TOTAL
    BACKEND_COLUMNS


cdef enum:
    BUCKETS = 12


# How requests end, and the answer where it is ours; the log says it in these words.
cpdef enum EndColumn:
    END_DONE                # the backend's whole answer was passed on
    END_OWN                 # a redirect or a fixed answer, as configured
    END_NO_ROUTE            # 404
    END_BAD_REQUEST         # 400 and its kin; why is counted apart
    END_TOO_LARGE           # 413
    END_HEADER_TIMEOUT      # 408
    END_BODY_TIMEOUT        # 408
    END_BODY_TOO_SLOW       # 408
    END_WRITE_TIMEOUT       # the client took nothing of its answer
    END_WRITE_TOO_SLOW      # or too little
    END_CLIENT_CLOSED       # 499, or in the middle of the answer
    END_POOL_DOWN           # 503
    END_QUEUE_FULL          # 503
    END_QUEUE_TIMEOUT       # 503
    END_CONNECT_FAILED      # 502
    END_CONNECT_TIMEOUT     # 504
    END_BACKEND_BROKEN      # 502, or cut off in the middle of the answer
    END_BACKEND_INVALID     # likewise: it spoke nonsense
    END_BACKEND_TIMEOUT     # 504, or cut off
    END_BACKEND_TOO_SLOW    # cut off
    END_TOTAL_TIMEOUT       # 504, or cut off
    END_TUNNEL_TIMEOUT      # nothing was said for too long after an upgrade
    END_SHUTDOWN            # the worker could wait no longer
    END_ERROR               # 500: a fault of this program
    END_COLUMNS


cdef class Row:
    """One writer's counters."""
    cdef int64_t* values
    cdef readonly Py_ssize_t size
    cdef object _memory

    cdef inline void add(self, Py_ssize_t column, int64_t amount) noexcept:
        self.values[column] += amount


cdef class Counters:
    cdef readonly Py_ssize_t rows
    cdef readonly Py_ssize_t columns
    cdef readonly int descriptor
    cdef Py_ssize_t _stride
    cdef object _memory
    cdef int64_t* _values
