"""See sides.pxd; what each side does is in `exchange` and `client`, and in `backend`."""
from l7.proxy.wheel cimport Timed


cdef class Front(Timed):
    """The client's side of a request."""

    cdef void on_interim(self, Back back):
        raise NotImplementedError

    cdef bint on_answer(self, Back back) except -1:
        raise NotImplementedError

    cdef void on_piece(self, object piece):
        raise NotImplementedError

    cdef void on_pause(self):
        raise NotImplementedError

    cdef void on_answer_end(self, Back back):
        raise NotImplementedError

    cdef void on_back_lost(self, Back back, int end):
        raise NotImplementedError

    cdef void on_upgrade(self, Back back, bytes rest):
        raise NotImplementedError

    cdef void on_back_full(self, bint is_full):
        raise NotImplementedError


cdef class Back(Timed):
    """A connection to a backend."""

    cdef void begin(self, Front front, bint for_head):
        raise NotImplementedError

    cdef void send(self, object data):
        raise NotImplementedError

    cdef void expect_answer(self):
        raise NotImplementedError

    cdef void release(self):
        raise NotImplementedError

    cdef void abort(self):
        raise NotImplementedError

    cdef void pause_reading(self):
        raise NotImplementedError

    cdef void resume_reading(self):
        raise NotImplementedError

    cdef object detach(self):
        raise NotImplementedError
