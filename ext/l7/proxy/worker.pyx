"""See worker.pxd."""
from libc.stdint cimport uint64_t
from libc.time cimport gmtime_r, strftime, time, time_t, tm

from l7.counters cimport LISTENER_CONNECTIONS, LISTENER_CONNECTIONS_TOTAL, WORKER_CONNECTIONS, Row
from l7.proxy.clock cimport now_s
from l7.proxy.wheel cimport Wheel

from http import HTTPStatus


cdef class Worker:
    """The worker's own state; `l7.proxy.service` fills it."""

    def __init__(self, loop, Row row, layout, log, route, config, pages, believe, uint64_t chance):
        self.loop = loop
        self.row = row
        self.log = log
        self.route = route
        self.wheel = Wheel(now_s())
        self.ways = []
        self.upstreams = {}
        self.connections = set()
        self.relays = set()
        self.pages = dict(pages)
        self.believe = believe
        self.ends = layout.ends
        self.refusals = layout.refusals
        self.totals = layout.worker
        self.max_connections = config.limits.connections
        self.max_requests = config.limits.requests_per_connection
        self.request_line = config.limits.request_line
        self.header_bytes = config.limits.header_bytes
        self.header_count = config.limits.header_count
        self.header_s = config.timeouts.header_s
        self.idle_s = config.timeouts.idle_s
        self.write_s = config.timeouts.write_s
        self.write_rate = config.timeouts.write_rate or 0
        self.body_s = config.timeouts.body_s
        self._second = -1
        # Of a generator by Marsaglia, for which 0 would be the end.
        self._chance = chance or 1

    cdef bytes date_line(self):
        """`Date: …`, with its end."""
        cdef time_t second = time(NULL)
        cdef tm parts
        cdef char[64] text
        cdef size_t length
        if second != self._second:
            gmtime_r(&second, &parts)
            # The names of days and months are those of the C locale: nothing here calls setlocale.
            length = strftime(text, sizeof(text), b"Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts)
            self._date_line = text[:length]
            self._second = second
        return self._date_line

    cdef uint64_t chance(self) noexcept:
        """64 random bits, for splits; not for secrets."""
        self._chance ^= self._chance << 13
        self._chance ^= self._chance >> 7
        self._chance ^= self._chance << 17
        return self._chance

    cdef void tell_of_change(self):
        """Takes that something has gone that somebody may wait for."""
        if self.is_watched:
            self.on_change()

    def turn(self):
        """Ends what takes too long; called twice a second."""
        self.wheel.turn(now_s())

    def now_s(self):
        """The clock of all deadlines."""
        return now_s()

    def page(self, int status):
        """The content type and the body of an answer of the proxy's own."""
        page = self.pages.get(status)
        if page is None:
            try:
                words = HTTPStatus(status).phrase
            except ValueError:
                words = "Error"
            page = self.pages[status] = (b"text/plain; charset=utf-8", f"{status} {words}\n".encode())
        return page


cdef class ListenerPart:
    """One listener, as its connections see it."""

    def count(self, Py_ssize_t column):
        """Adds 1 to one of its counters."""
        self.worker.row.add(self.columns + column, 1)

    cpdef void hold(self) noexcept:
        self.open += 1
        self.worker.open += 1

    cpdef void release(self):
        self.open -= 1
        self.worker.open -= 1
        self.worker.tell_of_change()

    cpdef void enter(self) noexcept:
        """One more connection of a client."""
        self.hold()
        self.worker.row.add(self.columns + LISTENER_CONNECTIONS_TOTAL, 1)
        self.worker.row.add(self.columns + LISTENER_CONNECTIONS, 1)
        self.worker.row.add(self.worker.totals + WORKER_CONNECTIONS, 1)

    cpdef void leave(self):
        """It has gone."""
        self.worker.row.add(self.columns + LISTENER_CONNECTIONS, -1)
        self.worker.row.add(self.worker.totals + WORKER_CONNECTIONS, -1)
        self.release()

    cpdef bint has_room(self) noexcept:
        """Whether one more connection is welcome."""
        return (self.worker.open < self.worker.max_connections
                and (self.max_connections < 0 or self.open < self.max_connections))

    def __init__(self, Worker worker, settings, Py_ssize_t columns, introduce):
        self.worker = worker
        self.settings = settings
        self.columns = columns
        self.is_tls = settings.tls is not None
        self.max_connections = -1 if settings.max_connections is None else settings.max_connections
        self.introduce = introduce
