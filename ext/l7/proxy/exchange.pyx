"""See exchange.pxd."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from l7.counters cimport *
from l7.http1.body cimport BODY_CHUNKED, BODY_NONE, BODY_UNTIL_CLOSE
from l7.http1.build cimport (BUILD_CLOSE, BUILD_EXPECT, BUILD_KEEP_ALIVE, BUILD_UPGRADE, CONTINUE, build_answer,
                             build_request, build_response)
from l7.http1.fields cimport FIELD_SET_COOKIE, FIELD_UPGRADE
from l7.http1.head cimport HEAD_COMPLETE, Head, Header, first_of
from l7.http1.requestline cimport METHOD_HEAD
from l7.proxy.backend cimport take_kept
from l7.proxy.clock cimport now_s as clock_s
from l7.proxy.ending cimport account, status_of_end
from l7.proxy.sides cimport Back, Front
from l7.proxy.upstream cimport Lane, Upstream, is_in_ranges
from l7.proxy.way cimport Way
from l7.proxy.wheel cimport NEVER
from l7.proxy.worker cimport Worker

from l7.balancing.server import Outcome
from l7.proxy.connecting import open_connection

cdef object OK = Outcome.OK
cdef object FAILED = Outcome.FAILED
cdef object NEUTRAL = Outcome.NEUTRAL


cdef class Exchange(Front):
    cdef void _reset(self):
        self.status = 0
        self.tries = 0
        self.bytes_in = self.bytes_out = 0
        self.sent_s = self.connecting_s = self.connected_s = self.first_byte_s = 0
        self.way = None
        self.upstream = None
        self.lane = None
        self.tried = None
        self.failure = END_DONE
        self.request = None
        self.held = None
        self.held_bytes = 0
        self.is_replayable = True
        self.is_begun = False
        self.asks_upgrade = False
        self.set_cookie = None
        self.answer_head = None
        self.total_due_s = NEVER
        self.is_open = True

    # -- to a backend

    cdef void start(self, double now_s):
        """Takes the complete head in `self.head`; `is_body_over` where it has no body."""
        cdef Worker worker = self.worker
        cdef Way way
        self._reset()
        route = worker.route(self.head, self.peer)
        if route is None:
            self.fail(END_NO_ROUTE)
            return
        way = self.way = <Way>worker.ways[route.number]
        worker.row.add(way.columns + ROUTE_REQUESTS_TOTAL, 1)
        worker.row.add(way.columns + ROUTE_ACTIVE, 1)
        if way.total_s != NEVER:
            self.total_due_s = self.began_s + way.total_s
        if way.max_body >= 0 and self.head.content_length > way.max_body:
            self.fail(END_TOO_LARGE)
            return
        if way.answers:
            own = way.route.answer(self.head, self.peer)
            self.answer(own.status, END_OWN, b"", own.body, own.headers)
            return
        if self.head.asks_upgrade:
            self.asks_upgrade = self._upgrade() in way.upgrades
        self.upstream = way.choose(worker, self.head, self.peer, now_s)
        self.upstream.unreported += way.budget
        self._pick(now_s)

    cdef void _pick(self, double now_s):
        cdef Upstream upstream = self.upstream
        picked = upstream.pick(self.head, self.peer, now_s, self.tried or ())
        if picked is not None:
            self._take(picked, now_s)
        elif self.failure != END_DONE:
            self.fail(self.failure)
        elif upstream.pool.is_down:
            self.worker.row.add(upstream.columns + POOL_DOWN_TOTAL, 1)
            self.fail(END_POOL_DOWN)
        elif upstream.pool.wait(self):
            self.is_waiting = True
            self.worker.row.add(upstream.columns + POOL_WAITING, 1)
            self.set_stage(now_s + self.way.queue_s)
        else:
            self.worker.row.add(upstream.columns + POOL_QUEUE_FULL_TOTAL, 1)
            self.fail(END_QUEUE_FULL)

    def on_place(self, double now_s):
        """Called by the pool: a backend may have a place; the request has left the queue."""
        self.is_waiting = False
        self.worker.row.add(self.upstream.columns + POOL_WAITING, -1)
        self._pick(now_s)

    cdef void _take(self, picked, double now_s):
        cdef Back back
        server = picked.server
        self.lane = <Lane?>server.idle
        self.set_cookie = picked.set_cookie
        self.upstream.begin(server)
        self.is_counted = True
        self.tries += 1
        self.worker.row.add(self.lane.columns + BACKEND_REQUESTS_TOTAL, 1)
        self.worker.row.add(self.lane.columns + BACKEND_ACTIVE, 1)
        back = take_kept(self.lane, self, not self._is_repeatable(True))
        if back is None:
            self._connect(now_s)
        else:
            self.worker.row.add(self.lane.columns + BACKEND_REUSED_TOTAL, 1)
            self._send(back, now_s)

    cdef void _connect(self, double now_s):
        self.set_stage(now_s + self.way.connect_s)
        self.connecting_s = now_s
        self.connecting = self.worker.loop.create_task(open_connection(self, self.lane, self.peer))

    def on_connected(self, Back back):
        """Called by `open_connection`."""
        cdef double now_s = clock_s()
        self.connecting = None
        if back.transport is None:
            # It was closed as soon as it stood.
            self._connect_failed(END_CONNECT_FAILED)
            return
        self.connected_s = now_s
        self._send(back, now_s)

    def on_connect_failed(self):
        """Called by `open_connection`: no endpoint of the backend took the connection."""
        self.connecting = None
        self._connect_failed(END_CONNECT_FAILED)

    cdef void on_stage_due(self, double now_s):
        if self.is_waiting:
            self.worker.row.add(self.upstream.columns + POOL_QUEUE_TIMEOUTS_TOTAL, 1)
            self.fail(END_QUEUE_TIMEOUT)
        elif self.connecting is not None:
            self.connecting.cancel()
            self.connecting = None
            self._connect_failed(END_CONNECT_TIMEOUT)

    cdef void _connect_failed(self, int end):
        self.worker.row.add(self.lane.columns + BACKEND_CONNECT_FAILURES_TOTAL, 1)
        self._leave_backend(FAILED)
        self._retry_or_fail(end, False)

    cdef void _send(self, Back back, double now_s):
        cdef Way way = self.way
        self.back = back
        back.read_s = way.read_s
        back.read_rate = way.read_rate
        back.write_s = way.backend_write_s
        back.idle_s = way.backend_idle_s
        back.begin(self, self.head.method_number == METHOD_HEAD)
        if self.request is None:
            self.request = self._build_request()
        self.sent_s = now_s
        self.set_stage(NEVER)
        if self.held is None:
            back.send(self.request)
        else:
            back.send(b"".join([self.request, *self.held]))
            if not self._is_repeatable(True) or self.held_bytes > MAX_HELD:
                self.held = None
                self.is_replayable = False
        if self.is_body_over:
            back.expect_answer()
        else:
            self.resume(PAUSE_HELD)

    cdef bytes _build_request(self):
        cdef Way way = self.way
        cdef int flags = 0
        cdef bytes target = None
        cdef bytes lines = b""
        if self.asks_upgrade:
            flags |= BUILD_UPGRADE
        if self.head.expects_continue and not self.is_body_over:
            if self.lane.is_http10:
                # It would never say it (RFC 9110, section 10.1.1).
                self.write(CONTINUE)
            else:
                flags |= BUILD_EXPECT
        if way.rewrites:
            target = way.route.target(self.head)
        if way.request_edits is not None:
            lines = way.request_edits.lines(self.head, self.peer)
        # A client of HTTP/1.0 need not say whom it asks for, a request of HTTP/1.1 has to.
        host = None if self.head.authority_length else self.lane.name
        return build_request(self.head, target, host, way.request_overrides, self.forwarding, lines, flags)

    cdef bytes _upgrade(self):
        """The protocol that is asked for, in lower case."""
        return protocol_of(&self.head.head)

    # -- the request's body

    cdef void take_body(self, object piece, bint is_over):
        """Takes some of the body, framed as it is sent on; b"" for none."""
        cdef size_t length = len(piece)
        self.is_body_over = is_over
        if length and self.is_replayable:
            if self.back is None or self.held_bytes + length <= MAX_HELD and self.head.is_idempotent:
                if self.held is None:
                    self.held = []
                self.held.append(piece)
                self.held_bytes += length
                if self.back is None and self.held_bytes > MAX_HELD:
                    self.pause(PAUSE_HELD)
            else:
                self.held = None
                self.is_replayable = False
        if self.back is not None:
            if length:
                self.back.send(piece)
            if is_over and self.back is not None:
                self.back.expect_answer()

    cdef void on_back_full(self, bint is_full):
        if is_full:
            self.pause(PAUSE_BACKEND)
        else:
            self.resume(PAUSE_BACKEND)

    # -- another try

    cdef bint _is_repeatable(self, bint was_sent):
        """Whether the request may be sent (again)."""
        return not was_sent or self.head.is_idempotent and self.is_replayable

    cdef void on_back_lost(self, Back back, int end):
        cdef bint is_stale = back.is_reused and not back.has_spoken and end == END_BACKEND_BROKEN
        cdef int64_t column = BACKEND_FAILURES_TOTAL
        self.back = None
        self.resume(PAUSE_BACKEND)
        if is_stale:
            # The backend closed it while the request was on its way: nobody's fault, and nothing against it.
            self.worker.row.add(self.lane.columns + BACKEND_STALE_TOTAL, 1)
            if self._is_repeatable(True):
                self._connect(clock_s())
                return
        if end == END_BACKEND_TIMEOUT or end == END_BACKEND_TOO_SLOW:
            column = BACKEND_TIMEOUTS_TOTAL
        self.worker.row.add(self.lane.columns + column, 1)
        if self.is_begun:
            self.bytes_out = back.body.received
        self._leave_backend(NEUTRAL if is_stale else FAILED)
        if self.is_begun or end == END_BACKEND_TIMEOUT:
            # A slow backend's work is not given to another one: that would double the load.
            self.fail(end)
        else:
            self._retry_or_fail(end, True)

    cdef void _retry_or_fail(self, int end, bint was_sent):
        if (self.tries < self.way.attempts and self._is_repeatable(was_sent)
                and self.upstream.may_retry(self.way.budget)):
            self.failure = end
            self._note_tried()
            self._pick(clock_s())
        else:
            self.fail(end)

    cdef void _note_tried(self):
        if self.tried is None:
            self.tried = []
        self.tried.append(self.lane.server)
        self.worker.row.add(self.way.columns + ROUTE_RETRIES_TOTAL, 1)

    cdef bint _retry_elsewhere(self, Back back):
        """Gives the request to another backend because of the answer's status, if there is one."""
        cdef Way way = self.way
        if (self.tries >= way.attempts or not self._is_repeatable(True)
                or not is_in_ranges(back.head.status, way.retried_statuses)):
            return False
        now_s = clock_s()
        tried = [*(self.tried or ()), self.lane.server]
        picked = self.upstream.pick(self.head, self.peer, now_s, tried)
        if picked is None or not self.upstream.may_retry(way.budget):
            return False
        self.back = None
        back.abort()
        self.status = back.head.status
        self._leave_backend(FAILED)
        self.status = 0
        self.first_byte_s = 0
        self._note_tried()
        self._take(picked, now_s)
        return True

    # -- the answer

    cdef void on_interim(self, Back back):
        if self.head.version == 10 or back.head.status == 100 and self.is_body_over:
            return
        self.write(build_response(back.head, BODY_NONE, -1, None, b"", b"", 0))

    cdef bint on_answer(self, Back back) except -1:
        cdef Way way = self.way
        cdef int incoming = back.head.body_kind
        cdef int flags = 0
        self.first_byte_s = clock_s()
        if way.retried_statuses and self._retry_elsewhere(back):
            return False
        self.is_begun = True
        self.status = back.head.status
        self.lane.is_http10 = back.head.version == 10
        self.keeps_client = self.keeps_client and self.is_body_over and not self.worker.is_finishing
        self.kind = incoming
        if incoming == BODY_CHUNKED or incoming == BODY_UNTIL_CLOSE:
            if self.head.version == 11:
                self.kind = BODY_CHUNKED
            else:
                self.kind = BODY_UNTIL_CLOSE
                self.keeps_client = False
        back.as_chunk = self.kind == BODY_CHUNKED
        if not self.keeps_client:
            flags = BUILD_CLOSE
        elif self.head.version == 10:
            flags = BUILD_KEEP_ALIVE
        if self.upstream.learns is not None:
            self._learn_session(back)
        self.answer_head = build_response(back.head, self.kind, back.head.content_length, way.response_overrides,
                                          self._answer_lines(), self.worker.date_line(), flags)
        return True

    cdef bytes _answer_lines(self):
        """What is put into the answer's head by edits and for the session."""
        cdef bytes lines = b""
        if self.way.response_edits is not None:
            lines = self.way.response_edits.lines(self.head, self.peer)
        if self.set_cookie is not None:
            lines += b"Set-Cookie: " + self.set_cookie + b"\r\n"
        return lines

    cdef void _learn_session(self, Back back):
        """Looks for the application's cookie among the answer's."""
        cdef const Header* header
        cdef bytes wanted = self.upstream.learns + b"="
        cdef uint32_t number
        for number in range(back.head.head.count):
            header = back.head.head.headers + number
            if header.field == FIELD_SET_COOKIE:
                value = back.head.head.data[header.value_at:header.value_at + header.value_length]
                if value.startswith(wanted):
                    session = value[len(wanted):].split(b";", 1)[0].strip()
                    self.upstream.sessions.learn(session, self.lane.server, clock_s())

    cdef void on_piece(self, object piece):
        cdef bytes head = self.answer_head
        if head is not None:
            self.answer_head = None
            piece = head + piece
        self.write(piece)

    cdef void on_pause(self):
        cdef bytes head = self.answer_head
        if head is not None:
            self.answer_head = None
            self.write(head)

    cdef void on_answer_end(self, Back back):
        cdef Lane lane = self.lane
        if self.kind == BODY_CHUNKED and back.head.body_kind == BODY_UNTIL_CLOSE:
            self.on_piece(b"0\r\n\r\n")
        else:
            self.on_pause()
        self.bytes_out = back.body.received
        self.back = None
        back.release()
        self._leave_backend(FAILED if self.upstream.is_failure(self.status) else OK)
        self._account(END_DONE)
        self.on_complete()

    cdef void on_upgrade(self, Back back, bytes rest):
        cdef bytes head
        if not self.asks_upgrade or not back.head.switches or protocol_of(&back.head.head) != self._upgrade():
            back.abort()
            self.on_back_lost(back, END_BACKEND_INVALID)
            return
        self.first_byte_s = clock_s()
        self.is_begun = True
        self.status = 101
        self.total_due_s = NEVER
        head = build_response(back.head, BODY_NONE, -1, self.way.response_overrides, self._answer_lines(),
                              self.worker.date_line(), BUILD_UPGRADE)
        self.back = None
        self.on_tunnel(back, head + rest)

    cdef void leave_tunnel(self, int end, uint64_t from_client, uint64_t from_backend):
        self.bytes_in = from_client
        self.bytes_out = from_backend
        self._leave_backend(OK)
        self._account(end)

    # -- the end

    cdef void fail(self, int end):
        cdef int status = status_of_end(end)
        if self.is_begun and self.answer_head is None:
            self._stop()
            self._account(end)
            self.on_cut()
            return
        content_type, body = self.worker.page(status)
        self.answer(status, end, content_type, body, b"")

    cdef void answer(self, int status, int end, bytes content_type, bytes body, bytes lines):
        cdef int flags = 0
        cdef bint for_head = self.head.state == HEAD_COMPLETE and self.head.method_number == METHOD_HEAD
        self._stop()
        self.is_begun = True
        self.status = status
        if not self.is_body_over or self.worker.is_finishing:
            self.keeps_client = False
        if not self.keeps_client:
            flags = BUILD_CLOSE
        elif self.head.version == 10:
            flags = BUILD_KEEP_ALIVE
        data = build_answer(status, content_type, body, lines, self.worker.date_line(), flags, for_head)
        self.bytes_out = 0 if for_head else len(body)
        self.write(data)
        self._account(end)
        self.on_complete()

    cdef void abandon(self, int end):
        if not self.is_open:
            return
        if self.status == 0:
            self.status = status_of_end(end)
        self._stop()
        self._account(end)

    cdef void _stop(self):
        """Lets go of whatever the request has or waits for."""
        cdef Back back = self.back
        if self.is_waiting:
            self.is_waiting = False
            self.worker.row.add(self.upstream.columns + POOL_WAITING, -1)
            self.upstream.pool.leave(self)
        if self.connecting is not None:
            self.connecting.cancel()
            self.connecting = None
        if back is not None:
            self.back = None
            if self.is_begun:
                self.bytes_out = back.body.received
            back.abort()
        self._leave_backend(NEUTRAL)
        self.answer_head = None

    cdef void _leave_backend(self, outcome):
        cdef Lane lane = self.lane
        cdef double took_s
        if not self.is_counted:
            return
        self.is_counted = False
        self.worker.row.add(lane.columns + BACKEND_ACTIVE, -1)
        if self.first_byte_s:
            took_s = self.first_byte_s - self.sent_s
            if 100 <= self.status < 600:
                self.worker.row.add(lane.columns + BACKEND_1XX + self.status // 100 - 1, 1)
            self.worker.row.add(lane.columns + BACKEND_BYTES_IN_TOTAL, self.bytes_in)
            self.worker.row.add(lane.columns + BACKEND_BYTES_OUT_TOTAL, self.bytes_out)
            self.worker.row.add(lane.columns + BACKEND_FIRST_BYTE_MICROSECONDS_TOTAL, <int64_t>(took_s * 1e6))
            self.upstream.end(lane.server, outcome, clock_s(), took_s)
        else:
            self.upstream.end(lane.server, outcome, clock_s())

    cdef void _account(self, int end):
        self.end = end
        self.is_open = False
        account(self)

    # -- the client's side

    cdef void write(self, object data):
        raise NotImplementedError

    cdef void pause(self, int why):
        raise NotImplementedError

    cdef void resume(self, int why):
        raise NotImplementedError

    cdef void set_stage(self, double due_s):
        raise NotImplementedError

    cdef void on_complete(self):
        raise NotImplementedError

    cdef void on_cut(self):
        raise NotImplementedError

    cdef void on_tunnel(self, Back back, bytes rest):
        raise NotImplementedError


cdef bytes protocol_of(const Head* head):
    """What the Upgrade header names, in lower case."""
    cdef const Header* header = first_of(head, FIELD_UPGRADE)
    return head.data[header.value_at:header.value_at + header.value_length].lower()
