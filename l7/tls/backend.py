"""How backends are spoken to over TLS: the context of a pool."""

from __future__ import annotations

import ssl

from l4lb.control.message import printable
from l4lb.errors import ConfigError
from l7.model import BackendTls, Certificate
from l7.tls.pem import load_chain, read_pem
from l7.tls.store import PROTOCOLS


def backend_context(settings: BackendTls) -> ssl.SSLContext:
    """The context for connections to the backends of a pool; reads its files. Raises ConfigError."""
    try:
        context = ssl.create_default_context(cafile=settings.ca)
    except (OSError, ssl.SSLError) as error:
        is_missing = isinstance(error, FileNotFoundError | PermissionError)
        why = f"cannot be read: {error.strerror}" if is_missing else "has no certificates"
        raise ConfigError(
            f"{printable(str(settings.ca))}: {why}; give the authorities of the backends in PEM"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(PROTOCOLS))
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.certificate:
        load_chain(context, read_pem(Certificate(settings.certificate, settings.key)))
    return context
