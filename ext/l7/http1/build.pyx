"""Heads as they are sent on."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


cdef class Overrides:
    cdef bint removes(self, int field, const char* name, size_t length) noexcept:
        return False


cdef class Forwarding:
    pass


cdef bytes build_request(RequestHead head, bytes target, bytes host, Overrides overrides, Forwarding forwarding,
                         bytes lines, int flags):
    return b""


cdef bytes build_response(ResponseHead head, int body_kind, int64_t length, Overrides overrides, bytes lines,
                          bytes date, int flags):
    return b""


cdef bytes build_answer(int status, bytes content_type, bytes body, bytes lines, bytes date, int flags, bint for_head):
    return b""
