"""The words of a question for flows, which the command line and the daemon share."""

FILTERS = ("client", "service", "backend", "state")
SORTS = ("client", "listen", "service", "backend", "state", "expires", "idle", "packets", "bytes")
PAGING = ("sort", "reverse", "limit", "after")
DEFAULT_SORT = "client"
DEFAULT_ROWS = 100
MOST_ROWS = 10_000
"""Of one page."""
