"""What wrk says at its end."""

from __future__ import annotations

import re


def faultless(said: str) -> int:
    """How many requests were answered; AssertionError where one of them failed, or wrk came to no end."""
    found = re.search(r"(\d+) requests in", said)
    assert found and "Requests/sec" in said, said
    assert "Socket errors" not in said and "Non-2xx" not in said, said
    return int(found[1])
