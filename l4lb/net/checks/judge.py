"""What all checks share: the timeout around them, and errors as sentences."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from l4lb.net.checks.target import Outcome

_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.ETIMEDOUT: "connection timed out",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.EADDRNOTAVAIL: "no local address or port to ask from",
    errno.EPERM: "not permitted on this host: a firewall, or a capability is missing",
    errno.EACCES: "not permitted on this host: a firewall, or a capability is missing",
}


class CheckFailedError(Exception):
    """The backend did not answer as it should; the text is the outcome's `why`."""


@dataclass(slots=True)
class Waiting:
    """What a check waits for at the moment, for the sentence when time is up."""

    what: str = "answer"


@dataclass(frozen=True, slots=True)
class Success:
    """The backend answered as it should."""

    why: str
    weight: int | None = None


async def judge(
    timeout_s: float, ask: Callable[[Waiting], Awaitable[Success]], silence: str | None = None
) -> Outcome:
    """The outcome of `ask`, which raises CheckFailedError or OSError for a failure.

    Time that runs out is a failure, or a success where `silence` says what that means. Any other exception is
    a failure too: a defect of a check must not end the checking.
    """
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    waiting = Waiting()
    weight = None
    try:
        async with asyncio.timeout(timeout_s) as limit:
            success = await ask(waiting)
        ok, why, weight = True, success.why, success.weight
    except CheckFailedError as error:
        ok, why = False, str(error)
    except OSError as error:
        if limit.expired():
            ok, why = silence is not None, silence or f"no {waiting.what} in {timeout_s:g} s"
        else:
            ok, why = False, explain(error)
    except Exception as error:
        ok, why = False, f"the check itself failed: {type(error).__name__}: {error}"
    return Outcome(ok, why, weight, loop.time() - began_s)


def explain(error: OSError) -> str:
    """An error of a socket or of TLS in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "connection closed").lower().replace("_", " ")
        return f"TLS handshake failed: {reason}"
    if error.errno is None:  # asyncio's own, such as ConnectionResetError()
        return "connection reset" if isinstance(error, ConnectionError) else str(error)
    return _WORDS.get(error.errno) or os.strerror(error.errno).lower()
