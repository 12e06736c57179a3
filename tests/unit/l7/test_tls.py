"""TLS on the clients' side: real handshakes between real OpenSSLs, without sockets."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from l4lb.errors import ConfigError
from l7.model import BackendTls, Certificate, ClientCertificates, ListenerTls
from l7.tls.backend import backend_context
from l7.tls.pem import Pem, advice, describe, read_pem
from l7.tls.store import TlsStore


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def certificate(ca: trustme.CA, folder: Path, *names: str, **wishes) -> Certificate:
    issued = ca.issue_cert(*names, **wishes)
    cert, key = folder / f"{names[0].replace('*', 'any')}.pem", folder / f"{names[0].replace('*', 'any')}.key"
    cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return Certificate(cert, key)


def store(ca: trustme.CA, folder: Path, *names: str, **settings) -> TlsStore:
    certificates = tuple(certificate(ca, folder, name) for name in names)
    made = ListenerTls(certificates, **settings)
    return TlsStore(made, [read_pem(one) for one in certificates], ca.cert_pem.bytes())


class Client:
    """A client's half of a handshake with a store, in memory."""

    def __init__(self, ca: trustme.CA, name: str | None, **wishes) -> None:
        self.context = ssl.create_default_context()
        ca.configure_trust(self.context)
        self.context.check_hostname = False
        self.context.set_alpn_protocols(["h2", "http/1.1"])
        for key, value in wishes.items():
            setattr(self.context, key, value)
        self.name = name

    def connect(self, front: ssl.SSLContext, session: ssl.SSLSession | None = None):
        """The client's and the server's ends after the handshake; raises ssl.SSLError where one refuses."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.context.wrap_bio(to_client, to_server, server_hostname=self.name, session=session)
        server = front.wrap_bio(to_server, to_client, server_side=True)
        waiting = [client, server]
        for _ in range(10):
            for end in list(waiting):
                try:
                    end.do_handshake()
                    waiting.remove(end)
                except ssl.SSLWantReadError:
                    pass
            if not waiting:
                break
        assert not waiting
        # Tickets of TLS 1.3 come behind the handshake, with the first bytes.
        server.write(b"hello")
        assert client.read(5) == b"hello"
        return client, server


def names(client: ssl.SSLObject) -> set[str]:
    shown = client.getpeercert()
    assert shown
    return {str(value) for _, value in shown["subjectAltName"]}


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("a.example.com", "a.example.com"),
        ("A.Example.Com", "a.example.com"),
        ("x.example.org", "*.example.org"),
        ("x.y.example.org", "a.example.com"),  # a star is one label
        ("example.org", "a.example.com"),
        ("unknown.test", "a.example.com"),
        (None, "a.example.com"),
    ],
)
def test_the_certificate_is_that_of_the_name(ca, tmp_path, asked, shown):
    front = store(ca, tmp_path, "a.example.com", "b.example.com", "*.example.org").front
    client, server = Client(ca, asked).connect(front)
    assert names(client) == {shown}
    assert client.selected_alpn_protocol() == "http/1.1"
    assert getattr(server, "l7_server_name", None) == asked


def test_an_unknown_name_can_be_refused_and_the_client_is_told(ca, tmp_path):
    refusing = store(ca, tmp_path, "a.example.com", refuse_unknown=True)
    with pytest.raises(ssl.SSLError, match="TLSV1_UNRECOGNIZED_NAME"):
        Client(ca, "b.example.com").connect(refusing.front)
    assert refusing.refused == 1
    Client(ca, "a.example.com").connect(refusing.front)


def test_a_handshake_fails_when_its_alert_has_left(ca, tmp_path):
    refusing = store(ca, tmp_path, "a.example.com", refuse_unknown=True)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = refusing.front.wrap_bio(incoming, outgoing, server_side=True)
    to_client, hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(to_client, hello, server_hostname="b.example.com")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    incoming.write(hello.read())
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    assert outgoing.pending
    with pytest.raises(ssl.SSLError, match="CALLBACK_FAILED"):
        server.do_handshake()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed_also_after_new_certificates(ca, tmp_path, version):
    serving = store(ca, tmp_path, "a.example.com", "b.example.com")
    client = Client(ca, "b.example.com", maximum_version=version, minimum_version=version)
    first, _ = client.connect(serving.front)
    new = [certificate(ca, tmp_path, name) for name in ("a.example.com", "b.example.com")]
    serving.replace([read_pem(one) for one in new])
    again, _ = client.connect(serving.front, first.session)
    assert again.session_reused
    assert names(again) == {"b.example.com"}


def test_new_certificates_are_served_from_the_next_handshake_on(ca, tmp_path):
    serving = store(ca, tmp_path, "a.example.com")
    before, _ = Client(ca, "a.example.com").connect(serving.front)
    pem = read_pem(certificate(ca, tmp_path, "a.example.com"))
    serving.replace([pem])
    after, _ = Client(ca, "a.example.com").connect(serving.front)
    old, new = before.getpeercert(True), after.getpeercert(True)
    assert old != new
    assert (
        describe(pem).fingerprint
        == x509.load_der_x509_certificate(new)
        .fingerprint(x509.load_der_x509_certificate(new).signature_hash_algorithm)
        .hex()
    )


def test_versions_below_the_least_are_refused(ca, tmp_path):
    modern = store(ca, tmp_path, "a.example.com", min_version="1.3")
    with pytest.raises(ssl.SSLError):
        Client(ca, "a.example.com", maximum_version=ssl.TLSVersion.TLSv1_2).connect(modern.front)
    _, server = Client(ca, "a.example.com").connect(modern.front)
    assert server.version() == "TLSv1.3"


def test_ciphers_without_forward_secrecy_are_not_spoken(ca, tmp_path):
    front = store(ca, tmp_path, "a.example.com").front
    weak = Client(ca, "a.example.com", maximum_version=ssl.TLSVersion.TLSv1_2)
    weak.context.set_ciphers("AES128-SHA")
    with pytest.raises(ssl.SSLError):
        weak.connect(front)


@pytest.mark.parametrize("mode", list(ClientCertificates))
def test_clients_show_their_certificate(ca, tmp_path, mode):
    front = store(ca, tmp_path, "a.example.com", client_certificates=mode, client_ca=tmp_path / "ca").front
    known = Client(ca, "a.example.com")
    ca.issue_cert("someone@example.com", common_name="someone").configure_cert(known.context)
    _, server = known.connect(front)
    shown = server.getpeercert()
    assert shown
    assert ("commonName", "someone") in [pair for part in shown["subject"] for pair in part]
    if mode is ClientCertificates.REQUIRED:
        with pytest.raises(ssl.SSLError):
            Client(ca, "a.example.com").connect(front)
    else:
        _, server = Client(ca, "a.example.com").connect(front)
        assert not server.getpeercert()
    stranger = Client(ca, "a.example.com")
    trustme.CA().issue_cert("someone@example.com").configure_cert(stranger.context)
    with pytest.raises(ssl.SSLError):
        stranger.connect(front)


def test_backends_are_verified_unless_told_otherwise(ca, tmp_path):
    front = store(ca, tmp_path, "api.internal").front
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())

    def reaches(settings: BackendTls, name: str) -> bool:
        client = Client(ca, name)
        client.context = backend_context(settings)
        try:
            client.connect(front)
        except ssl.SSLError:
            return False
        return True

    assert reaches(BackendTls(ca=tmp_path / "ca.pem"), "api.internal")
    assert not reaches(BackendTls(ca=tmp_path / "ca.pem"), "other.internal")
    assert not reaches(BackendTls(), "api.internal")
    assert reaches(BackendTls(verify=False), "other.internal")


def test_backends_can_be_shown_a_certificate(ca, tmp_path):
    required = ClientCertificates.REQUIRED
    front = store(ca, tmp_path, "api.internal", client_certificates=required, client_ca=tmp_path / "ca").front
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    mine = certificate(ca, tmp_path, "proxy.internal")
    client = Client(ca, "api.internal")
    client.context = backend_context(BackendTls(ca=tmp_path / "ca.pem", certificate=mine.cert, key=mine.key))
    _, server = client.connect(front)
    assert server.getpeercert()


# -- what is wrong with files


def broken(ca: trustme.CA, folder: Path) -> dict[str, Certificate]:
    good, other = certificate(ca, folder, "a.example.com"), certificate(ca, folder, "b.example.com")
    empty, garbage, locked = folder / "empty", folder / "garbage", folder / "locked"
    empty.write_bytes(b"")
    garbage.write_bytes(b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    key = ca.issue_cert("x.test")
    loaded = load_pem_private_key(key.private_key_pem.bytes(), None)
    locked.write_bytes(
        loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    child = ca.create_child_ca().issue_cert("c.example.com")
    chain = [pem.bytes() for pem in child.cert_chain_pems]
    (folder / "reversed").write_bytes(b"".join(reversed(chain)))
    (folder / "c.key").write_bytes(child.private_key_pem.bytes())
    return {
        "mismatched": Certificate(good.cert, other.key),
        "absent": Certificate(folder / "absent"),
        "a folder": Certificate(folder),
        "empty": Certificate(empty, good.key),
        "garbage": Certificate(garbage, good.key),
        "no key": Certificate(good.cert),
        "locked": Certificate(good.cert, locked),
        "reversed": Certificate(folder / "reversed", folder / "c.key"),
    }


@pytest.mark.parametrize(
    ("case", "file", "why"),
    [
        ("mismatched", "b.example.com.key", "is not the key of the certificate in .*a.example.com.pem; give"),
        ("absent", "absent", "cannot be read: No such file or directory; check the path"),
        ("a folder", "", "cannot be read: Is a directory; check the path"),
        ("empty", "empty", "has no certificate; give one in PEM, followed by its chain"),
        ("garbage", "garbage", "has a broken certificate .*; give one in PEM"),
        ("no key", "a.example.com.pem", "has no private key in PEM that can be used; is this the right file"),
        ("locked", "locked", "the key has a passphrase; remove it: openssl pkey"),
        ("reversed", "reversed", "the chain is in the wrong order; put the server's own certificate first"),
    ],
)
def test_what_is_wrong_with_files_is_said_of_the_file(ca, tmp_path, case, file, why):
    wrong = broken(ca, tmp_path)[case]
    with pytest.raises(ConfigError, match=f"{file}: {why}") as caught:
        read_pem(wrong)
    assert "\n" not in str(caught.value)


def test_a_key_in_the_certificates_file(ca, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(ca.issue_cert("a.example.com").private_key_and_cert_chain_pem.bytes())
    assert describe(read_pem(Certificate(both))).names == ("a.example.com",)


def test_a_description_says_what_an_operator_asks(ca, tmp_path):
    described = describe(read_pem(certificate(ca, tmp_path, "A.example.com", "*.example.org", "192.0.2.1")))
    assert described.names == ("a.example.com", "*.example.org", "192.0.2.1")
    assert described.not_before_s < datetime.now(UTC).timestamp() < described.not_after_s
    assert len(described.fingerprint) == 64
    assert described.key_type.startswith(("EC", "RSA", "EllipticCurve"))


@pytest.mark.parametrize(
    ("days", "said"), [(-30, "expired 30 days ago"), (3, "expires in 3 days"), (60, None)]
)
def test_advice_about_dates(ca, tmp_path, days, said):
    now = datetime.now(UTC)
    pem = read_pem(certificate(ca, tmp_path, "a.example.com", not_after=now + timedelta(days=days)))
    found = list(advice(describe(pem), now))
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_authorities_and_ciphers_that_are_none_are_errors(ca, tmp_path):
    pem: Pem = read_pem(certificate(ca, tmp_path, "a.example.com"))
    wanted = ListenerTls((pem.settings,), client_certificates=ClientCertificates.REQUIRED, client_ca=tmp_path)
    with pytest.raises(ConfigError, match="has no certificates of authorities"):
        TlsStore(wanted, [pem], b"")
    with pytest.raises(ConfigError, match="OpenSSL knows none of 'NONSENSE'"):
        TlsStore(ListenerTls((pem.settings,), ciphers="NONSENSE"), [pem])
    with pytest.raises(ConfigError, match="absent: cannot be read: No such file"):
        backend_context(BackendTls(ca=tmp_path / "absent"))
