"""See log.pxd."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, strlen
from libc.time cimport localtime_r, strftime, time_t, tm
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec
from posix.unistd cimport write

from l7.http1.fields cimport FIELD_REFERER, FIELD_USER_AGENT
from l7.http1.head cimport HEAD_COMPLETE, Header, first_of
from l7.proxy.sides cimport Front

import os
import select
import stat

from l7.model import LogFormat
from l7.proxy.layout import end_words

cdef enum:
    PIPE_BYTES = 4096       # what a pipe that is ready takes at once (POSIX: PIPE_BUF)
    LINE_BYTES = 1 << 10    # of a line, without what the client sent

cdef list ends = [word.encode() for word in end_words()]
cdef const char* HEX = b"0123456789abcdef"


cdef class AccessLog:
    """The log of `settings` (`model.AccessLog`); opens its file. Raises OSError."""

    def __cinit__(self):
        self.descriptor = -1
        self._second = -1

    def __init__(self, settings):
        self.path = settings.path
        self.is_json = settings.format is LogFormat.JSON
        self.reopen()

    def __dealloc__(self):
        free(self.buffer)

    def reopen(self):
        """Writes what is left and opens the file anew, for it may have been moved. Raises OSError; the old file
        is then still in use."""
        if self.path is None:
            self.descriptor = 1
        else:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self.close()
            self.descriptor = descriptor
        self.is_file = stat.S_ISREG(os.fstat(self.descriptor).st_mode)

    def close(self):
        """Writes what is left."""
        self.flush()
        if self.path is not None and self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    cdef void add(self, Front request, double now_s):
        """The line of a request that has just ended."""
        # An escaped byte has up to six; a head is no longer than `header_bytes`.
        if not self._reserve(LINE_BYTES + 6 * <size_t>request.head.head.length):
            self.lost += 1
            return
        if self.is_json:
            self._put_json(request, now_s)
        else:
            self._put_combined(request, now_s)
        if self.length >= FLUSH_BYTES:
            self.flush()

    def add_passed(self, passage, double now_s):
        """The line of a connection that was passed through (l7.proxy.passing.Passage) and has just ended."""
        cdef bytes name = passage.server_name.encode("ascii", "replace")
        if not self._reserve(LINE_BYTES + 6 * <size_t>PyBytes_GET_SIZE(name)):
            self.lost += 1
            return
        if self.is_json:
            self._put_passed_json(passage, name, now_s)
        else:
            self._put_passed_combined(passage, name, now_s)
        if self.length >= FLUSH_BYTES:
            self.flush()

    cpdef flush(self):
        """Writes the buffer, as far as it can be written without waiting."""
        cdef ssize_t written
        cdef size_t at = 0
        cdef size_t most
        if self.descriptor < 0:
            return
        while at < self.length:
            most = self.length - at
            if not self.is_file:
                if not select.select([], [self.descriptor], [], 0)[1]:
                    break
                most = min(most, <size_t>PIPE_BYTES)
            written = write(self.descriptor, self.buffer + at, most)
            if written <= 0:
                # A full disk or a closed pipe: the lines wait, and are lost when they get too many.
                break
            at += written
        if at:
            memmove(self.buffer, self.buffer + at, self.length - at)
            self.length -= at

    cdef bint _reserve(self, size_t length) noexcept:
        cdef size_t size = self.size or FLUSH_BYTES
        cdef char* buffer
        while size < self.length + length:
            size *= 2
        if size > MAX_BUFFER:
            return False
        if size > self.size:
            buffer = <char*>realloc(self.buffer, size)
            if not buffer:
                return False
            self.buffer = buffer
            self.size = size
        return True

    # -- pieces; who puts has reserved

    cdef void _put(self, const char* text, size_t length) noexcept:
        memcpy(self.buffer + self.length, text, length)
        self.length += length

    cdef void _put_text(self, const char* text) noexcept:
        self._put(text, strlen(text))

    cdef void _put_escaped(self, const char* text, size_t length) noexcept:
        cdef size_t index
        cdef uint8_t byte
        cdef char* out = self.buffer + self.length
        for index in range(length):
            byte = <uint8_t>text[index]
            if 32 <= byte < 127 and byte != 34 and byte != 92:
                out[0] = byte
                out += 1
                continue
            memcpy(out, b"\\u00" if self.is_json else b"\\x", 4 if self.is_json else 2)
            out += 4 if self.is_json else 2
            out[0] = HEX[byte >> 4]
            out[1] = HEX[byte & 15]
            out += 2
        self.length = out - self.buffer

    cdef void _put_bytes(self, bytes text):
        self._put_escaped(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))

    cdef void _put_number(self, int64_t number) noexcept:
        cdef char[24] digits
        cdef int at = 24
        cdef bint is_negative = number < 0
        if is_negative:
            number = -number
        while True:
            at -= 1
            digits[at] = 48 + number % 10
            number //= 10
            if not number:
                break
        if is_negative:
            at -= 1
            digits[at] = 45
        self._put(digits + at, 24 - at)

    cdef void _put_seconds(self, double seconds) noexcept:
        """With six digits behind the point."""
        cdef int64_t microseconds = <int64_t>(seconds * 1e6 + 0.5)
        cdef char[8] digits
        cdef int at
        self._put_number(microseconds // 1000000)
        microseconds %= 1000000
        digits[0] = 46
        for at in range(6, 0, -1):
            digits[at] = 48 + microseconds % 10
            microseconds //= 10
        self._put(digits, 7)

    cdef void _put_header(self, Front request, int field) noexcept:
        cdef const Header* header = NULL
        if request.head.state == HEAD_COMPLETE:
            header = first_of(&request.head.head, field)
        if header:
            self._put_escaped(request.head.head.data + header.value_at, header.value_length)
        elif not self.is_json:
            self._put(b"-", 1)

    cdef void _put_time(self, double now_s) noexcept:
        cdef timespec day
        cdef time_t second
        cdef tm parts
        clock_gettime(CLOCK_REALTIME, &day)
        second = day.tv_sec
        if second != self._second:
            localtime_r(&second, &parts)
            self._time_length = strftime(self._time, sizeof(self._time),
                                         b"%Y-%m-%dT%H:%M:%S%z" if self.is_json else b"%d/%b/%Y:%H:%M:%S %z", &parts)
            self._second = second
        self._put(self._time, self._time_length)

    # -- lines

    cdef void _put_combined(self, Front request, double now_s):
        self._put_bytes(request.peer.address.encode())
        self._put(b" - - [", 6)
        self._put_time(now_s)
        self._put(b"] \"", 3)
        if request.head.state == HEAD_COMPLETE:
            self._put_escaped(request.head.head.data + request.head.line.method_at,
                              request.head.line.method_length)
            self._put(b" ", 1)
            self._put_escaped(request.head.head.data + request.head.line.target_at,
                              request.head.line.target_length)
            self._put_text(b" HTTP/1.1" if request.head.version == 11 else b" HTTP/1.0")
        self._put(b"\" ", 2)
        self._put_number(request.status)
        self._put(b" ", 1)
        self._put_number(request.bytes_out)
        self._put(b" \"", 2)
        self._put_header(request, FIELD_REFERER)
        self._put(b"\" \"", 3)
        self._put_header(request, FIELD_USER_AGENT)
        self._put(b"\"\n", 2)

    cdef void _put_passed_combined(self, passage, bytes name, double now_s):
        """With a method that HTTP does not have, and the status that nginx writes where there is none."""
        self._put_bytes(passage.peer.address.encode())
        self._put(b" - - [", 6)
        self._put_time(now_s)
        self._put(b"] \"PASS ", 8)
        self._put_bytes(name or b"-")
        self._put(b" TCP\" 000 ", 10)
        self._put_number(passage.bytes_out)
        self._put(b" \"-\" \"-\"\n", 9)

    cdef void _put_passed_json(self, passage, bytes name, double now_s):
        self._put_client(passage.peer, now_s)
        self._put_string(b"protocol", b"TCP")
        self._put_string(b"server_name", name)
        self._put_key(b"bytes_in")
        self._put_number(passage.bytes_in)
        self._put_key(b"bytes_out")
        self._put_number(passage.bytes_out)
        self._put_string(b"pool", passage.pool.encode())
        if passage.tries:
            self._put_string(b"backend", passage.backend.encode())
        self._put_string(b"end", ends[passage.end])
        self._put_key(b"tries")
        self._put_number(passage.tries)
        self._put_key(b"total_s")
        self._put_seconds(now_s - passage.began_s)
        self._put(b"}\n", 2)

    cdef void _put_client(self, peer, double now_s):
        """The beginning of an object: when, and who."""
        self._put(b"{\"time\":\"", 9)
        self._put_time(now_s)
        self._put(b"\"", 1)
        self._put_string(b"client", peer.address.encode())
        self._put_key(b"client_port")
        self._put_number(peer.port)
        self._put_string(b"listener", peer.listener.encode())

    cdef void _put_json(self, Front request, double now_s):
        self._put_client(request.peer, now_s)
        if request.head.state == HEAD_COMPLETE:
            self._put_string(b"request_id", request.head.id)
            self._put_string(b"method", request.head.method)
            self._put_string(b"target", request.head.target)
            self._put_string(b"host", request.head.authority)
            self._put_string(b"protocol", b"HTTP/1.1" if request.head.version == 11 else b"HTTP/1.0")
        self._put_key(b"status")
        self._put_number(request.status)
        self._put_key(b"bytes_in")
        self._put_number(request.bytes_in)
        self._put_key(b"bytes_out")
        self._put_number(request.bytes_out)
        if request.way is not None:
            self._put_string(b"route", request.way.name)
        if request.upstream is not None:
            self._put_string(b"pool", request.upstream.name)
        if request.lane is not None:
            self._put_string(b"backend", request.lane.name)
        self._put_string(b"end", ends[request.end])
        self._put_key(b"tries")
        self._put_number(request.tries)
        if request.connected_s:
            self._put_key(b"connect_s")
            self._put_seconds(request.connected_s - request.connecting_s)
        if request.first_byte_s:
            self._put_key(b"first_byte_s")
            self._put_seconds(request.first_byte_s - request.began_s)
        self._put_key(b"total_s")
        self._put_seconds(now_s - request.began_s)
        tls = request.peer.tls
        if tls is not None:
            self._put_string(b"tls", tls.version.encode())
            self._put_string(b"server_name", (tls.server_name or "").encode("ascii", "replace"))
        self._put(b",\"referer\":\"", 12)
        self._put_header(request, FIELD_REFERER)
        self._put(b"\",\"user_agent\":\"", 16)
        self._put_header(request, FIELD_USER_AGENT)
        self._put(b"\"}\n", 3)

    cdef void _put_key(self, const char* key) noexcept:
        self._put(b",\"", 2)
        self._put_text(key)
        self._put(b"\":", 2)

    cdef void _put_string(self, const char* key, bytes text):
        self._put_key(key)
        self._put(b"\"", 1)
        self._put_bytes(text)
        self._put(b"\"", 1)
