"""The few ways in which l4lb fails, each with the exit code that an operator's script sees.

Third-party exceptions are translated into one of these where they enter; a traceback reaches the
terminal only with ``--debug``.
"""

from __future__ import annotations


class L4lbError(Exception):
    """The operation failed. The message is one line: what, where, and what to do about it."""

    exit_code = 1


class ConfigError(L4lbError):
    """The command line or the configuration is wrong; nothing on the host has changed."""

    exit_code = 2


class CapabilityError(L4lbError):
    """A privilege or a kernel feature is missing."""

    exit_code = 3


class NoDaemonError(L4lbError):
    """No daemon answers on the admin socket."""

    exit_code = 4
