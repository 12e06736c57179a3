from enum import IntEnum

class WorkerColumn(IntEnum):
    WORKER_CONNECTIONS = 0
    WORKER_TUNNELS = 1
    WORKER_LOG_LINES_LOST = 2
    WORKER_COLUMNS = 3

class ListenerColumn(IntEnum):
    LISTENER_CONNECTIONS_TOTAL = 0
    LISTENER_CONNECTIONS = 1
    LISTENER_TLS_HANDSHAKES_TOTAL = 2
    LISTENER_TLS_RESUMED_TOTAL = 3
    LISTENER_TLS_FAILURES_TOTAL = 4
    LISTENER_PROXY_REFUSED_TOTAL = 5
    LISTENER_COLUMNS = 6

class RouteColumn(IntEnum):
    ROUTE_REQUESTS_TOTAL = 0
    ROUTE_ACTIVE = 1
    ROUTE_1XX = 2
    ROUTE_2XX = 3
    ROUTE_3XX = 4
    ROUTE_4XX = 5
    ROUTE_5XX = 6
    ROUTE_BYTES_IN_TOTAL = 7
    ROUTE_BYTES_OUT_TOTAL = 8
    ROUTE_RETRIES_TOTAL = 9
    ROUTE_MICROSECONDS_TOTAL = 10
    ROUTE_FIRST_BUCKET = 11
    ROUTE_COLUMNS = 23

class PoolColumn(IntEnum):
    POOL_WAITING = 0
    POOL_QUEUE_FULL_TOTAL = 1
    POOL_QUEUE_TIMEOUTS_TOTAL = 2
    POOL_DOWN_TOTAL = 3
    POOL_COLUMNS = 4

class BackendColumn(IntEnum):
    BACKEND_REQUESTS_TOTAL = 0
    BACKEND_ACTIVE = 1
    BACKEND_1XX = 2
    BACKEND_2XX = 3
    BACKEND_3XX = 4
    BACKEND_4XX = 5
    BACKEND_5XX = 6
    BACKEND_CONNECTS_TOTAL = 7
    BACKEND_CONNECT_FAILURES_TOTAL = 8
    BACKEND_FAILURES_TOTAL = 9
    BACKEND_TIMEOUTS_TOTAL = 10
    BACKEND_REUSED_TOTAL = 11
    BACKEND_STALE_TOTAL = 12
    BACKEND_IDLE = 13
    BACKEND_BYTES_IN_TOTAL = 14
    BACKEND_BYTES_OUT_TOTAL = 15
    BACKEND_FIRST_BYTE_MICROSECONDS_TOTAL = 16
    BACKEND_COLUMNS = 17

class EndColumn(IntEnum):
    END_DONE = 0
    END_OWN = 1
    END_NO_ROUTE = 2
    END_BAD_REQUEST = 3
    END_TOO_LARGE = 4
    END_HEADER_TIMEOUT = 5
    END_BODY_TIMEOUT = 6
    END_WRITE_TIMEOUT = 7
    END_CLIENT_CLOSED = 8
    END_POOL_DOWN = 9
    END_QUEUE_FULL = 10
    END_QUEUE_TIMEOUT = 11
    END_CONNECT_FAILED = 12
    END_CONNECT_TIMEOUT = 13
    END_BACKEND_BROKEN = 14
    END_BACKEND_INVALID = 15
    END_BACKEND_TIMEOUT = 16
    END_TOTAL_TIMEOUT = 17
    END_TUNNEL_TIMEOUT = 18
    END_SHUTDOWN = 19
    END_ERROR = 20
    END_COLUMNS = 21

class Counters:
    """`rows` by `columns` counters in memory that forked processes share, all 0.

    The memory is a file without a name (memfd_create(2)): `descriptor` may be handed to another program, that
    finds the counters in it as they are. It is closed with the object.
    """

    rows: int
    columns: int
    descriptor: int
    def __init__(self, rows: int, columns: int, descriptor: int | None = None) -> None: ...
    def row(self, number: int) -> Row:
        """The row of one writer, 0 ≤ `number` < `rows`."""
    def totals(self) -> list[int]:
        """The sums of all rows, by column."""

class Row:
    """One writer's counters."""

    size: int
    def __len__(self) -> int: ...
    def __getitem__(self, column: int) -> int: ...
    def __setitem__(self, column: int, value: int) -> None: ...
    def increase(self, column: int, amount: int = 1) -> None:
        """Adds to one counter."""
