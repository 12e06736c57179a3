"""What balancing reads of a request and of who sent it (docs/design/proxy.md, "Contracts between the
parts")."""

from __future__ import annotations

from typing import Protocol


class Request(Protocol):
    """The part of a request that a backend is chosen by."""

    @property
    def target(self) -> bytes:
        """As sent: `/path?query`."""

    def header(self, name: bytes, /) -> bytes | None:
        """The value of the header `name`, in lower case; several are joined."""

    def cookie(self, name: bytes, /) -> bytes | None:
        """The value of the first cookie of that name."""


class Peer(Protocol):
    """The client."""

    @property
    def packed(self) -> bytes:
        """Its address: 4 or 16 bytes."""

    @property
    def scheme(self) -> bytes:
        """`http` or `https`."""
