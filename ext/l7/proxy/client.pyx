"""See client.pxd."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from l7.counters cimport *
from l7.http1.body cimport BODY_CHUNKED, BODY_LENGTH, BODY_UNTIL_CLOSE, BodyReader
from l7.http1.head cimport HEAD_COMPLETE, HEAD_MORE
from l7.http1.refusals cimport status_of
from l7.http1.request cimport RequestHead
from l7.proxy.backend cimport close_own
from l7.proxy.clock cimport now_s as clock_s
from l7.proxy.exchange cimport PAUSE_BACKEND, PAUSE_HELD, PAUSE_NEXT, Exchange
from l7.proxy.pace cimport pace_begin, pace_clear, pace_holds, pace_run, pace_stand
from l7.proxy.relay cimport Relay
from l7.proxy.sides cimport Back
from l7.proxy.wheel cimport NEVER
from l7.proxy.worker cimport ListenerPart, Worker

import socket
import struct

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "<linux/sockios.h>" nogil:
    unsigned long SIOCINQ, SIOCOUTQ

# How long a client may take to notice that its request was answered early, and how much it may send until then.
cdef double LINGER_S = 5.0
cdef enum:
    LINGER_BYTES = 1 << 24

# A connection without a request gives its memory back after this.
cdef double SOON_S = 1.0

# Closing with SO_LINGER of 0 s resets the connection.
cdef bytes RESET = struct.pack("ii", 1, 0)


cdef class ClientConnection(Exchange):
    """asyncio's Protocol of one connection that `listener` has accepted; `header` is its PROXY header."""

    def __init__(self, ListenerPart listener, header=None):
        cdef Worker worker = listener.worker
        self.listener = listener
        self.proxy_header = header
        self.worker = worker
        self.head = RequestHead(request_line=worker.request_line, header_bytes=worker.header_bytes,
                                header_count=worker.header_count)
        self.phase = HEAD
        self.stage_due_s = self.body_due_s = self.write_due_s = self.total_due_s = NEVER
        pace_clear(&self.pace)
        listener.enter()

    def __dealloc__(self):
        # uvloop says nothing of a handshake that fails; the protocol that was made for it just goes.
        if not self.was_made and self.listener is not None and self.worker is not None:
            self.worker.row.add(self.listener.columns + LISTENER_TLS_FAILURES_TOTAL, 1)
            self.listener.leave()

    # -- asyncio's side

    def connection_made(self, transport):
        cdef Worker worker = self.worker
        self.was_made = True
        self.transport = transport
        worker.connections.add(self)
        self.own_peer, self.own_forwarding = self.listener.introduce(transport, self.proxy_header)
        self.peer = self.own_peer
        self.forwarding = self.own_forwarding
        if self.listener.is_tls:
            worker.row.add(self.listener.columns + LISTENER_TLS_HANDSHAKES_TOTAL, 1)
            if transport.get_extra_info("ssl_object").session_reused:
                worker.row.add(self.listener.columns + LISTENER_TLS_RESUMED_TOTAL, 1)
        self._await_head()

    def data_received(self, bytes data):
        if self.phase == HEAD:
            self._read(data, 0)
        elif self.phase == BUSY:
            if not self.is_body_over:
                self._read(data, 0)
            else:
                # It is paused; this is what was already under way.
                self.rest = data if self.rest is None else self.rest[self.rest_at:] + data
                self.rest_at = 0
                self.pause(PAUSE_NEXT)
        elif self.phase == LINGER:
            self.unsent += PyBytes_GET_SIZE(data)
            if self.unsent > LINGER_BYTES:
                self._close()

    def eof_received(self):
        if self.phase != BUSY:
            return False
        if not self.is_body_over:
            self.abandon(END_CLIENT_CLOSED)
            return False
        # The client may close its half as soon as it has asked; it still gets its answer.
        self.is_half_closed = True
        return not self.listener.is_tls

    def connection_lost(self, error):
        self.transport = None
        self.phase = CLOSED
        self.worker.wheel.forget(self)
        self.abandon(END_CLIENT_CLOSED)
        close_own(self)
        self.worker.connections.discard(self)
        self.listener.leave()

    def pause_writing(self):
        self.is_full = True
        self._await_taking()
        if self.back is not None:
            self.back.pause_reading()

    def resume_writing(self):
        self.is_full = False
        if self.phase == CLOSING:
            return
        self.write_due_s = NEVER
        if self.back is not None:
            self.back.resume_reading()
        elif self.phase == HEAD and self.rest is not None:
            self._read_rest()

    # -- requests

    cdef void _await_head(self):
        """Between requests."""
        self.phase = HEAD
        self.idle_since_s = clock_s()
        self.total_due_s = NEVER
        self.set_stage(self.idle_since_s + SOON_S)

    cdef void _read(self, bytes data, size_t at):
        """Acts on what was received, as far as its turn has come; the rest is kept."""
        cdef const char* bytes_ = PyBytes_AS_STRING(data)
        cdef size_t length = PyBytes_GET_SIZE(data)
        cdef size_t used = 0
        cdef int state
        self.is_reading = True
        while at < length:
            if self.phase == HEAD and not self.is_full:
                if self.idle_since_s:
                    self.began_s = clock_s()
                    self.idle_since_s = 0
                    self.set_stage(self.began_s + self.worker.header_s)
                state = self.head.take(bytes_ + at, length - at, &used)
                at += used
                if state == HEAD_COMPLETE:
                    self._begin()
                elif state != HEAD_MORE:
                    self._refuse(self.head.refusal)
            elif self.phase == BUSY and not self.is_body_over:
                at = self._read_body(data, at)
            else:
                break
        self.is_reading = False
        if at < length and (self.phase == HEAD or self.phase == BUSY):
            self.rest = data
            self.rest_at = at
            self.pause(PAUSE_NEXT)

    cdef void _read_rest(self):
        """Goes on with what had to wait."""
        cdef bytes rest = self.rest
        cdef size_t at = self.rest_at
        self.rest = None
        if rest is not None:
            self._read(rest, at)
        if self.rest is None and self.phase != TUNNEL:
            self.resume(PAUSE_NEXT)
            if self.is_half_closed and self.phase == HEAD:
                self._close()

    cdef void _begin(self):
        """Acts on a head that is complete."""
        cdef RequestHead head = self.head
        cdef double now = clock_s()
        self.phase = BUSY
        self.requests += 1
        self.keeps_client = head.keeps_alive and self.requests < self.worker.max_requests
        self.is_body_over = not head.is_chunked and head.content_length <= 0
        self.stage_due_s = NEVER
        if not self.is_body_over:
            if self.body is None:
                self.body = BodyReader()
            self.body.begin(BODY_CHUNKED if head.is_chunked else BODY_LENGTH, head.content_length)
        if self.worker.believe is not None:
            told = self.worker.believe(head, self.own_peer)
            self.peer, self.forwarding = told or (self.own_peer, self.own_forwarding)
        try:
            self.start(now)
        except Exception as error:
            context = {"message": "a request could not be routed", "exception": error, "protocol": self}
            self.worker.loop.call_exception_handler(context)
            if self.is_open:
                self.fail(END_ERROR)
        if self.phase == BUSY and not self.is_body_over:
            self._await_body()
        self._arm()

    cdef size_t _read_body(self, bytes data, size_t at):
        """Hands on what of the body is in `data`; where the next thing begins."""
        cdef const char* bytes_ = PyBytes_AS_STRING(data)
        cdef size_t length = PyBytes_GET_SIZE(data)
        cdef size_t used = 0
        cdef bint is_chunked = self.head.is_chunked
        piece = self.body.collect(bytes_ + at, length - at, &used, is_chunked)
        self.bytes_in = self.body.received
        if piece is None:
            self.worker.row.add(self.worker.refusals + self.body.refusal - 1, 1)
            self.fail(END_BAD_REQUEST)
            return at
        if self.way is not None and 0 <= self.way.max_body < <long long>self.body.received:
            self.fail(END_TOO_LARGE)
            return at
        self._set_body_due(not self.body.is_over and not self.pauses)
        self.take_body(piece, self.body.is_over)
        return at + used

    cdef void _refuse(self, int refusal):
        """A head that breaks the rules: its sender is answered, and not listened to any more."""
        self.worker.row.add(self.worker.refusals + refusal - 1, 1)
        self._give_up_head()
        content_type, body = self.worker.page(status_of(refusal))
        self.answer(status_of(refusal), END_BAD_REQUEST, content_type, body, b"")

    cdef void _give_up_head(self):
        """Nobody knows where the next request begins: what is answered now is the last."""
        self._reset()
        self.phase = BUSY
        self.is_body_over = False

    # -- what Exchange asks for

    cdef void write(self, object data):
        if self.transport is not None:
            self.transport.write(data)

    cdef void pause(self, int why):
        if not self.pauses and self.transport is not None:
            self.transport.pause_reading()
        self.pauses |= why
        self._set_body_due(False)

    cdef void resume(self, int why):
        if not self.pauses & why:
            return
        self.pauses &= ~why
        if not self.pauses and self.transport is not None:
            self.transport.resume_reading()
            self._set_body_due(not self.is_body_over and self.phase == BUSY)

    cdef void _await_body(self):
        """From now on."""
        pace_begin(&self.pace, self._body_s() if self.way is not None and self.way.body_rate else NEVER)
        self._set_body_due(not self.pauses)

    cdef void _set_body_due(self, bint is_awaited):
        """While the client is not read it is not the one that is waited for: then its clocks stand."""
        cdef double now_s
        if is_awaited:
            now_s = clock_s()
            self.body_due_s = now_s + self._body_s()
            pace_run(&self.pace, now_s)
            self._arm()
        else:
            self.body_due_s = NEVER
            pace_stand(&self.pace)

    cdef double _body_s(self) noexcept:
        return self.worker.body_s if self.way is None else self.way.body_s

    cdef double _write_s(self) noexcept:
        return self.worker.write_s if self.way is None else self.way.write_s

    cdef void _await_taking(self):
        """Of what was written, from now on."""
        self.unsent = self._count_unsent()
        self.write_due_s = clock_s() + self._write_s()
        self._arm()

    cdef size_t _count_unsent(self):
        """Bytes that the client's host has not confirmed, the kernel's too: that one takes megabytes for a client that
        reads slowly, and then nothing for minutes."""
        return <size_t>self.transport.get_write_buffer_size() + self._count_in_kernel(SIOCOUTQ)

    cdef size_t _count_in_kernel(self, unsigned long queue):
        """Bytes in one of the socket's queues: SIOCINQ, received and not read, or SIOCOUTQ, sent and not confirmed."""
        cdef int queued = 0
        sock = self.transport.get_extra_info("socket")
        return queued if sock is not None and ioctl(sock.fileno(), queue, &queued) == 0 else 0

    cdef void set_stage(self, double due_s):
        self.stage_due_s = due_s
        self._arm()

    cdef void on_complete(self):
        if self.phase != BUSY:
            return
        if not self.is_body_over:
            self._linger()
        elif not self.keeps_client or self.is_half_closed and self.rest is None:
            if self.rest is None:
                self._close()
            else:
                self._linger()
        else:
            self.head.clear()
            self.resume(PAUSE_BACKEND | PAUSE_HELD)
            self._await_head()
            if not self.is_reading and not self.is_full:
                self._read_rest()

    cdef void on_cut(self):
        if self.kind == BODY_UNTIL_CLOSE and self.transport is not None:
            # The end of the connection is the end of such an answer, unless it is a reset.
            self.phase = CLOSING
            self._break()
        else:
            self._close()

    cdef void on_tunnel(self, Back back, bytes rest):
        cdef Relay relay
        cdef bint is_back_full = back.is_full
        backend = back.detach()
        close_own(self)
        transport = self.transport
        waiting = None if self.rest is None else self.rest[self.rest_at:]
        self.rest = None
        self.phase = TUNNEL
        self.worker.wheel.forget(self)
        self.transport = None
        relay = Relay(self.worker, self.way.upgraded_s, self.on_tunnel_end)
        transport.write(rest)
        if waiting:
            backend.write(waiting)
        relay.join(transport, backend, self.is_full, is_back_full)
        if self.is_half_closed:
            relay.client.eof_received()

    def on_tunnel_end(self, Relay relay):
        """Called by the tunnel that this connection has become."""
        self.leave_tunnel(relay.end, relay.client.received, relay.backend.received)
        self.worker.connections.discard(self)
        self.listener.leave()

    # -- the end

    cdef void _close(self):
        """Closes the connection when all that was written has been sent."""
        self.phase = CLOSING
        self.body_due_s = self.pace.due_s = self.total_due_s = NEVER
        self.rest = None
        if self.transport is None:
            return
        if self.transport.get_write_buffer_size():
            self._await_taking()
        self.transport.close()

    cdef void _break(self):
        """Ends the connection with a reset. What the kernel has for a client that takes nothing goes with it;
        closed, it would lie there for minutes, megabytes each, as such clients want (nginx's
        reset_timedout_connection)."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()

    cdef void _linger(self):
        self.phase = LINGER
        self.body_due_s = self.pace.due_s = self.total_due_s = NEVER
        self.rest = None
        self.unsent = 0
        if self.transport is None:
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.resume(PAUSE_BACKEND | PAUSE_HELD | PAUSE_NEXT)
        self.set_stage(clock_s() + LINGER_S)

    def finish(self):
        """The worker takes no more requests: closes the connection as soon as that breaks nothing."""
        if self.phase == HEAD and self.idle_since_s:
            # Its next request, or its first one, may be on its way.
            self.set_stage(clock_s() + SOON_S)

    def stop(self):
        """Closes the connection now."""
        if self.phase == BUSY:
            self.abandon(END_SHUTDOWN)
        if self.transport is not None:
            self.transport.abort()

    # -- time

    cdef void _arm(self):
        self.worker.wheel.set(self, min(min(min(self.stage_due_s, self.body_due_s), self.pace.due_s),
                                        min(self.write_due_s, self.total_due_s)))

    cdef void on_due(self, double now_s):
        if self.transport is None:
            return
        if self.write_due_s <= now_s and self._takes_too_little():
            self._break()
            return
        if self.total_due_s <= now_s:
            self.total_due_s = NEVER
            self.fail(END_TOTAL_TIMEOUT)
        elif self.body_due_s <= now_s:
            self.body_due_s = NEVER
            self.fail(END_BODY_TIMEOUT)
        elif self.pace.due_s <= now_s:
            if not pace_holds(&self.pace, now_s, self.body.received, self.way.body_rate, self.way.body_s, self.body_due_s):
                self.fail(END_BODY_TOO_SLOW)
        elif self.stage_due_s <= now_s:
            self.stage_due_s = NEVER
            if self.phase == HEAD:
                self._idle_due(now_s)
            elif self.phase == BUSY:
                self.on_stage_due(now_s)
            else:
                self.transport.abort()
        if self.transport is not None:
            self._arm()

    cdef bint _takes_too_little(self):
        """Whether a period of the answer's taking has ended badly, for which the request is given up."""
        cdef double write_rate = self.worker.write_rate if self.way is None else self.way.write_rate
        cdef size_t unsent = self._count_unsent()
        cdef size_t taken = self.unsent - unsent if unsent < self.unsent else 0
        # Of what is left when the connection is closed nobody can take more than that.
        cdef double least = min(write_rate * self._write_s(), <double>self.unsent)
        if taken == 0 or <double>taken < least:
            self.abandon(END_WRITE_TOO_SLOW if taken else END_WRITE_TIMEOUT)
            return True
        self._await_taking()
        return False

    cdef void _idle_due(self, double now_s):
        if not self.idle_since_s:
            self._give_up_head()
            self.fail(END_HEADER_TIMEOUT)
        elif self.worker.is_finishing or now_s >= self.idle_since_s + self.worker.idle_s:
            if self._count_in_kernel(SIOCINQ):
                # This process was held up. To close now would reset a request that has come in time.
                self.set_stage(now_s + SOON_S)
            else:
                self._close()
        else:
            self.head.release()
            self.set_stage(self.idle_since_s + self.worker.idle_s)
