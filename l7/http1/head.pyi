"""States of a head that is being read."""

from enum import IntEnum

class HeadState(IntEnum):
    """Whether a head is complete."""

    HEAD_MORE = 0
    HEAD_COMPLETE = 1
    HEAD_REFUSED = 2
