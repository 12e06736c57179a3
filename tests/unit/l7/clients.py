"""Clients of plain values."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from l7.request import TlsInfo


@dataclass(frozen=True)
class Client:
    address: str = "192.0.2.1"
    port: int = 40_000
    listener: str = "web"
    scheme: bytes = b"http"
    local_address: str = "203.0.113.10"
    local_port: int = 80
    tls: TlsInfo | None = None

    @property
    def packed(self) -> bytes:
        return ip_address(self.address).packed

    @property
    def forwarded_for(self) -> bytes:
        return self.address.encode()


CLIENT = Client()
