"""Bodies: where they end, and what of the bytes is payload."""

from enum import IntEnum

class BodyKind(IntEnum):
    """How a body ends."""

    BODY_NONE = 0
    BODY_LENGTH = 1
    BODY_CHUNKED = 2
    BODY_UNTIL_CLOSE = 3

class BodyState(IntEnum):
    """How far a body is."""

    BODY_MORE = 0
    BODY_SPAN = 1
    BODY_END = 2
    BODY_REFUSED = 3

class BodyReader:
    """Reads one body after another."""

    def start(self, kind: int, length: int = 0) -> None:
        """The next body; `length` in bytes for BODY_LENGTH."""

    def spans(self, data: bytes) -> tuple[list[bytes], int, BodyState]:
        """The pieces of payload in `data`, how much of it was read, and where the body is."""

    def relay(self, data: bytes, as_chunks: bool = False) -> tuple[bytes | None, int]:
        """All payload in `data` as one piece to be sent on, in a chunk of its own where `as_chunks`, and how
        much was read. None where the body is refused."""

    @property
    def kind(self) -> int:
        """`BodyKind`."""

    @property
    def is_over(self) -> bool: ...
    @property
    def received(self) -> int:
        """Bytes of payload so far."""

    @property
    def refusal(self) -> int:
        """A number of `l7.http1.refusals.Refusal`; 0 is none."""

    @property
    def reason(self) -> str | None:
        """The refusal's name in `l7.http1.rules`."""
