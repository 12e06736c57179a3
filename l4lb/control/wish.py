"""What an operator asks for at run time, as it comes in a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from l4lb.control.judgement import MAX_WEIGHT
from l4lb.errors import ConfigError


def weight_of(wish: Mapping[str, Any]) -> int | None:
    """The weight that is wished for; None where there is none. ConfigError for what is no weight."""
    weight = wish.get("weight")
    if weight is None:
        return None
    if not isinstance(weight, int) or not 0 <= weight <= MAX_WEIGHT:
        raise ConfigError(f"backends: a weight is a whole number from 0 to {MAX_WEIGHT}, not {weight!r}")
    return weight
