"""Receive ports of Foo-over-UDP, which take GUE off: generic netlink, linux/fou.h."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import AsyncGenericNetlinkSocket, GenericNetlinkSocket

from l4lb.errors import CapabilityError, L4lbError

_FAMILY = "fou"
_ADD, _DEL, _GET = 1, 2, 3
_TYPE_GUE = 2
_AF = {4: 2, 6: 10}


class FouMessage(genlmsg):  # type: ignore[misc] # pyroute2 has no types
    """FOU_CMD_* with FOU_ATTR_*."""

    nla_map = (
        ("FOU_ATTR_UNSPEC", "none"),
        ("FOU_ATTR_PORT", "be16"),
        ("FOU_ATTR_AF", "uint8"),
        ("FOU_ATTR_IPPROTO", "uint8"),
        ("FOU_ATTR_TYPE", "uint8"),
    )


class _AsyncFou(AsyncGenericNetlinkSocket):  # type: ignore[misc] # pyroute2 has no types
    module_err_level = "debug"


class _Fou(GenericNetlinkSocket):  # type: ignore[misc] # pyroute2 has no types
    async_class = _AsyncFou

    def request(self, command: int, flags: int, **attributes: int) -> list[Any]:
        message = FouMessage()
        message["cmd"] = command
        message["version"] = 1
        message["attrs"] = [(f"FOU_ATTR_{name.upper()}", value) for name, value in attributes.items()]
        return list(
            self._run_sync_cleanup(
                self.asyncore.nlm_request, message, msg_type=self.prid, msg_flags=NLM_F_REQUEST | flags
            )
        )


def gue_port_exists(version: int, port: int) -> bool:
    """Whether the kernel takes GUE from this port. CapabilityError where it has no FOU."""
    with _open() as fou:
        for message in fou.request(_GET, NLM_F_DUMP):
            found = [message.get_attr(f"FOU_ATTR_{name}") for name in ("PORT", "AF", "TYPE")]
            if found == [port, _AF[version], _TYPE_GUE]:
                return True
    return False


def add_gue_port(version: int, port: int) -> None:
    """Makes the kernel take GUE from this port; L4lbError where something else has it."""
    try:
        with _open() as fou:
            fou.request(_ADD, NLM_F_ACK, port=port, af=_AF[version], type=_TYPE_GUE)
    except NetlinkError as error:
        if error.code == errno.EAFNOSUPPORT:
            raise CapabilityError(
                "the kernel cannot receive GUE over IPv6; `modprobe fou6` if it is a module (CONFIG_IPV6_FOU)"
            ) from error
        if error.code == errno.EADDRINUSE:
            raise L4lbError(
                f"UDP port {port}: something else receives on it; end that, or use --gue-port"
            ) from error
        raise L4lbError(f"GUE on UDP port {port}: the kernel refuses: {error}") from error


def remove_gue_port(version: int, port: int) -> bool:
    """Ends it; false where it was not there."""
    try:
        with _open() as fou:
            fou.request(_DEL, NLM_F_ACK, port=port, af=_AF[version])
    except (NetlinkError, CapabilityError):
        return False
    return True


@contextmanager
def _open() -> Iterator[_Fou]:
    with _Fou() as fou:  # closed, with what its event loop still has to do, also where the kernel has no FOU
        try:
            fou.bind(_FAMILY, FouMessage)
        except NetlinkError as error:
            raise CapabilityError(
                "the kernel cannot receive GUE; `modprobe fou` if it is a module (CONFIG_NET_FOU), "
                "or name what decapsulates with --tunnel-device"
            ) from error
        yield fou
