"""Giving up privileges, for the processes that speak with clients and backends.

The master keeps what it was started with: it binds new endpoints and reads new keys at a reload, and hears
nothing but its own steward. Steward and workers become `user` and `group`, and can never be more again
(PR_SET_NO_NEW_PRIVS, prctl(2)).
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import resource
import signal
from dataclasses import dataclass

from l4lb.errors import CapabilityError, ConfigError

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a process is to become."""

    uid: int
    gid: int
    name: str


def find_identity(user: str | None, group: str | None) -> Identity | None:
    """Who `user` and `group` are; None where nothing is to change. ConfigError for names that nobody has,
    CapabilityError where this process may not become them."""
    if user is None and group is None:
        return None
    try:
        entry = pwd.getpwnam(user) if user is not None else pwd.getpwuid(os.geteuid())
    except KeyError:
        raise ConfigError(f"l7.user: there is no user {user}; make one with `useradd -r {user}`") from None
    try:
        gid = grp.getgrnam(group).gr_gid if group is not None else entry.pw_gid
    except KeyError:
        raise ConfigError(
            f"l7.group: there is no group {group}; make one with `groupadd -r {group}`"
        ) from None
    if (os.geteuid(), os.getegid()) == (entry.pw_uid, gid):
        return None
    if os.geteuid() != 0:
        raise CapabilityError(
            f"l7.user: only root may become {entry.pw_name}; start as root, or leave it out"
        )
    return Identity(entry.pw_uid, gid, entry.pw_name)


def become(identity: Identity | None) -> None:
    """Becomes that user for good; with None only forbids to become more than it is."""
    if identity is not None:
        os.initgroups(identity.name, identity.gid)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def end_with_parent(parent: int) -> None:
    """Has the kernel send SIGTERM to this process when `parent` dies. After `become`, which undoes it."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it has died already
        os.kill(os.getpid(), signal.SIGTERM)


def raise_open_files() -> None:
    """As many open files as this process may have: the usual 1024 are soon used up by connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise CapabilityError(f"prctl {option}: {os.strerror(ctypes.get_errno())}")
