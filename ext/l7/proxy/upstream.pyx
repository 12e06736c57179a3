"""See upstream.pxd."""
from l7.proxy.worker cimport Worker


cdef class Upstream:
    """A pool of one worker. `context` speaks TLS to its backends, or is None."""

    def __init__(self, Worker worker, pool, layout, context):
        settings = pool.settings
        self.worker = worker
        self.pool = pool
        self.name = pool.name.encode()
        self.columns = layout.pools[pool.name]
        self.context = context
        self.server_name = settings.tls.server_name if settings.tls else None
        self.proxy_protocol = settings.proxy_protocol or 0
        self.sessions = pool.sessions
        self.learns = pool.sessions.learns_from if pool.sessions else None
        self.max_idle = settings.max_idle
        self.failures = settings.passive.statuses if settings.passive else ()
        self.pick = pool.pick
        self.begin = pool.begin
        self.end = pool.end
        for server in pool.servers:
            self.open_lane(server, layout.backend(pool.name, server.name))

    def open_lane(self, server, Py_ssize_t columns):
        """Gives a backend what its connections need."""
        server.idle = Lane(self, server, columns)

    cdef bint may_retry(self, double budget):
        """Whether one more retry is within the budget; if so it is counted."""
        if self.unreported:
            self.pool.count_request(self.unreported)
            self.unreported = 0
        return self.pool.may_retry(budget)

    cdef bint is_failure(self, int status) noexcept:
        return is_in_ranges(status, self.failures)


cdef class Lane:
    """The way to one backend."""

    def __init__(self, Upstream upstream, server, Py_ssize_t columns):
        self.upstream = upstream
        self.server = server
        self.name = server.name.encode()
        self.columns = columns
        self.idle = []

    def next_endpoints(self):
        """Two of the addresses that the backend stands for, those whose turn it is."""
        endpoints = self.server.endpoints
        if len(endpoints) < 2:
            return endpoints
        self.turn += 1
        return endpoints[self.turn % len(endpoints)], endpoints[(self.turn + 1) % len(endpoints)]

    def close(self):
        """Closes its kept connections, and keeps none any more."""
        self.is_gone = True
        self.close_kept()

    def close_kept(self):
        """Closes its kept connections."""
        for connection in list(self.idle):
            connection.close()


cdef bint is_in_ranges(int status, tuple ranges) noexcept:
    """Whether one of the ranges, both ends included, has `status`."""
    for first, last in ranges:
        if <int>first <= status <= <int>last:
            return True
    return False
