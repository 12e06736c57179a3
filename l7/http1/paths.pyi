"""Paths as they are matched."""

def normalise_path(path: bytes) -> bytes | None:
    """A path as it is matched: percent-decoded, slashes merged, dot segments removed. No query may follow it.

    None where it is refused: an escape that is none, NUL, `..` beyond the root.
    """
