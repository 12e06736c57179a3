"""Bodies: where they end, and what of the bytes is payload.

Of the chunked coding (RFC 9112 7.1) only what every reader reads alike is let through: 1 to 15 digits, no white space, CRLF. Chunk
extensions are checked, bounded and dropped. Trailers are headers by every rule of a head, and what may not stand there is dropped.
"""
from libc.string cimport memmove

from l7.http1.fields cimport CHAR_VALUE, TRAIT_NOT_IN_TRAILERS, field_traits, is_char
from l7.http1.head cimport (
    HEAD_COMPLETE,
    HEADER_DROPPED,
    HEAD_MORE,
    Header,
    head_clear,
    head_fields,
    head_gather,
    head_keep,
    head_open,
    head_release,
)
from l7.http1.output cimport Output, hex_length, output_close, output_open, put, put_crlf, put_hex
from l7.http1.paths cimport hex_digit
from l7.http1.refusals cimport (
    REFUSED_BARE_CR,
    REFUSED_BARE_LF,
    REFUSED_CHUNK_END,
    REFUSED_CHUNK_EXTENSION,
    REFUSED_CHUNK_SIZE,
    REFUSED_NOT,
)
from l7.http1.rules import name_of

cdef enum:
    # Fifteen hexadecimal digits cannot overflow.
    MAX_DIGITS = 15
    MAX_EXTENSION = 256
    MAX_TRAILER_BYTES = 8 << 10
    MAX_TRAILERS = 64
    CR = 13
    LF = 10
    SEMICOLON = 59

# Steps of the chunked coding: what comes next.
cdef enum:
    STEP_SIZE = 0
    STEP_EXTENSION = 1
    STEP_SIZE_LF = 2
    STEP_DATA = 3
    STEP_DATA_CR = 4
    STEP_DATA_LF = 5
    STEP_TRAILERS = 6

LAST_CHUNK = b"0\r\n\r\n"


