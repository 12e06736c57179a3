"""See way.pxd."""
from l7.http1.build cimport Overrides
from l7.proxy.upstream cimport Upstream
from l7.proxy.wheel cimport NEVER
from l7.proxy.worker cimport Worker


cdef class Way:
    """Compiles what a CompiledRoute says for the path."""

    def __init__(self, route, Py_ssize_t columns, dict upstreams):
        settings = route.route
        timeouts = settings.timeouts
        self.route = route
        self.name = route.name.encode()
        self.columns = columns
        self.answers = settings.redirect is not None or settings.respond is not None
        self.rewrites = settings.rewrite is not None
        self.upstream = upstreams[route.pool] if route.pool is not None else None
        shares = [upstreams[share.pool] for share in settings.shares]
        self.shares = [upstream for upstream in shares if upstream.sessions is not None]
        self.request_edits = route.request_edits
        self.response_edits = route.response_edits
        self.request_overrides = Overrides(route.request_edits.names) if route.request_edits else None
        self.response_overrides = Overrides(route.response_edits.names) if route.response_edits else None
        self.max_body = -1 if settings.max_body is None else settings.max_body
        self.upgrades = settings.upgrades
        self.attempts = settings.retries.attempts
        self.budget = settings.retries.budget
        self.retried_statuses = settings.retries.statuses
        self.body_s = timeouts.body_s
        self.body_rate = timeouts.body_rate or 0
        self.write_s = timeouts.write_s
        self.write_rate = timeouts.write_rate or 0
        self.idle_s = timeouts.idle_s
        self.connect_s = timeouts.connect_s
        self.read_s = timeouts.read_s
        self.read_rate = timeouts.read_rate or 0
        self.backend_write_s = timeouts.backend_write_s
        self.total_s = NEVER if timeouts.total_s is None else timeouts.total_s
        self.upgraded_s = timeouts.upgraded_s
        self.queue_s = timeouts.queue_s
        self.backend_idle_s = timeouts.backend_idle_s

    cdef Upstream choose(self, Worker worker, head, peer, double now_s):
        """The pool for a request. In a split, a session stays with the pool that it began in."""
        cdef Upstream upstream
        if self.upstream is not None:
            return self.upstream
        for upstream in self.shares:
            if upstream.sessions.find(head, peer, now_s) is not None:
                return upstream
        return worker.upstreams[self.route.choose(worker.chance() & 0xFFFFFFFF)]
