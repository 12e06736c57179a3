"""See relay.pxd."""
from cpython.bytes cimport PyBytes_GET_SIZE

from l7.counters cimport END_DONE, END_SHUTDOWN, END_TUNNEL_TIMEOUT, WORKER_TUNNELS
from l7.proxy.clock cimport now_s as clock_s
from l7.proxy.wheel cimport Timed
from l7.proxy.worker cimport Worker


cdef class Relay(Timed):
    """Two transports that are one connection. `on_end(relay)` is called when both have gone."""

    def __init__(self, Worker worker, double idle_s, on_end):
        self.worker = worker
        self.idle_s = idle_s
        self.on_end = on_end
        self.end = END_DONE
        self.client = RelaySide(self)
        self.backend = RelaySide(self)
        self.client.other = self.backend
        self.backend.other = self.client

    def join(self, client, backend, bint is_client_full=False, bint is_backend_full=False):
        """Takes the transports over. The flags say whose buffer is above its mark."""
        self.is_joined = True
        self.worker.relays.add(self)
        self.worker.row.add(self.worker.totals + WORKER_TUNNELS, 1)
        self.touch()
        self.client.take_over(client)
        self.backend.take_over(backend)
        if self.client.is_lost or self.backend.is_lost:
            for transport in (self.client.transport, self.backend.transport):
                if transport is not None:
                    transport.abort()
            self.side_lost()
            return
        self.client.begin(is_backend_full)
        self.backend.begin(is_client_full)

    @property
    def from_client(self):
        """Bytes."""
        return self.client.received

    @property
    def from_backend(self):
        """Bytes."""
        return self.backend.received

    def close(self, int end=END_SHUTDOWN):
        """Ends it now."""
        self.end = end
        for side in (self.client, self.backend):
            if (<RelaySide>side).transport is not None:
                (<RelaySide>side).transport.abort()

    cdef void touch(self):
        self.worker.wheel.set(self, clock_s() + self.idle_s)

    cdef void on_due(self, double now_s):
        self.close(END_TUNNEL_TIMEOUT)

    cdef void side_lost(self):
        if not self.is_joined or self.client.transport is not None or self.backend.transport is not None:
            return
        self.worker.wheel.forget(self)
        self.worker.relays.discard(self)
        self.worker.row.add(self.worker.totals + WORKER_TUNNELS, -1)
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(self)
        self.worker.tell_of_change()


cdef class RelaySide:
    """asyncio's Protocol of one side."""

    def __init__(self, Relay relay):
        self.relay = relay

    def take_over(self, transport):
        """Becomes the protocol of a transport, unless that is lost already."""
        if not self.is_lost:
            self.transport = transport
            transport.set_protocol(self)

    def begin(self, bint other_is_full):
        """Hands on what came early, and reads."""
        cdef bytes early = self.early
        self.early = None
        if early is not None:
            self.other.transport.write(early)
        if other_is_full:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, bytes data):
        self.received += PyBytes_GET_SIZE(data)
        if not self.relay.is_joined:
            self.early = data if self.early is None else self.early + data
            self.transport.pause_reading()
        elif self.other.transport is not None:
            self.relay.touch()
            self.other.transport.write(data)

    def eof_received(self):
        cdef object other = self.other.transport
        self.has_ended = True
        if not self.relay.is_joined:
            return False
        if other is None or self.other.has_ended or not other.can_write_eof() or not self.transport.can_write_eof():
            return False
        other.write_eof()
        return True

    def connection_lost(self, error):
        cdef object other = self.other.transport
        self.transport = None
        self.is_lost = True
        if other is not None and self.relay.is_joined:
            if error is not None:
                other.abort()
            else:
                other.close()
        self.relay.side_lost()

    def pause_writing(self):
        if self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self):
        if self.other.transport is not None:
            self.other.transport.resume_reading()
