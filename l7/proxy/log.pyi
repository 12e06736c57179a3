from pathlib import Path

from l7.model import AccessLog as Settings
from l7.proxy.passing import Passage

class AccessLog:
    """The log of `settings`; opens its file. Raises OSError."""

    path: Path | None
    lost: int
    """Lines that found no room, since nobody took them."""

    def __init__(self, settings: Settings) -> None: ...
    def reopen(self) -> None:
        """Writes what is left and opens the file anew, for it may have been moved. Raises OSError; the old
        file is then still in use."""
    def add_passed(self, passage: Passage, now_s: float) -> None:
        """The line of a connection that was passed through and has just ended."""
    def flush(self) -> None:
        """Writes the buffer, as far as it can be written without waiting."""
    def close(self) -> None:
        """Writes what is left."""
