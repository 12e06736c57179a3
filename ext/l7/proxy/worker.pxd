"""What all connections of a worker share."""
from libc.stdint cimport int64_t, uint64_t

from l7.counters cimport Row
from l7.proxy.wheel cimport Wheel


cdef class Worker:
    cdef readonly Row row
    cdef readonly Wheel wheel
    cdef readonly object loop
    cdef readonly object log            # l7.proxy.log.AccessLog, or None
    cdef object route                   # Router.route
    cdef public list ways               # Way, by the number of the route
    cdef public dict upstreams          # Upstream, by the name of the pool
    cdef readonly set connections       # of clients, tunnels too
    cdef readonly set relays
    cdef public bint is_finishing
    cdef readonly int64_t open          # connections of all listeners
    cdef int64_t max_connections
    # Whether `on_change` is called, without arguments, when a connection has gone: a listener is full, or the end of the
    # last one is waited for.
    cdef public bint is_watched
    cdef public object on_change
    cdef dict pages                     # status → (content type, body) of own answers
    cdef readonly object believe        # (head, peer) → (peer, Forwarding) or None; None: nobody is trusted
    # Columns
    cdef Py_ssize_t ends
    cdef Py_ssize_t refusals            # of number 1
    cdef Py_ssize_t totals
    # Limits
    cdef uint64_t max_requests          # of a connection
    cdef size_t request_line
    cdef size_t header_bytes
    cdef size_t header_count
    # Before a request has a route
    cdef double header_s
    cdef double idle_s
    cdef double write_s
    cdef double write_rate
    cdef double body_s
    cdef int64_t _second                # of the line
    cdef bytes _date_line
    cdef uint64_t _chance

    cdef bytes date_line(self)
    cdef uint64_t chance(self) noexcept
    cdef void tell_of_change(self)


cdef class ListenerPart:
    """What the connections of a listener share."""
    cdef readonly Worker worker
    cdef readonly object settings       # model.Listener
    cdef readonly Py_ssize_t columns
    cdef readonly bint is_tls
    cdef readonly int64_t open          # connections, also those whose handshake or first bytes are waited for
    cdef int64_t max_connections        # -1: no limit
    cdef readonly object introduce      # (transport, PROXY header) → (peer, Forwarding)

    # One more, one less: held for as long as it needs a place.
    cpdef void hold(self) noexcept
    cpdef void release(self)
    # The same for a connection that is counted.
    cpdef void enter(self) noexcept
    cpdef void leave(self)
    cpdef bint has_room(self) noexcept
