"""Paths as they are matched."""

def normalise_path(path: bytes) -> bytes | None:
    """A path (from its `/` on, without a query) as it is matched: decoded, slashes merged, dot segments removed.

    None where it is refused: an escape that is none, NUL, `..` beyond the root.
    """