cdef class BodyReader:
    def __cinit__(self):
        head_open(&self.trailers, MAX_TRAILER_BYTES, 0, MAX_TRAILERS)
        self.is_over = True

    def __dealloc__(self):
        head_release(&self.trailers)

    cdef void begin(self, int kind, int64_t length) noexcept nogil:
        self.kind = kind
        self.is_over = kind == BODY_NONE or (kind == BODY_LENGTH and length <= 0)
        self.refusal = REFUSED_NOT
        self.received = 0
        self.left = <uint64_t>length if kind == BODY_LENGTH and length > 0 else 0
        self.step = STEP_SIZE
        self.digits = 0
        self.extension = 0
        if self.trailers.size:
            head_release(&self.trailers)
        else:
            head_clear(&self.trailers)

    cdef int read(self, const char* data, size_t length, size_t* at,
                  const char** span, size_t* span_length) noexcept nogil:
        cdef size_t count = length - at[0]
        if self.refusal != REFUSED_NOT:
            return BODY_REFUSED
        if self.is_over:
            return BODY_END
        if self.kind == BODY_CHUNKED:
            return self._read_chunks(data, length, at, span, span_length)
        if count == 0:
            return BODY_MORE
        if self.kind == BODY_LENGTH:
            count = min(<uint64_t>count, self.left)
            self.left -= count
            self.is_over = self.left == 0
        span[0] = data + at[0]
        span_length[0] = count
        at[0] += count
        self.received += count
        return BODY_SPAN

    cdef int _read_chunks(self, const char* data, size_t length, size_t* at,
                          const char** span, size_t* span_length) noexcept nogil:
        cdef size_t count
        cdef int digit
        cdef char c
        while self.step == STEP_TRAILERS or at[0] < length:
            if self.step == STEP_DATA:
                count = min(<uint64_t>(length - at[0]), self.left)
                span[0] = data + at[0]
                span_length[0] = count
                at[0] += count
                self.left -= count
                self.received += count
                if self.left == 0:
                    self.step = STEP_DATA_CR
                return BODY_SPAN
            if self.step == STEP_TRAILERS:
                return self._read_trailers(data, length, at)
            c = data[at[0]]
            at[0] += 1
            if self.step == STEP_SIZE:
                digit = hex_digit(c)
                if digit >= 0 and self.digits < MAX_DIGITS:
                    self.left = self.left << 4 | <uint64_t>digit
                    self.digits += 1
                elif digit >= 0 or self.digits == 0:
                    return self._refuse(REFUSED_CHUNK_SIZE)
                elif c == CR:
                    self.step = STEP_SIZE_LF
                elif c == SEMICOLON:
                    self.step = STEP_EXTENSION
                else:
                    return self._refuse(REFUSED_BARE_LF if c == LF else REFUSED_CHUNK_SIZE)
            elif self.step == STEP_EXTENSION:
                self.extension += 1
                if c == CR:
                    self.step = STEP_SIZE_LF
                elif c == LF:
                    return self._refuse(REFUSED_BARE_LF)
                elif self.extension > MAX_EXTENSION or not is_char(c, CHAR_VALUE):
                    return self._refuse(REFUSED_CHUNK_EXTENSION)
            elif self.step == STEP_SIZE_LF:
                if c != LF:
                    return self._refuse(REFUSED_BARE_CR)
                self.step = STEP_DATA if self.left else STEP_TRAILERS
                self.digits = 0
                self.extension = 0
            elif self.step == STEP_DATA_CR:
                if c != CR:
                    return self._refuse(REFUSED_CHUNK_END)
                self.step = STEP_DATA_LF
            else:
                if c != LF:
                    return self._refuse(REFUSED_CHUNK_END)
                self.step = STEP_SIZE
        return BODY_MORE

    cdef int _read_trailers(self, const char* data, size_t length, size_t* at) noexcept nogil:
        cdef const char* base
        cdef Head* head = &self.trailers
        cdef uint32_t have = head_gather(head, data + at[0], length - at[0], &base)
        cdef int state = HEAD_MORE
        if head.refusal == REFUSED_NOT:
            state = head_fields(head, base, have)
        if head.refusal == REFUSED_NOT:
            at[0] += head_keep(head, base, have, state)
        if head.refusal != REFUSED_NOT:
            return self._refuse(head.refusal)
        if state != HEAD_COMPLETE:
            return BODY_MORE
        self.is_over = True
        return BODY_END

    cdef int _refuse(self, int refusal) noexcept nogil:
        self.refusal = refusal
        return BODY_REFUSED

    cdef bytes collect(self, const char* data, size_t length, size_t* used, bint as_chunks):
        cdef Output output
        cdef const char* span
        cdef size_t span_length
        cdef size_t payload = 0
        cdef int room = hex_length(length)
        cdef int state
        cdef char* start
        used[0] = 0
        if self.is_over and self.refusal == REFUSED_NOT:
            return b""
        # The payload is never longer than the data that it is in.
        output_open(&output, length + room + 4 + len(LAST_CHUNK))
        start = output.at
        if as_chunks:
            output.at += room + 2
        while True:
            state = self.read(data, length, used, &span, &span_length)
            if state != BODY_SPAN:
                break
            put(&output, span, span_length)
            payload += span_length
        if as_chunks:
            output.at = start
            _frame(&output, start + room + 2, payload)
            if state == BODY_END and self.trailers.count == 0:
                put(&output, LAST_CHUNK, len(LAST_CHUNK))
        frames = output_close(&output)
        if state == BODY_REFUSED:
            return None
        if as_chunks and state == BODY_END and self.trailers.count:
            return frames + build_trailers(&self.trailers)
        return frames

    def start(self, int kind, int64_t length=0):
        self.begin(kind, length)

    def relay(self, bytes data not None, bint as_chunks=False):
        cdef size_t used
        piece = self.collect(data, len(data), &used, as_chunks)
        return piece, used

    def spans(self, bytes data not None):
        cdef size_t at = 0
        cdef size_t length
        cdef const char* span
        cdef list found = []
        cdef int state
        while True:
            state = self.read(data, len(data), &at, &span, &length)
            if state != BODY_SPAN:
                return found, at, BodyState(state)
            found.append(span[:length])

    @property
    def reason(self):
        return name_of(self.refusal)


cdef void _frame(Output* output, char* payload, size_t length) noexcept nogil:
    """Makes a chunk of the payload, which stands a few bytes further on."""
    if length == 0:
        return
    # The size may take fewer digits than there is room for: the payload moves first.
    if payload != output.at + hex_length(length) + 2:
        memmove(output.at + hex_length(length) + 2, payload, length)
    put_hex(output, length)
    put_crlf(output)
    output.at += length
    put_crlf(output)


cdef bytes build_trailers(const Head* head):
    """The last chunk, with those trailers that may be ones."""
    cdef Output output
    cdef const Header* header
    cdef uint32_t i
    # A space more for each, where it had none behind the colon.
    output_open(&output, head.length + head.count + 8)
    put(&output, b"0\r\n", 3)
    for i in range(head.count):
        header = head.headers + i
        if header.flags & HEADER_DROPPED or field_traits[header.field] & TRAIT_NOT_IN_TRAILERS:
            continue
        put(&output, head.data + header.name_at, header.name_length)
        put(&output, b": ", 2)
        put(&output, head.data + header.value_at, header.value_length)
        put_crlf(&output)
    put_crlf(&output)
    return output_close(&output)
