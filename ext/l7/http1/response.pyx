"""The head of an answer: the status line, and how its body ends (RFC 9112 6.3)."""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcmp

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
    head_fields,
    head_forget,
    head_gather,
    head_keep,
    head_line,
    head_open,
    head_release,
    join_values,
    list_headers,
)
from l7.http1.refusals cimport REFUSED_NOT, REFUSED_STATUS_LINE
from l7.http1.rules import name_of

cdef enum:
    VERSION_LENGTH = 8
    # `HTTP/1.1 200`; a space and a reason may follow.
    SHORTEST = 12
    SP = 32


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
        cdef const char* base
        cdef uint32_t have
        cdef int state
        cdef Head* head = &self.head
        used[0] = 0
        if self.state != HEAD_MORE:
            return self.state
        have = head_gather(head, data, length, &base)
        state = HEAD_COMPLETE
        if head.line_length == 0:
            state = head_line(head, base, have, False)
            if state == HEAD_COMPLETE:
                head.refusal = self._read_status_line(base)
        if state == HEAD_COMPLETE and head.refusal == REFUSED_NOT:
            state = head_fields(head, base, have)
        if head.refusal == REFUSED_NOT:
            used[0] = head_keep(head, base, have, state)
        if state == HEAD_COMPLETE and head.refusal == REFUSED_NOT:
            head.refusal = self._finish()
        if head.refusal != REFUSED_NOT:
            state = HEAD_REFUSED
            used[0] = 0
            self._forget()
        self.refusal = head.refusal
        self.state = state
        return state

    cdef void _forget(self) noexcept nogil:
        """Nothing is known: what is asked of a head that is not complete is empty, and nothing points anywhere."""
        head_forget(&self.head)
        self.status = self.version = 0
        self.phrase_at = self.phrase_length = 0
        self.content_length = -1
        self.is_chunked = self.keeps_alive = self.switches = False
        self.body_kind = BODY_NONE

    cdef int _read_status_line(self, const char* base) noexcept nogil:
        cdef const char* line = base + self.head.line_at
        cdef uint32_t length = self.head.line_length
        cdef int i
        if length < SHORTEST or memcmp(line, b"HTTP/1.", 7) != 0 or line[VERSION_LENGTH] != SP:
            return REFUSED_STATUS_LINE
        if line[7] != 48 and line[7] != 49:
            return REFUSED_STATUS_LINE
        self.version = 10 + line[7] - 48
        self.status = 0
        for i in range(VERSION_LENGTH + 1, SHORTEST):
            if not 48 <= line[i] <= 57:
                return REFUSED_STATUS_LINE
            self.status = self.status * 10 + line[i] - 48
        # The space behind the status is asked for even without a reason, and often left out.
        if self.status < 100 or (length > SHORTEST and line[SHORTEST] != SP):
            return REFUSED_STATUS_LINE
        self.phrase_at = self.head.line_at + min(length, <uint32_t>SHORTEST + 1)
        self.phrase_length = length - min(length, <uint32_t>SHORTEST + 1)
        return REFUSED_NOT

    cdef int _finish(self) noexcept nogil:
        cdef int options = 0
        cdef int refusal = read_framing(&self.head, self.version, &self.content_length, &self.is_chunked)
        if refusal == REFUSED_NOT:
            refusal = read_connection(&self.head, &options)
        if refusal != REFUSED_NOT:
            return refusal
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
        return PyBytes_FromStringAndSize(self.head.data + self.phrase_at, self.phrase_length)

    def header(self, bytes name not None):
        return join_values(&self.head, name, len(name), b", ")

    def headers(self):
        return list_headers(&self.head)
