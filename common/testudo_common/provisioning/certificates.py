"""The federation's CA and what it signs: the server's certificate and the owners'. Keeps no key, reads no file.

X.509 as in RFC 5280, ECDSA on P-256 with SHA-256. The CA signs leaves only (path length 0) and has no name
constraints: it is trusted for this federation's connection alone and by nobody's browser, while constraints would bind
a federation for ten years to the hosts of its first day, and OpenSSL applies those on DNS names to a client's common
name too. An owner's certificate names it in a URI, ``testudo:client/shop-1`` with everything unusual percent-encoded,
since a common name has at most 64 bytes; where the name fits it is the common name too, for people.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from testudo_common.errors import ProvisionError, ProvisionFault

CA_DAYS = 3653
LEAF_DAYS = 397
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_CLOCK = timedelta(days=1)
"""Certificates are good from this long before they are made: clocks differ."""
_CA = "Testudo federation CA"
"""In the root's name, so that no owner's certificate can look as if it had signed itself."""
_MAX_COMMON_NAME_BYTES = 64
_CLIENT_URI = "testudo:client/"
_LABEL = re.compile(r"(?!-)[0-9A-Za-z-]{1,63}(?<!-)\Z")


@dataclass(frozen=True, slots=True)
class Authority:
    """A federation's CA.

    Attributes:
        certificate: Its root.
        key: Its private key.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)


def new_authority(federation: str, key: ec.EllipticCurvePrivateKey, now: datetime) -> Authority:
    """A root of ten years for a federation, signed with its own key."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, _CA), *_subject(federation)])
    return Authority(
        _builder(name, key.public_key(), now, now + timedelta(days=CA_DAYS))
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256()),
        key,
    )


def server_certificate(
    authority: Authority, key: ec.EllipticCurvePublicKey, hosts: tuple[str, ...], now: datetime
) -> x509.Certificate:
    """The server's certificate, for ``hosts`` and this machine by itself.

    Raises:
        ProvisionError: A host is neither a DNS name nor an IP address, or the CA has run out.
    """
    names = alternative_names((*hosts, *LOOPBACK))
    return _leaf(authority, key, _subject(hosts[0]), names, ExtendedKeyUsageOID.SERVER_AUTH, now)


def client_certificate(
    authority: Authority, key: ec.EllipticCurvePublicKey, client: str, now: datetime
) -> x509.Certificate:
    """An owner's certificate.

    Raises:
        ProvisionError: The CA has run out.
    """
    uri = x509.UniformResourceIdentifier(_CLIENT_URI + quote(client, safe=""))
    names = x509.SubjectAlternativeName([uri])
    return _leaf(authority, key, _subject(client), names, ExtendedKeyUsageOID.CLIENT_AUTH, now)


def client_in(certificate: x509.Certificate) -> str:
    """The owner that a certificate names; empty where it names none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return unquote(uris[0].removeprefix(_CLIENT_URI)) if len(uris) == 1 and uris[0].startswith(_CLIENT_URI) else ""


def verify_client_certificate(
    certificate: x509.Certificate, ca: x509.Certificate, client: str, now: datetime, *, source: str
) -> None:
    """Return only if a certificate is ``client``'s, good now, and signed by ``ca``.

    Raises:
        ProvisionError: It is not.
    """
    try:
        verifier = PolicyBuilder().store(Store([ca])).time(now.astimezone(UTC)).build_client_verifier()
        verifier.verify(certificate, [])
    except (VerificationError, ValueError) as error:
        raise ProvisionError(
            ProvisionFault.CHAIN,
            "the certificate is not one of the federation's CA that is good today",
            where=source,
            remedy="compare this computer's clock, and ask the operator for the answer again",
        ) from error
    if client_in(certificate) != client:
        raise ProvisionError(
            ProvisionFault.CLIENT, "the certificate is for another client", where=source, remedy="ask for your own"
        )


