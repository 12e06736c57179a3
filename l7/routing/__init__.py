"""Which route a request takes, and what becomes of it there. Pure: bytes and values in, decisions out."""
