"""What is asked, and what came of it."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from l4lb.model import Address


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a check asks.

    With `mark`, a socket mark, the host's rules send its packets another way than their address says
    (`l4lb.control.check_way`), and each socket has a port of its own, for that is what answers are known by.
    `source` is the local address to ask from; None leaves it to the kernel.
    """

    address: Address
    port: int
    mark: int | None = None
    source: Address | None = None

    @property
    def family(self) -> socket.AddressFamily:
        """The address family of the sockets."""
        return socket.AF_INET if self.address.version == 4 else socket.AF_INET6

    @property
    def host(self) -> str:
        """The address as a URL has it: IPv6 in brackets."""
        return str(self.address) if self.address.version == 4 else f"[{self.address}]"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one check.

    `why` is one short sentence for people, `weight` what the backend wishes for (0 to 65535), where the check
    can tell, and `took_s` how long it took.
    """

    ok: bool
    why: str
    weight: int | None = None
    took_s: float = 0.0
