"""Requests and clients of plain values, for balancing."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address


@dataclass
class Asked:
    target: bytes = b"/"
    headers: dict[bytes, bytes] = field(default_factory=dict)
    cookies: dict[bytes, bytes] = field(default_factory=dict)

    def header(self, name: bytes, /) -> bytes | None:
        return self.headers.get(name)

    def cookie(self, name: bytes, /) -> bytes | None:
        return self.cookies.get(name)


@dataclass
class From:
    address: str = "192.0.2.1"
    scheme: bytes = b"http"

    @property
    def packed(self) -> bytes:
        return ip_address(self.address).packed
