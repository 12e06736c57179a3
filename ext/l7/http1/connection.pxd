"""What Connection says (RFC 9110 7.6.1)."""
from l7.http1.head cimport Head

cdef enum:
    CONNECTION_CLOSE = 1
    CONNECTION_KEEP_ALIVE = 2
    CONNECTION_UPGRADE = 4

# Fills `options` with what is said of the connection, and marks the headers that Connection names: they stay behind.
# A REFUSED_…, or 0.
cdef int read_connection(Head* head, int* options) noexcept nogil
# Whether the connection goes on behind a message of this version (RFC 9112 9.3).
cdef inline bint persists(int version, int options) noexcept nogil:
    if options & CONNECTION_CLOSE:
        return False
    return version == 11 or options & CONNECTION_KEEP_ALIVE
