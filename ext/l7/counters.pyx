"""See counters.pxd."""
from cpython.buffer cimport PyBUF_WRITABLE, PyBUF_SIMPLE, PyObject_GetBuffer, PyBuffer_Release
from libc.stdint cimport int64_t
from posix.unistd cimport close

import mmap
import os

cdef enum:
    LINE = 8    # counters in a cache line


cdef class Counters:
    """`rows` by `columns` counters in memory that forked processes share, all 0.

    The memory is a file without a name (memfd_create(2)): `descriptor` may be handed to another program, which
    finds the counters in it as they are.
    """

    def __cinit__(self):
        self.descriptor = -1

    def __init__(self, Py_ssize_t rows, Py_ssize_t columns, descriptor=None):
        cdef Py_buffer view
        if rows < 1 or columns < 1:
            raise ValueError("counters need a row and a column")
        self.rows = rows
        self.columns = columns
        self._stride = (columns + LINE - 1) // LINE * LINE
        size = rows * self._stride * sizeof(int64_t)
        if descriptor is None:
            descriptor = os.memfd_create("l7lb-counters")
            os.ftruncate(descriptor, size)
        self.descriptor = descriptor
        self._memory = mmap.mmap(self.descriptor, size)
        PyObject_GetBuffer(self._memory, &view, PyBUF_WRITABLE | PyBUF_SIMPLE)
        self._values = <int64_t*>view.buf
        # The map is never resized or closed while this object holds it.
        PyBuffer_Release(&view)

    def __dealloc__(self):
        if self.descriptor >= 0:
            close(self.descriptor)

    def row(self, Py_ssize_t number):
        """The row of one writer, 0 ≤ `number` < `rows`."""
        if not 0 <= number < self.rows:
            raise IndexError(f"row {number} of {self.rows}")
        cdef Row row = Row.__new__(Row)
        row.values = self._values + number * self._stride
        row.size = self.columns
        row._memory = self._memory
        return row

    def totals(self):
        """The sums of all rows, by column."""
        cdef Py_ssize_t row, column
        cdef int64_t total
        sums = []
        for column in range(self.columns):
            total = 0
            for row in range(self.rows):
                total += self._values[row * self._stride + column]
            sums.append(total)
        return sums


cdef class Row:
    def __len__(self):
        return self.size

    def __getitem__(self, Py_ssize_t column):
        if not 0 <= column < self.size:
            raise IndexError(f"column {column} of {self.size}")
        return self.values[column]

    def __setitem__(self, Py_ssize_t column, int64_t value):
        if not 0 <= column < self.size:
            raise IndexError(f"column {column} of {self.size}")
        self.values[column] = value

    def increase(self, Py_ssize_t column, int64_t amount=1):
        """Adds to one counter."""
        if not 0 <= column < self.size:
            raise IndexError(f"column {column} of {self.size}")
        self.values[column] += amount
