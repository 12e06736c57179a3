"""Which backend serves a request: pools, schedulers, sessions, limits. Pure: time and chance are handed
in."""
