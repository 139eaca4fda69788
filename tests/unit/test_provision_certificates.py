"""Certificates of a federation: openssl's own verdict on them, what they name, and when they run out."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from forged import NOON
from provisioned import provisioned_federation
from testudo_client.provisioning.connection import ConnectionFiles
from testudo_common.errors import ProvisionError, ProvisionFault
from testudo_common.provisioning.certificates import (
    client_certificate,
    client_in,
    is_host,
    new_authority,
    read_certificate,
    server_certificate,
    verify_client_certificate,
)
from testudo_common.provisioning.expiry import days_left, expiry_warning
from testudo_server.provisioning.folder import FederationFolder

NAMES = ("shop-1", "店" * 100 + "/../, CN=evil")
DAY = timedelta(days=1)
KEY = ec.generate_private_key(ec.SECP256R1())
AUTHORITY = new_authority("shops", KEY, NOON)


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> tuple[FederationFolder, dict[str, Path]]:
    return provisioned_federation(tmp_path_factory.mktemp("certificates"), NAMES)


def openssl_verify(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed, whose verdict this test asks for")
    words = [program, "verify", "-x509_strict", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_openssl_accepts_the_chains(provisioned: tuple[FederationFolder, dict[str, Path]]) -> None:
    federation, owners = provisioned
    root = ("-CAfile", federation.ca_certificate)
    for folder in owners.values():
        own = ConnectionFiles(folder)
        found = openssl_verify("-purpose", "sslclient", "-CAfile", own.ca_certificate, own.client_certificate)
        assert found.returncode == 0, found.stderr
    for name in (("-verify_hostname", "localhost"), ("-verify_ip", "127.0.0.1"), ("-verify_ip", "::1")):
        found = openssl_verify("-purpose", "sslserver", *name, *root, federation.server_certificate)
        assert found.returncode == 0, found.stderr


def test_openssl_refuses_each_for_the_others_purpose(provisioned: tuple[FederationFolder, dict[str, Path]]) -> None:
    federation, owners = provisioned
    root = ("-CAfile", federation.ca_certificate)
    own = ConnectionFiles(owners["shop-1"]).client_certificate
    assert openssl_verify("-purpose", "sslserver", *root, own).returncode != 0
    assert openssl_verify("-purpose", "sslclient", *root, federation.server_certificate).returncode != 0
    wrong = openssl_verify("-verify_hostname", "evil.example", *root, federation.server_certificate)
    assert wrong.returncode != 0


def test_python_shakes_hands_with_them(provisioned: tuple[FederationFolder, dict[str, Path]]) -> None:
    """Both ends in memory: each verifies the other under the federation's root alone, with TLS 1.3."""
    federation, owners = provisioned
    own = ConnectionFiles(owners[NAMES[1]])
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server_side.load_cert_chain(federation.server_certificate, federation.server_key)
    server_side.load_verify_locations(federation.ca_certificate)
    server_side.verify_mode = ssl.CERT_REQUIRED
    client_side.load_cert_chain(own.client_certificate, own.client_key)
    client_side.load_verify_locations(own.ca_certificate)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(down, up, server_hostname="127.0.0.1")
    server = server_side.wrap_bio(up, down, server_side=True)
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    der = server.getpeercert(binary_form=True)
    assert der is not None
    assert client_in(x509.load_der_x509_certificate(der)) == NAMES[1]
    assert client.version() == "TLSv1.3"


@pytest.mark.parametrize("name", ["shop-1", "x" * 64, "x" * 65, "店", "a/b c%2F", "shops", "Testudo federation CA"])
def test_whose_a_certificate_is(name: str) -> None:
    made = client_certificate(AUTHORITY, KEY.public_key(), name, NOON)
    verify_client_certificate(made, AUTHORITY.certificate, name, NOON, source="it")
    assert client_in(made) == name
    (common,) = made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common.value == (name if len(name.encode()) <= 64 else "Testudo")
    assert made.subject != made.issuer
    with pytest.raises(ProvisionError) as caught:
        verify_client_certificate(made, AUTHORITY.certificate, f"{name}x", NOON, source="it")
    assert caught.value.fault is ProvisionFault.CLIENT


def test_what_names_nobody() -> None:
    assert client_in(AUTHORITY.certificate) == ""
    server = server_certificate(AUTHORITY, KEY.public_key(), ("testudo.example",), NOON)
    assert client_in(server) == ""
    for wrong in (server, AUTHORITY.certificate):
        with pytest.raises(ProvisionError) as caught:
            verify_client_certificate(wrong, AUTHORITY.certificate, "", NOON, source="it")
        assert caught.value.fault is ProvisionFault.CHAIN


def test_the_authority_signs_leaves_only() -> None:
    basic = AUTHORITY.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    usage = AUTHORITY.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.digital_signature) == (True, False)
    assert days_left(AUTHORITY.certificate, NOON) == 3653


def test_hosts_of_the_server() -> None:
    hosts = ("FL.example.org", "10.0.0.5", "2001:db8::1", "localhost")
    made = server_certificate(AUTHORITY, KEY.public_key(), hosts, NOON)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example.org", "localhost"]
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["10.0.0.5", "2001:db8::1", "127.0.0.1", "::1"]
    with pytest.raises(ProvisionError):
        server_certificate(AUTHORITY, KEY.public_key(), ("a b",), NOON)


@pytest.mark.parametrize("host", ["", ".", "a..b", "a.", "*.example.org", "a_b", "x" * 64, "1.2.3.4.5", "café.example"])
def test_what_is_no_host(host: str) -> None:
    assert not is_host(host)


def test_the_last_thirty_days_are_told() -> None:
    made = client_certificate(AUTHORITY, KEY.public_key(), "shop-1", NOON)
    end = made.not_valid_after_utc

    def warned(before: timedelta) -> str | None:
        return expiry_warning("your certificate", made, end - before, remedy="renew it")

    assert days_left(made, NOON) == 397
    assert warned(30 * DAY) is None
    assert (
        warned(30 * DAY - timedelta(seconds=1)) == f"your certificate runs out in 29 days, on {end:%Y-%m-%d}: renew it"
    )
    assert "in 1 day," in str(warned(DAY))
    assert "in 0 days" in str(warned(timedelta(seconds=1)))
    assert "ran out" in str(warned(timedelta()))
    assert days_left(made, end + timedelta(seconds=1)) == -1


def test_clocks_may_be_a_day_apart() -> None:
    made = client_certificate(AUTHORITY, KEY.public_key(), "shop-1", NOON)
    verify_client_certificate(made, AUTHORITY.certificate, "shop-1", NOON - DAY, source="it")
    for now in (NOON - DAY - timedelta(seconds=1), NOON + 398 * DAY):
        with pytest.raises(ProvisionError):
            verify_client_certificate(made, AUTHORITY.certificate, "shop-1", now, source="it")


@pytest.mark.parametrize("text", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate(text: str) -> None:
    with pytest.raises(ProvisionError) as caught:
        read_certificate(text, source="it")
    assert caught.value.fault is ProvisionFault.FORMAT
