"""The head of a request: what its line and its fields say together.

Every refusal is a row of `l7.http1.rules`, which names the section.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8
from libc.string cimport memmove, memset

from l7.http1.authority cimport read_authority
from l7.http1.connection cimport CONNECTION_UPGRADE, persists, read_connection
from l7.http1.cookies cimport find_cookie
from l7.http1.fields cimport FIELD_COOKIE, FIELD_EXPECT, FIELD_HOST, FIELD_UPGRADE, lower, same_text
from l7.http1.framing cimport read_framing
from l7.http1.head cimport (
    HEAD_COMPLETE,
    HEAD_MORE,
    HEAD_REFUSED,
    Header,
    first_of,
    has_field,
    head_clear,
    head_forget,
    head_open,
    head_release,
    head_spare,
    head_take,
    join_values,
    list_headers,
    value_of,
)
from l7.http1.paths cimport normalise
from l7.http1.refusals cimport (
    REFUSED_EXPECTATION,
    REFUSED_HEADER_BYTES,
    REFUSED_HOST_DIFFERS,
    REFUSED_HOST_INVALID,
    REFUSED_HOST_MISSING,
    REFUSED_HOST_REPEATED,
    REFUSED_NOT,
)
from l7.http1.requestline cimport (
    METHOD_DELETE,
    METHOD_GET,
    METHOD_HEAD,
    METHOD_OPTIONS,
    METHOD_OTHER,
    METHOD_PATCH,
    METHOD_POST,
    METHOD_PUT,
    read_request_line,
)
from l7.http1.rules import name_of

cdef enum:
    SLASH = 47
    STAR = 42
    IDEMPOTENT = 1 << METHOD_GET | 1 << METHOD_HEAD | 1 << METHOD_PUT | 1 << METHOD_DELETE | 1 << METHOD_OPTIONS

# By number; made once, so that asking costs no object.
cdef tuple METHODS = (None, b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH")

cdef bytes NO_ID = b"0" * 32


cdef class RequestHead:
    def __cinit__(self, *, uint32_t request_line=8 << 10, uint32_t header_bytes=32 << 10,
                  uint32_t header_count=100, make_id=None):
        self._make_id = make_id
        head_open(&self.head, header_bytes, request_line, header_count)
        self._forget()

    def __dealloc__(self):
        head_release(&self.head)

    cdef void clear(self):
        head_clear(&self.head)
        self.state = HEAD_MORE
        self.refusal = REFUSED_NOT
        self._forget()
        self._method = self._target = self._host = self._path = self._id = None

    cdef void release(self):
        self.clear()
        head_release(&self.head)

    cdef int take(self, const char* data, size_t length, size_t* used) noexcept nogil:
        used[0] = 0
        if self.state != HEAD_MORE:
            return self.state
        self.state = head_take(&self.head, data, length, used, True, read_request_line, &self.line)
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
        memset(&self.line, 0, sizeof(self.line))
        self.authority_at = self.path_at = 0
        self.authority_length = self.host_length = self.path_length = 0
        self.method_number = METHOD_OTHER
        self.version = 0
        self.content_length = -1
        self.is_chunked = self.keeps_alive = self.expects_continue = False
        self.is_idempotent = self.asks_upgrade = False

    cdef int _finish(self) noexcept nogil:
        cdef int options
        cdef int refusal = self._read_host()
        self.version = self.line.version
        self.method_number = self.line.method
        self.is_idempotent = IDEMPOTENT >> self.line.method & 1
        if refusal == REFUSED_NOT:
            refusal = read_framing(&self.head, self.version, &self.content_length, &self.is_chunked)
        if refusal == REFUSED_NOT:
            refusal = read_connection(&self.head, &options)
        if refusal == REFUSED_NOT:
            refusal = self._read_expectation()
        if refusal != REFUSED_NOT:
            return refusal
        self.keeps_alive = persists(self.version, options)
        self.asks_upgrade = (options & CONNECTION_UPGRADE and has_field(&self.head, FIELD_UPGRADE)
                             and self.version == 11 and not self.is_chunked and self.content_length <= 0)
        return self._read_path()

    cdef int _read_host(self) noexcept nogil:
        cdef const Header* host = first_of(&self.head, FIELD_HOST)
        cdef const char* data = self.head.data
        cdef uint32_t i
        if self.head.repeated >> FIELD_HOST & 1:
            return REFUSED_HOST_REPEATED
        if host != NULL:
            self.authority_at = host.value_at
            self.authority_length = host.value_length
        elif self.line.version == 11:
            return REFUSED_HOST_MISSING
        else:
            self.authority_at = self.line.uri_at
            self.authority_length = self.line.uri_length
            if self.authority_length == 0:
                self.host_length = 0
                return REFUSED_NOT
        if not read_authority(data + self.authority_at, self.authority_length, &self.host_length):
            return REFUSED_HOST_INVALID
        if self.line.uri_length == 0:
            return REFUSED_NOT
        if self.line.uri_length != self.authority_length:
            return REFUSED_HOST_DIFFERS
        for i in range(self.authority_length):
            if lower(data[self.line.uri_at + i]) != lower(data[self.authority_at + i]):
                return REFUSED_HOST_DIFFERS
        return REFUSED_NOT

    cdef int _read_expectation(self) noexcept nogil:
        cdef const Header* expect = first_of(&self.head, FIELD_EXPECT)
        self.expects_continue = False
        # HTTP/1.0 has no expectations: they are ignored (RFC 9110 10.1.1).
        if expect == NULL or self.version == 10:
            return REFUSED_NOT
        if (self.head.repeated >> FIELD_EXPECT & 1
                or not same_text(self.head.data + expect.value_at, expect.value_length, b"100-continue", 12)):
            return REFUSED_EXPECTATION
        self.expects_continue = self.is_chunked or self.content_length > 0
        return REFUSED_NOT

    cdef int _read_path(self) noexcept nogil:
        cdef RequestLine* line = &self.line
        cdef char* out
        cdef int written
        if line.uri_length and line.raw_path_length == 0:
            self._give_path()
        self.path_at = line.target_at
        self.path_length = line.raw_path_length
        if line.path_is_plain or self.head.data[line.target_at] != SLASH:
            return REFUSED_NOT
        out = head_spare(&self.head, line.raw_path_length)
        if out == NULL:
            return REFUSED_HEADER_BYTES
        written = normalise(self.head.data + line.target_at, line.raw_path_length, out)
        if written < 0:
            return -written
        self.path_at = self.head.length
        self.path_length = <uint32_t>written
        return REFUSED_NOT

    cdef void _give_path(self) noexcept nogil:
        """A URI without a path has `/`, and OPTIONS of a whole server `*` (RFC 9112 3.2.1, 3.2.4). Its authority moves back onto
        the scheme's last slash to make room."""
        cdef RequestLine* line = &self.line
        cdef char* authority = self.head.data + line.uri_at
        memmove(authority - 1, authority, line.uri_length)
        if self.authority_at == line.uri_at:
            self.authority_at -= 1
        line.target_at -= 1
        line.target_length += 1
        line.raw_path_length = 1
        self.head.data[line.target_at] = (STAR if line.method == METHOD_OPTIONS and line.target_length == 1
                                          else SLASH)

    def feed(self, bytes data not None):
        cdef size_t used
        self.take(data, len(data), &used)
        return used

    def restart(self):
        self.clear()

    @property
    def reason(self):
        return name_of(self.refusal)

    @property
    def method(self):
        if self._method is None:
            self._method = METHODS[self.method_number]
            if self._method is None:
                self._method = PyBytes_FromStringAndSize(self.head.data + self.line.method_at, self.line.method_length)
        return self._method

    @property
    def target(self):
        if self._target is None:
            self._target = PyBytes_FromStringAndSize(self.head.data + self.line.target_at, self.line.target_length)
        return self._target

    @property
    def query(self):
        cdef uint32_t skipped = self.line.raw_path_length + 1
        if skipped >= self.line.target_length:
            return b""
        return PyBytes_FromStringAndSize(self.head.data + self.line.target_at + skipped,
                                         self.line.target_length - skipped)

    @property
    def authority(self):
        return PyBytes_FromStringAndSize(self.head.data + self.authority_at, self.authority_length)

    @property
    def host(self):
        if self._host is None:
            self._host = PyUnicode_DecodeASCII(self.head.data + self.authority_at, self.host_length, NULL).lower()
        return self._host

    @property
    def path(self):
        if self._path is None:
            self._path = PyUnicode_DecodeUTF8(self.head.data + self.path_at, self.path_length, b"surrogateescape")
        return self._path

    @property
    def id(self):
        if self._id is None:
            self._id = NO_ID if self._make_id is None else self._make_id()
        return self._id

    @property
    def upgrade(self):
        return value_of(&self.head, first_of(&self.head, FIELD_UPGRADE)) if self.asks_upgrade else None

    def header(self, bytes name not None):
        return join_values(&self.head, name, len(name), b"; " if name == b"cookie" else b", ")

    def headers(self):
        return list_headers(&self.head)

    def cookie(self, bytes name not None):
        return find_cookie(&self.head, name, len(name))
