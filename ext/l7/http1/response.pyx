"""The head of an answer, and how its body ends (RFC 9112 6.3)."""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t
from libc.string cimport memset

from l7.http1.body cimport BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_UNTIL_CLOSE
from l7.http1.connection cimport CONNECTION_UPGRADE, persists, read_connection
from l7.http1.fields cimport FIELD_UPGRADE
from l7.http1.framing cimport read_framing
from l7.http1.head cimport (
    HEAD_COMPLETE,
    HEAD_MORE,
    HEAD_REFUSED,
    has_field,
    head_clear,
    head_forget,
    head_open,
    head_release,
    head_take,
    join_values,
    list_headers,
)
from l7.http1.refusals cimport REFUSED_NOT
from l7.http1.rules import name_of
from l7.http1.statusline cimport read_status_line


cdef class ResponseHead:
    def __cinit__(self, *, uint32_t status_line=8 << 10, uint32_t header_bytes=32 << 10, uint32_t header_count=100):
        head_open(&self.head, header_bytes, status_line, header_count)
        self._forget()

    def __dealloc__(self):
        head_release(&self.head)

    cdef void clear(self, bint for_head) noexcept nogil:
        head_clear(&self.head)
        self.state = HEAD_MORE
        self.refusal = REFUSED_NOT
        self.for_head = for_head
        self._forget()

    cdef void release(self) noexcept nogil:
        self.clear(False)
        head_release(&self.head)

    cdef int take(self, const char* data, size_t length, size_t* used) noexcept nogil:
        used[0] = 0
        if self.state != HEAD_MORE:
            return self.state
        self.state = head_take(&self.head, data, length, used, False, read_status_line, &self.line)
        if self.state == HEAD_COMPLETE:
            self.head.refusal = self._finish()
        self.refusal = self.head.refusal
        if self.refusal != REFUSED_NOT:
            self.state = HEAD_REFUSED
            used[0] = 0
            self._forget()
        return self.state

    cdef void _forget(self) noexcept nogil:
        """Nothing is known: what is asked of a head that is not complete is empty, and nothing points anywhere."""
        head_forget(&self.head)
        self.status = self.version = 0
        memset(&self.line, 0, sizeof(self.line))
        self.content_length = -1
        self.is_chunked = self.keeps_alive = self.switches = False
        self.body_kind = BODY_NONE

    cdef int _finish(self) noexcept nogil:
        cdef int options = 0
        cdef int refusal = read_framing(&self.head, self.line.version, &self.content_length, &self.is_chunked)
        if refusal == REFUSED_NOT:
            refusal = read_connection(&self.head, &options)
        if refusal != REFUSED_NOT:
            return refusal
        self.status = self.line.status
        self.version = self.line.version
        self.keeps_alive = persists(self.version, options)
        self.switches = self.status == 101 and options & CONNECTION_UPGRADE and has_field(&self.head, FIELD_UPGRADE)
        if self.for_head or self.status < 200 or self.status == 204 or self.status == 304:
            self.body_kind = BODY_NONE
        elif self.is_chunked:
            self.body_kind = BODY_CHUNKED
        elif self.content_length >= 0:
            self.body_kind = BODY_LENGTH
        else:
            self.body_kind = BODY_UNTIL_CLOSE
            self.keeps_alive = False
        return REFUSED_NOT

    def feed(self, bytes data not None):
        cdef size_t used
        self.take(data, len(data), &used)
        return used

    def restart(self, bint for_head=False):
        self.clear(for_head)

    @property
    def reason(self):
        return name_of(self.refusal)

    @property
    def phrase(self):
        return PyBytes_FromStringAndSize(self.head.data + self.line.phrase_at, self.line.phrase_length)

    def header(self, bytes name not None):
        return join_values(&self.head, name, len(name), b", ")

    def headers(self):
        return list_headers(&self.head)
