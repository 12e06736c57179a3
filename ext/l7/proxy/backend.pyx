"""See backend.pxd."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, errno

from l7.counters cimport (BACKEND_CONNECTS_TOTAL, BACKEND_IDLE, END_BACKEND_BROKEN, END_BACKEND_INVALID,
                          END_BACKEND_TIMEOUT, END_BACKEND_TOO_SLOW)
from l7.http1.body cimport BODY_CHUNKED, BODY_NONE, BODY_SPAN, BODY_UNTIL_CLOSE, BodyReader
from l7.http1.head cimport HEAD_COMPLETE, HEAD_MORE
from l7.http1.response cimport ResponseHead
from l7.proxy.clock cimport now_s
from l7.proxy.pace cimport pace_begin, pace_clear, pace_holds, pace_run, pace_stand
from l7.proxy.sides cimport Back, Front
from l7.proxy.upstream cimport Lane, Upstream
from l7.proxy.wheel cimport NEVER
from l7.proxy.worker cimport Worker

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_PEEK
        MSG_DONTWAIT
    ssize_t recv(int fd, void* buffer, size_t length, int flags)

cdef enum:
    KEPT
    WAITING         # for the answer's head
    BODY
    GONE


cdef class BackendConnection(Back):
    """asyncio's Protocol of one connection to a backend; `lane` says which."""

    def __init__(self, Lane lane):
        cdef Worker worker = lane.upstream.worker
        self.lane = lane
        self.head = ResponseHead(header_bytes=worker.header_bytes, header_count=worker.header_count)
        self.body = BodyReader()
        self.phase = KEPT
        self.fileno = -1

    # -- asyncio's side

    def connection_made(self, transport):
        self.transport = transport
        sock = transport.get_extra_info("socket")
        self.fileno = sock.fileno() if sock is not None else -1
        self.lane.upstream.worker.row.add(self.lane.columns + BACKEND_CONNECTS_TOTAL, 1)

    def data_received(self, bytes data):
        if self.front is None:
            self.close()
            return
        self.has_spoken = True
        if self.is_sent and not self.is_reading_paused:
            self._await_answer()
        self._take_answer(data)

    def eof_received(self):
        return False

    def connection_lost(self, error):
        cdef Front front = self.front
        cdef bint is_whole
        self.transport = None
        self.lane.upstream.worker.wheel.forget(self)
        if front is None:
            self._leave_list()
            self.phase = GONE
            return
        is_whole = self.phase == BODY and self.body.kind == BODY_UNTIL_CLOSE and error is None
        self.phase = GONE
        self.front = None
        if is_whole:
            front.on_answer_end(self)
        else:
            front.on_back_lost(self, END_BACKEND_BROKEN)

    def pause_writing(self):
        self.is_full = True
        if self.front is not None:
            self._await_nothing()
            self.lane.upstream.worker.wheel.set(self, now_s() + self.write_s)
            self.front.on_back_full(True)

    def resume_writing(self):
        self.is_full = False
        if self.front is not None:
            if self.is_sent and not self.is_reading_paused:
                self._await_answer()
            else:
                self._await_nothing()
            self.front.on_back_full(False)

    # -- the front's side

    cdef void begin(self, Front front, bint for_head):
        self.front = front
        if self.lane.upstream.proxy_protocol:
            self.told_peer = front.peer
        self.phase = WAITING
        self.is_sent = False
        self.has_spoken = False
        self.may_be_kept = False
        self.head.clear(for_head)
        pace_clear(&self.pace)
        self.lane.upstream.worker.wheel.set(self, NEVER)

    cdef void send(self, object data):
        if self.transport is not None:
            self.transport.write(data)

    cdef void expect_answer(self):
        self.is_sent = True
        if not self.is_full and not self.is_reading_paused:
            self._await_answer()

    cdef void release(self):
        cdef Lane lane = self.lane
        cdef Upstream upstream = lane.upstream
        cdef Front front = self.front
        self.front = None
        if (not self.may_be_kept or not self.is_sent or self.is_full or self.transport is None
                or lane.is_gone or upstream.idle >= upstream.max_idle or upstream.worker.is_finishing):
            self._close_transport(self.is_full)
            return
        if self.is_reading_paused:
            self.resume_reading()
        self.phase = KEPT
        self.is_reused = True
        if upstream.proxy_protocol:
            self.owner = front
            if front.own_backs is None:
                front.own_backs = set()
            front.own_backs.add(self)
        lane.idle.append(self)
        upstream.idle += 1
        upstream.worker.row.add(lane.columns + BACKEND_IDLE, 1)
        upstream.worker.wheel.set(self, now_s() + self.idle_s)

    cdef void abort(self):
        self.front = None
        self._close_transport(True)

    cdef void pause_reading(self):
        if self.transport is not None and not self.is_reading_paused:
            self.is_reading_paused = True
            self.transport.pause_reading()
            # Now it is the client who is waited for, and the client's clock runs.
            if not self.is_full:
                self._await_nothing()

    cdef void resume_reading(self):
        if self.transport is not None and self.is_reading_paused:
            self.is_reading_paused = False
            self.transport.resume_reading()
            if self.is_sent and not self.is_full:
                self._await_answer()

    cdef object detach(self):
        transport = self.transport
        self.transport = None
        self.front = None
        self.phase = GONE
        self.lane.upstream.worker.wheel.forget(self)
        return transport

    # -- the answer

    cdef void _take_answer(self, bytes data):
        cdef Front front = self.front
        cdef const char* bytes_ = PyBytes_AS_STRING(data)
        cdef size_t length = PyBytes_GET_SIZE(data)
        cdef size_t at = 0
        cdef size_t used = 0
        cdef const char* span
        cdef size_t span_length
        cdef int state
        while self.phase == WAITING:
            state = self.head.take(bytes_ + at, length - at, &used)
            at += used
            if state == HEAD_MORE:
                return
            if state != HEAD_COMPLETE:
                self._fail(END_BACKEND_INVALID)
                return
            if self.head.status == 101:
                front.on_upgrade(self, data[at:])
                return
            if self.head.status >= 200:
                self.phase = BODY
                self.body.begin(self.head.body_kind, self.head.content_length)
                if not front.on_answer(self):
                    return
                if self.read_rate:
                    pace_begin(&self.pace, self.read_s)
                    if self.is_sent and not self.is_reading_paused and not self.is_full:
                        self._await_answer()
            else:
                front.on_interim(self)
                if self.front is not front:
                    return
                self.head.clear(self.head.for_head)
                if at == length:
                    return
        if self.body.kind != BODY_NONE:
            if self.as_chunk or self.body.kind == BODY_CHUNKED:
                piece = self.body.collect(bytes_ + at, length - at, &used, self.as_chunk)
                at += used
            else:
                if self.body.read(bytes_, length, &at, &span, &span_length) != BODY_SPAN:
                    piece = b""
                elif span_length == length:
                    # All of it is body: it goes on as it is, without a copy.
                    piece = data
                else:
                    piece = span[:span_length]
            if piece is None:
                self._fail(END_BACKEND_INVALID)
                return
            if piece:
                front.on_piece(piece)
                if self.front is not front:
                    return
        if self.body.is_over or self.body.kind == BODY_NONE:
            self.may_be_kept = self.head.keeps_alive and at == length
            front.on_answer_end(self)
        else:
            front.on_pause()

    cdef void _fail(self, int end):
        cdef Front front = self.front
        self.abort()
        front.on_back_lost(self, end)

    # -- time

    cdef void _await_answer(self):
        """From now on: the next byte, and enough of them."""
        cdef double now = now_s()
        self.read_due_s = now + self.read_s
        pace_run(&self.pace, now)
        self._set_due()

    cdef void _await_nothing(self):
        """Others are waited for: its clocks stand."""
        pace_stand(&self.pace)
        self.lane.upstream.worker.wheel.set(self, NEVER)

    cdef void _set_due(self):
        self.lane.upstream.worker.wheel.set(self, min(self.read_due_s, self.pace.due_s))

    cdef void on_due(self, double now_s):
        if self.front is None:
            self.close()
        elif self.pace.due_s > now_s or self.read_due_s <= now_s:
            self._fail(END_BACKEND_TIMEOUT)
        elif pace_holds(&self.pace, now_s, self.body.received, self.read_rate, self.read_s, self.read_due_s):
            self._set_due()
        else:
            self._fail(END_BACKEND_TOO_SLOW)

    # -- being kept

    def close(self):
        """Closes a connection that has no request."""
        self._leave_list()
        self._close_transport(False)

    cdef bint is_alive(self) noexcept:
        cdef char byte
        cdef ssize_t got
        if self.fileno < 0:
            return True
        got = recv(self.fileno, &byte, 1, MSG_PEEK | MSG_DONTWAIT)
        return got < 0 and errno == EAGAIN

    cdef void _leave_list(self):
        cdef Lane lane = self.lane
        if self.phase != KEPT:
            return
        if self.owner is not None:
            self.owner.own_backs.discard(self)
            self.owner = None
        try:
            lane.idle.remove(self)
        except ValueError:
            return
        lane.upstream.idle -= 1
        lane.upstream.worker.row.add(lane.columns + BACKEND_IDLE, -1)

    cdef void _close_transport(self, bint at_once):
        self.phase = GONE
        self.lane.upstream.worker.wheel.forget(self)
        if self.transport is not None:
            if at_once:
                self.transport.abort()
            else:
                self.transport.close()


cdef void close_own(Front front):
    for connection in list(front.own_backs or ()):
        (<BackendConnection>connection).close()


cdef BackendConnection _next_kept(Lane lane, Front front):
    """Takes the next candidate off the list, or None."""
    cdef BackendConnection connection
    if not lane.upstream.proxy_protocol:
        if not lane.idle:
            return None
        connection = <BackendConnection>lane.idle.pop()
        lane.upstream.idle -= 1
        lane.upstream.worker.row.add(lane.columns + BACKEND_IDLE, -1)
        return connection
    for candidate in front.own_backs or ():
        connection = <BackendConnection>candidate
        # Requests of one connection may be of several clients, behind a trusted proxy.
        if connection.lane is lane and connection.told_peer == front.peer:
            connection._leave_list()
            return connection
    return None


cdef BackendConnection take_kept(lane_, Front front, bint must_be_alive):
    cdef Lane lane = <Lane>lane_
    cdef BackendConnection connection
    while True:
        connection = _next_kept(lane, front)
        if connection is None:
            return None
        if connection.transport is None or connection.transport.is_closing():
            continue
        if must_be_alive and not connection.is_alive():
            connection._close_transport(True)
            continue
        return connection
