"""The listening sockets, which outlive workers, reloads and the program itself.

Closing a listening socket resets the connections that wait in it. So they belong to the master, every worker
inherits its own, and none is closed while its endpoint is in the configuration; one that is given up takes no
new connections from then on, and its worker closes it when those that wait were accepted. Fewer workers get
more sockets each, more workers get new ones. With SO_REUSEPORT the kernel spreads connections over the
sockets of an endpoint; one joins them when it listens, and that is the worker's to do, once it can serve. A
socket that a failed start has left bound costs nobody a connection.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address

from l4lb.errors import CapabilityError, L4lbError
from l4lb.model import Address
from l7.model import L7Config
from l7.proxy.backlog import refuse_new

BACKLOG = 4096
"""Connections that wait in one socket; the kernel's own limit is net.core.somaxconn."""

Endpoint = tuple[Address, int]


class Sockets:
    """The sockets of every endpoint."""

    def __init__(self) -> None:
        self._by_endpoint: dict[Endpoint, list[socket.socket]] = {}

    def __iter__(self) -> Iterator[socket.socket]:
        return (sock for socks in self._by_endpoint.values() for sock in socks)

    def provide(self, config: L7Config, workers: int) -> list[socket.socket]:
        """Binds what `config` needs and is not there yet, and returns it, for `discard`. L4lbError, and then
        nothing was made."""
        made: list[socket.socket] = []
        try:
            for endpoint in endpoints(config):
                socks = self._by_endpoint.setdefault(endpoint, [])
                while len(socks) < workers:
                    socks.append(bind(*endpoint))
                    made.append(socks[-1])
        except L4lbError:
            self.discard(made)
            raise
        return made

    def discard(self, made: Iterable[socket.socket]) -> None:
        """Closes sockets that nobody has listened on."""
        unused = set(made)
        for endpoint, socks in list(self._by_endpoint.items()):
            socks[:] = [sock for sock in socks if sock not in unused]
            if not socks:
                del self._by_endpoint[endpoint]
        for sock in unused:
            sock.close()

    def retire(self, config: L7Config) -> list[str]:
        """Closes the sockets of endpoints that `config` does not have any more; their names."""
        wanted = set(endpoints(config))
        gone = [endpoint for endpoint in self._by_endpoint if endpoint not in wanted]
        for endpoint in gone:
            for sock in self._by_endpoint.pop(endpoint):
                _give_up(sock)
        return [endpoint_name(*endpoint) for endpoint in gone]

    def close(self) -> None:
        """Closes all of them; workers that serve them end what waits in them."""
        for sock in self:
            _give_up(sock)
        self._by_endpoint.clear()

    def of_worker(self, config: L7Config, number: int, workers: int) -> list[tuple[str, socket.socket]]:
        """The sockets that worker `number` of `workers` serves, each with the name of its listener."""
        return [
            (listener.name, sock)
            for listener in config.listeners
            for endpoint in listener.endpoints
            for sock in self._by_endpoint[endpoint][number::workers]
        ]

    def descriptors(self) -> dict[str, int]:
        """The descriptors by name, for a successor in the same process."""
        return {
            f"{address} {port} {number}": sock.fileno()
            for (address, port), socks in self._by_endpoint.items()
            for number, sock in enumerate(socks)
        }

    def adopt(self, descriptors: Mapping[str, int]) -> None:
        """Takes over what `descriptors` gave."""
        for name, descriptor in descriptors.items():
            address, port, _ = name.split(" ")
            socks = self._by_endpoint.setdefault((ip_address(address), int(port)), [])
            socks.append(socket.socket(fileno=descriptor))


def endpoints(config: L7Config) -> list[Endpoint]:
    """Every endpoint of the configuration, once."""
    return list(dict.fromkeys(e for listener in config.listeners for e in listener.endpoints))


def endpoint_name(address: Address, port: int) -> str:
    """As people write it."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def bind(address: Address, port: int) -> socket.socket:
    """A bound socket that does not listen yet. L4lbError, or CapabilityError for a port below 1024."""
    sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Answers are written in whole pieces: waiting for more to send with them would only cost time.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind((str(address), port))
    except OSError as error:
        sock.close()
        raise _cannot_bind(address, port, error) from error
    return sock


def _give_up(sock: socket.socket) -> None:
    refuse_new(sock)
    sock.close()


def _cannot_bind(address: Address, port: int, error: OSError) -> L4lbError:
    name = endpoint_name(address, port)
    match error.errno:
        case errno.EACCES:
            return CapabilityError(f"{name}: needs CAP_NET_BIND_SERVICE; run as root or grant it")
        case errno.EADDRINUSE:
            return L4lbError(f"{name}: another program listens there; `ss -ltnp sport = :{port}` names it")
        case errno.EADDRNOTAVAIL:
            return L4lbError(f"{name}: no address of this host; `ip address` lists them")
    return L4lbError(f"{name}: cannot be listened on: {error.strerror}")
