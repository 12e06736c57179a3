"""Heads as they are sent on: built anew from what was parsed.

A forwarded head has the start line; the end-to-end headers in their order and as they were written, but for those that
`Overrides` take away; the forwarding headers; the lines that edits add; and the framing, which is this proxy's own.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from l7.http1.request cimport RequestHead
from l7.http1.response cimport ResponseHead


cpdef enum BuildFlag:
    BUILD_CLOSE = 1         # `Connection: close`
    BUILD_KEEP_ALIVE = 2    # `Connection: keep-alive`, for clients of HTTP/1.0
    BUILD_UPGRADE = 4       # `Connection: upgrade` and the Upgrade header as it came
    BUILD_EXPECT = 8        # `Expect: 100-continue`


# Headers that stay behind, by name; compiled at load, from what edits remove and set.
cdef class Overrides:
    cdef uint64_t fields
    cdef tuple names
    cdef bint removes(self, int field, const char* name, size_t length) noexcept


# The forwarding headers of a connection (or, behind a trusted proxy, of a request); `l7.wire.forwarded` makes it.
cdef class Forwarding:
    cdef tuple lines


# The head of a request to a backend. `target` None: as it came; `host` None: as it came; `overrides` and `forwarding` may
# be None; `lines` is what edits add, each line with its CRLF. The body is announced as it came: by length or chunked.
cdef bytes build_request(RequestHead head, bytes target, bytes host, Overrides overrides, Forwarding forwarding,
                         bytes lines, int flags)

# The head of an answer to a client. `body_kind` and `length` announce the body (BODY_UNTIL_CLOSE and BODY_NONE announce
# none); answers to HEAD and 304 keep their Content-Length. `date` is a whole line, added where the answer has no Date.
cdef bytes build_response(ResponseHead head, int body_kind, int64_t length, Overrides overrides, bytes lines,
                          bytes date, int flags)

# An answer of the proxy's own, whole. `lines` are more headers. For HEAD the body is announced, not sent.
cdef bytes build_answer(int status, bytes content_type, bytes body, bytes lines, bytes date, int flags, bint for_head)

# `HTTP/1.1 100 Continue` and an empty line.
cdef bytes CONTINUE
