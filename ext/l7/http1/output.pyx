"""Bytes that are written once."""
from cpython.ref cimport Py_DECREF


cdef extern from "Python.h":
    PyObject* PyBytes_FromStringAndSize(const char*, Py_ssize_t) except NULL
    char* PyBytes_AS_STRING(PyObject*)
    int _PyBytes_Resize(PyObject**, Py_ssize_t) except -1


cdef int output_open(Output* output, size_t size) except -1:
    output.object = PyBytes_FromStringAndSize(NULL, size)
    output.at = PyBytes_AS_STRING(output.object)
    return 0


cdef bytes output_close(Output* output):
    cdef bytes made
    _PyBytes_Resize(&output.object, output.at - PyBytes_AS_STRING(output.object))
    made = <bytes>output.object
    Py_DECREF(made)
    return made
