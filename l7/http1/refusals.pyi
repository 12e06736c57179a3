"""The numbers of what is refused; `l7.http1.rules` says what they mean."""

from enum import IntEnum

class Refusal(IntEnum):
    """`REFUSED_NOT`, and one for each rule, in their order."""

    REFUSED_NOT = 0
