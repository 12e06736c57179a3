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
    BUILD_UPGRADE = 4       # `Connection: upgrade`, and Upgrade as it came
    BUILD_EXPECT = 8        # `Expect: 100-continue` where the client expects it


cdef enum:
    MAX_FORWARDING = 8


# Headers that stay behind, by name: what edits remove and set anew. Made at load.
cdef class Overrides:
    cdef uint64_t fields        # known ones, a bit each
    cdef uint64_t lengths       # of the others' names, a bit each; above 62 the last
    cdef tuple names            # the others, in lower case and `_` as `-`
    cdef bint removes(self, int field, const char* name, size_t length)


# The forwarding headers of a connection or, behind a trusted proxy, of a request; `l7.wire.forwarded` makes them.
# A line is `before`, the client's Host and `after`, or `plain` where it has none (None: no line).
cdef class Forwarding:
    cdef uint32_t count
    cdef size_t length
    cdef int[MAX_FORWARDING] fields
    cdef list before    # None: never with Host
    cdef list after
    cdef list plain


# The head of a request to a backend. `target` and `host` None: as they came; `overrides` and `forwarding` may be None;
# `lines` is what edits add, each with its CRLF. The body is announced as it came: by its length, or chunked.
cpdef bytes build_request(RequestHead head, bytes target, bytes host, Overrides overrides, Forwarding forwarding,
                          bytes lines, int flags)

# The head of an answer to a client. `body_kind` and `length` announce the body (BODY_UNTIL_CLOSE and BODY_NONE announce
# none); answers to HEAD and 304 keep their Content-Length. `date` is a whole line, added where the answer has no Date.
cpdef bytes build_response(ResponseHead head, int body_kind, int64_t length, Overrides overrides, bytes lines,
                           bytes date, int flags)

# An answer of the proxy's own, whole. `lines` are more headers. For HEAD the body is announced, not sent.
cpdef bytes build_answer(int status, bytes content_type, bytes body, bytes lines, bytes date, int flags,
                         bint for_head)

# `HTTP/1.1 100 Continue` and an empty line.
cdef bytes CONTINUE
