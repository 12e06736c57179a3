"""The status of every refusal, for code without the GIL; from `l7.http1.rules`."""
from l7.http1.rules import RULES

cdef int[REFUSED_COUNT] statuses


cdef int status_of(int refusal) noexcept nogil:
    return statuses[refusal]


cdef int _load() except -1:
    for number, rule in enumerate(RULES, start=1):
        statuses[number] = rule.status
    return 0


if len(RULES) != REFUSED_COUNT - 1:
    raise ImportError(f"l7.http1.rules has {len(RULES)} rules, and there are {REFUSED_COUNT - 1} refusals")
_load()
