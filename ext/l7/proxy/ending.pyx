"""See ending.pxd."""
from libc.stdint cimport int64_t

from l7.counters cimport *
from l7.proxy.clock cimport now_s as clock_s
from l7.proxy.log cimport AccessLog
from l7.proxy.sides cimport Front
from l7.proxy.wheel cimport NEVER
from l7.proxy.worker cimport Worker

cdef double[BUCKETS] bucket_s
bucket_s[:] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, NEVER]


cdef void account(Front request):
    cdef Worker worker = request.worker
    cdef double now_s = clock_s()
    cdef double took_s = now_s - request.began_s
    cdef Py_ssize_t columns
    cdef int bucket = 0
    worker.row.add(worker.ends + request.end, 1)
    if request.way is not None:
        columns = request.way.columns
        worker.row.add(columns + ROUTE_ACTIVE, -1)
        if 100 <= request.status < 600:
            worker.row.add(columns + ROUTE_1XX + request.status // 100 - 1, 1)
        worker.row.add(columns + ROUTE_BYTES_IN_TOTAL, request.bytes_in)
        worker.row.add(columns + ROUTE_BYTES_OUT_TOTAL, request.bytes_out)
        worker.row.add(columns + ROUTE_MICROSECONDS_TOTAL, <int64_t>(took_s * 1e6))
        while took_s > bucket_s[bucket]:
            bucket += 1
        worker.row.add(columns + ROUTE_FIRST_BUCKET + bucket, 1)
    if worker.log is not None:
        (<AccessLog>worker.log).add(request, now_s)


cdef int status_of_end(int end) noexcept:
    if end == END_NO_ROUTE:
        return 404
    if end == END_BAD_REQUEST:
        return 400
    if end == END_TOO_LARGE:
        return 413
    if end == END_HEADER_TIMEOUT or end == END_BODY_TIMEOUT or end == END_BODY_TOO_SLOW:
        return 408
    if end == END_CLIENT_CLOSED:
        # nginx's number for requests that nobody waits for any more.
        return 499
    if end == END_POOL_DOWN or end == END_QUEUE_FULL or end == END_QUEUE_TIMEOUT or end == END_SHUTDOWN:
        return 503
    if (end == END_CONNECT_TIMEOUT or end == END_BACKEND_TIMEOUT or end == END_BACKEND_TOO_SLOW
            or end == END_TOTAL_TIMEOUT):
        return 504
    if end == END_CONNECT_FAILED or end == END_BACKEND_BROKEN or end == END_BACKEND_INVALID:
        return 502
    return 500
