"""What tells this machine from others."""

from __future__ import annotations

import hashlib
import logging
import secrets
from pathlib import Path

from l4lb.net.logs import log

_MACHINE_ID = Path("/etc/machine-id")


def machine_key(purpose: bytes, otherwise: str) -> bytes:
    """16 bytes of this machine's own, others for each `purpose` (at most 8 bytes): the same after a restart,
    and not to be guessed from outside. Where the machine has no id they are random, and a warning says
    `otherwise`."""
    try:
        identity = _MACHINE_ID.read_text().strip()
    except OSError:
        identity = ""
    if not identity:
        log(f"no {_MACHINE_ID}: {otherwise}", level=logging.WARNING)
        return secrets.token_bytes(16)
    return hashlib.blake2s(identity.encode(), digest_size=16, person=purpose).digest()