def new_csr(key: ec.EllipticCurvePrivateKey) -> str:
    """A request for a certificate of ``key``, PEM. It names nobody: the signed document around it does."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def key_in_csr(pem: str, *, source: str) -> ec.EllipticCurvePublicKey:
    """The public key for which a certificate is asked, nothing else of the request counts.

    Raises:
        ProvisionError: It is no request, not on P-256, or not signed with its own key.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        own = isinstance(key, ec.EllipticCurvePublicKey) and request.is_signature_valid
    except Exception as error:  # of many kinds, and the sender chooses the bytes
        raise _bad_key("the CSR cannot be read", source) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _bad_key("the CSR's key is not on the curve P-256", source)
    if not own:
        raise _bad_key("the CSR is not signed with its own key", source, ProvisionFault.PROOF)
    return key


def read_certificate(pem: str, *, source: str) -> x509.Certificate:
    """The one certificate in PEM text.

    Raises:
        ProvisionError: It is not one.
    """
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except Exception as error:  # of many kinds, and the sender chooses the bytes
        raise ProvisionError(
            ProvisionFault.FORMAT, "not a certificate", where=source, remedy="ask for the file again"
        ) from error


def certificate_pem(certificate: x509.Certificate) -> str:
    """A certificate as files and documents hold it."""
    return certificate.public_bytes(Encoding.PEM).decode()


def public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as DER (SubjectPublicKeyInfo)."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def node_key_text(key: ec.EllipticCurvePublicKey) -> str:
    """A Flower node's public key in OpenSSH's text format, without a comment."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def node_public_key(text: str, *, source: str) -> ec.EllipticCurvePublicKey:
    """The node key that ``text`` is.

    Raises:
        ProvisionError: It is not one on P-384, or written in another way than :func:`node_key_text` does.
    """
    try:
        key = load_ssh_public_key(text.encode())
    except Exception as error:  # of many kinds, and the sender chooses the bytes
        raise _bad_key("the node key is not an OpenSSH public key", source) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _bad_key("the node key is not on the curve P-384", source)
    if node_key_text(key) != text:
        raise _bad_key("the node key is not written as it must be, without a comment", source)
    return key


def is_host(host: str) -> bool:
    """Whether ``host`` can be named in a certificate: an IP address, or an ASCII DNS name of plain labels."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        # A last label of digits would be an address to most programs, and to others not.
        return len(host) <= 253 and all(map(_LABEL.match, labels)) and not labels[-1].isdigit()
    return "%" not in host


def _bad_key(problem: str, source: str, fault: ProvisionFault = ProvisionFault.KEY) -> ProvisionError:
    return ProvisionError(fault, problem, where=source, remedy="let the owner make its request again")


def alternative_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    """What a certificate says it is for.

    Raises:
        ProvisionError: A host is neither a DNS name nor an IP address.
    """
    return x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys(hosts)])


def _general_name(host: str) -> x509.GeneralName:
    if not is_host(host):
        raise ProvisionError(
            ProvisionFault.FORMAT, "neither a DNS name nor an IP address", where=ascii(host), remedy="name the server"
        )
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.lower())


def _subject(name: str) -> x509.Name:
    if not 0 < len(name.encode()) <= _MAX_COMMON_NAME_BYTES:
        name = "Testudo"
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _leaf(
    authority: Authority,
    key: ec.EllipticCurvePublicKey,
    subject: x509.Name,
    names: x509.SubjectAlternativeName,
    purpose: x509.ObjectIdentifier,
    now: datetime,
) -> x509.Certificate:
    root = authority.certificate
    if now >= root.not_valid_after_utc:
        raise ProvisionError(
            ProvisionFault.EXPIRED, "the federation's CA has run out", remedy="begin a new federation folder"
        )
    end = min(now + timedelta(days=LEAF_DAYS), root.not_valid_after_utc)
    identifier = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(subject, key, now, end)
        .issuer_name(root.subject)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(names, critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
