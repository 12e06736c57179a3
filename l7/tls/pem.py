"""Certificates and keys as an operator's files have them: read, checked, described.

Reading is apart from use, because the process that may read keys is not the one that serves: the master
reads, and hands `Pem` values on. Everything that is wrong is a ConfigError that names the file, says why and
what to do.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from l4lb.control.message import printable
from l4lb.errors import ConfigError
from l7.model import Certificate

MAX_PEM_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Pem:
    """A chain, its own certificate first, and the key of that one, as text that OpenSSL reads."""

    settings: Certificate
    chain: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Description:
    """What an operator wants to know of a certificate. Times are seconds since 1970."""

    file: str
    names: tuple[str, ...]
    """DNS names (lower case, `*.example.com` too) and addresses that it is for."""
    subject: str
    issuer: str
    not_before_s: float
    not_after_s: float
    fingerprint: str
    """SHA-256 of the certificate, in lower-case hexadecimal digits."""
    key_type: str


def read_pem(certificate: Certificate) -> Pem:
    """Reads a certificate's files and checks that they fit together. Raises ConfigError."""
    chain = _read(certificate.cert)
    key_file = certificate.key or certificate.cert
    key = chain if key_file == certificate.cert else _read(key_file)
    _check(certificate.cert, chain, key_file, key)
    return Pem(certificate, chain, key)


def describe(pem: Pem) -> Description:
    """What stands in the certificate of a `Pem` that was checked."""
    own = _certificates(pem.settings.cert, pem.chain)[0]
    return Description(
        file=str(pem.settings.cert),
        names=names_of(own),
        subject=own.subject.rfc4514_string(),
        issuer=own.issuer.rfc4514_string(),
        not_before_s=own.not_valid_before_utc.timestamp(),
        not_after_s=own.not_valid_after_utc.timestamp(),
        fingerprint=own.fingerprint(SHA256()).hex(),
        key_type=_key_type(own),
    )


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names and addresses of a certificate (RFC 9525: the subject's common name does not count)."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    names = [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]
    names += [str(address) for address in extension.value.get_values_for_type(x509.IPAddress)]
    return tuple(dict.fromkeys(names))


def load_chain(context: ssl.SSLContext, pem: Pem) -> None:
    """Gives a context its certificate. Raises ConfigError for what OpenSSL refuses."""
    with _as_files(pem.chain, pem.key) as (chain, key):
        try:
            context.load_cert_chain(chain, key)
        except ssl.SSLError as error:
            why = f"OpenSSL does not take it: {error.reason}; use a stronger key"
            raise _wrong(pem.settings.cert, why) from None


@contextmanager
def _as_files(*texts: bytes) -> Iterator[list[str]]:
    """Paths under which OpenSSL finds texts that stand on no disk."""
    descriptors: list[int] = []
    try:
        for text in texts:
            descriptor = os.memfd_create("l7lb-pem", os.MFD_CLOEXEC)
            descriptors.append(descriptor)
            os.write(descriptor, text)
        yield [f"/proc/self/fd/{descriptor}" for descriptor in descriptors]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def advice(described: Description, now: datetime) -> Iterable[str]:
    """What is doubtful about a certificate that works: sentences."""
    left_s = described.not_after_s - now.timestamp()
    if left_s < 0:
        yield f"{described.file}: expired {-left_s / 86400:.0f} days ago; clients will refuse it; renew it"
    elif left_s < 14 * 86400:
        yield f"{described.file}: expires in {left_s / 86400:.0f} days; renew it"
    if described.not_before_s > now.timestamp():
        yield f"{described.file}: is not valid yet; check its dates and this host's clock"
    if not described.names:
        yield f"{described.file}: has no subjectAltName, which clients look for names in; issue it with one"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}; check the path and its permissions") from None
    if len(data) > MAX_PEM_BYTES:
        raise _wrong(path, f"is larger than {MAX_PEM_BYTES >> 20} MiB; is this the right file?")
    return data


def _check(cert_file: Path, chain: bytes, key_file: Path, key: bytes) -> None:
    certificates = _certificates(cert_file, chain)
    try:
        private = load_pem_private_key(key, None)
    except TypeError:
        why = "the key has a passphrase; remove it: openssl pkey -in FILE -out NEW"
        raise _wrong(key_file, why) from None
    except (ValueError, UnsupportedAlgorithm):
        why = "has no private key in PEM that can be used; is this the right file?"
        raise _wrong(key_file, why) from None
    keys = [_public(certificate.public_key()) for certificate in certificates]
    wanted = _public(private.public_key())
    if wanted == keys[0]:
        return
    if wanted in keys:
        raise _wrong(cert_file, "the chain is in the wrong order; put the server's own certificate first")
    raise _wrong(key_file, f"is not the key of the certificate in {printable(str(cert_file))}; give its own")


def _certificates(path: Path, chain: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(chain)
    except ValueError as error:
        is_there = b"BEGIN CERTIFICATE" in chain
        what = f"has a broken certificate ({error})" if is_there else "has no certificate"
        raise _wrong(path, f"{what}; give one in PEM, followed by its chain") from None


def _public(key: object) -> bytes:
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return bytes(encoded)


def _key_type(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    name = type(key).__name__.lstrip("_").removesuffix("PublicKey")
    size = getattr(key, "key_size", None)
    return f"{name} {size}" if size else name


def _wrong(path: Path, why: str) -> ConfigError:
    return ConfigError(f"{printable(str(path))}: {printable(why)}")
