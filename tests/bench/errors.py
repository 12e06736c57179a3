"""What a benchmark cannot get over."""

from __future__ import annotations


class BenchError(Exception):
    """The message is one line: what failed, where, and what to do about it."""
