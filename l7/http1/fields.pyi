"""Header fields that the proxy acts on."""

from enum import IntEnum

class Field(IntEnum):
    """Numbers of fields; `FIELD_OTHER` is 0."""

    FIELD_OTHER = 0

class Trait(IntEnum):
    """What a field is; traits are added up."""

    TRAIT_HOP_BY_HOP = 1
    TRAIT_END_TO_END = 2
    TRAIT_NOT_IN_TRAILERS = 4

FIELDS: tuple[tuple[bytes, int], ...]
"""Name and traits of every field from number 1 on."""

def field_number(name: bytes) -> int:
    """The number of a field by its name in any case; `FIELD_OTHER` for one that is not known."""
