"""What is asked, and what came of it."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from l4lb.model import Address


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a check asks.

    `address` and `port` are where its packets are sent: the backend, or the VIP where the check shall travel
    as a client's packet would. Then `via` is the backend that it is about, and the socket mark `mark` tells
    the host's rules so. `ping` and `exec`, which have no way through the VIP, always ask the backend itself.
    `source` is the local address to ask from; None leaves it to the kernel, which for a VIP of this host
    takes the VIP.
    """

    address: Address
    port: int
    via: Address | None = None
    mark: int | None = None
    source: Address | None = None

    @property
    def backend(self) -> Address:
        """The backend that the check is about."""
        return self.via if self.via is not None else self.address

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
