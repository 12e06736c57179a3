"""The TLS contexts of a listener, by the name that the client asks for.

One context, the *front*, is what connections are accepted with; it looks for the name and gives the handshake
to the context of the certificate that is for it. The front stays for the life of the process, since it holds
the keys of session tickets: workers that are forked after it was made can resume one another's sessions, and
new certificates (`replace`) end neither sessions nor connections.

uvloop (0.23) ends a handshake that fails without sending what OpenSSL wrote for the client: the alert that
says why. So the front's connections keep the error back until the client, who has been told, closes or says
more; the handshake's time-out ends those who do neither.

Names are looked for as in RFC 9525: exact, then with the first label as `*`. Without a match, or a name, the
first certificate is used, or the handshake refused (`refuse_unknown`).
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any, cast

from l4lb.control.message import printable
from l4lb.errors import ConfigError
from l7.model import ClientCertificates, ListenerTls
from l7.tls.pem import Description, Pem, describe, load_chain

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and AEAD, as in Mozilla's intermediate profile without DHE."""
PROTOCOLS = ("http/1.1",)
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class _Telling(ssl.SSLObject):
    """A connection whose handshake fails only when its alert has been taken out."""

    outgoing: ssl.MemoryBIO
    kept_back: list[ssl.SSLError]

    def do_handshake(self) -> None:
        if self.kept_back:
            raise self.kept_back.pop()
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLSyscallError):
            raise
        except ssl.SSLError as error:
            if not self.outgoing.pending:
                raise
            # Without its traceback, which knows this object: a cycle.
            self.kept_back.append(error.with_traceback(None))
            raise ssl.SSLWantReadError from None


class _Front(ssl.SSLContext):
    """Makes connections that know where what they say goes."""

    sslobject_class = _Telling

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **kw: Any) -> _Telling:
        made = cast(_Telling, super().wrap_bio(incoming, outgoing, *args, **kw))
        made.outgoing, made.kept_back = outgoing, []
        return made


class TlsStore:
    """The contexts of one listener. Raises ConfigError for what OpenSSL does not take."""

    def __init__(self, settings: ListenerTls, pems: Sequence[Pem], client_ca: bytes | None = None) -> None:
        self._settings = settings
        self._client_ca = client_ca
        self._by_name: dict[str, ssl.SSLContext] = {}
        self.descriptions: tuple[Description, ...] = ()
        self.refused = 0
        """Handshakes that asked for a name that no certificate is for."""
        self._first = self._make(pems[0])
        self.front = self._make(pems[0], _Front)
        """What to accept connections with."""
        self.front.sni_callback = self._on_name
        self.replace(pems)

    def replace(self, pems: Sequence[Pem]) -> None:
        """Serves these certificates from the next handshake on. Raises ConfigError, and nothing changes."""
        by_name: dict[str, ssl.SSLContext] = {}
        contexts = [self._make(pem) for pem in pems]
        descriptions = tuple(describe(pem) for pem in pems)
        for context, described in zip(contexts, descriptions, strict=True):
            for name in described.names:
                by_name.setdefault(name, context)
        self._by_name, self._first, self.descriptions = by_name, contexts[0], descriptions

    def find(self, name: str | None) -> ssl.SSLContext | None:
        """The context for a name; None where the handshake is to be refused."""
        if name:
            wanted = name.lower().removesuffix(".")
            context = self._by_name.get(wanted)
            if context is None and "." in wanted:
                context = self._by_name.get("*." + wanted.partition(".")[2])
            if context is not None:
                return context
        return None if self._settings.refuse_unknown else self._first

    def _on_name(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _front: ssl.SSLContext
    ) -> int | None:
        context = self.find(name)
        if context is None:
            self.refused += 1
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = context
        # OpenSSL would tell, Python does not: kept where whoever describes the connection finds it.
        connection.l7_server_name = name  # type: ignore[union-attr]
        return None

    def _make(self, pem: Pem, kind: type[ssl.SSLContext] = ssl.SSLContext) -> ssl.SSLContext:
        """A context with one certificate. All of a listener are alike but for that: OpenSSL takes
        verification from the context that a connection began with, and authorities from the one that it was
        given to."""
        settings = self._settings
        context = kind(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[settings.min_version]
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_alpn_protocols(list(PROTOCOLS))
        try:
            context.set_ciphers(settings.ciphers or CIPHERS)
        except ssl.SSLError:
            raise ConfigError(
                f"ciphers: OpenSSL knows none of {printable(settings.ciphers or CIPHERS)!r}; "
                "see openssl ciphers -v"
            ) from None
        load_chain(context, pem)
        if settings.client_certificates:
            context.verify_mode = (
                ssl.CERT_REQUIRED
                if settings.client_certificates is ClientCertificates.REQUIRED
                else ssl.CERT_OPTIONAL
            )
            try:
                context.load_verify_locations(cadata=(self._client_ca or b"").decode("ascii"))
            except (ssl.SSLError, ValueError):
                raise ConfigError(
                    f"{printable(str(settings.client_ca))}: has no certificates of authorities; "
                    "give them in PEM"
                ) from None
        return context
