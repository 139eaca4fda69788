"""The documents of joining: one way to write each, bounds on everything, and who signed what."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from forged import new_keys, request_for, signed_again, without_signing
from testudo_common.errors import ProvisionError, ProvisionFault
from testudo_common.key_files import public_hex
from testudo_common.provisioning.certificates import new_csr, node_key_text
from testudo_common.provisioning.documents import (
    MAX_DOCUMENT_BYTES,
    Answer,
    Invitation,
    JoinRequest,
    RenewalRequest,
    kind_of,
    prove_renewal,
    sign_as_federation,
    time_text,
)
from testudo_common.provisioning.fingerprint import compare, confirm, join_fingerprint

FEDERATION = Ed25519PrivateKey.from_private_bytes(bytes(32))
FIELDS: dict[str, Any] = {
    "id": "0123456789abcdef" * 2,
    "federation": "shops",
    "federation_key": public_hex(FEDERATION),
    "ca": "-----BEGIN CERTIFICATE-----\n",
    "host": "fl.example.org",
    "port": 9092,
    "client": "shop-1",
    "expires": "2026-06-29T12:00:00Z",
}
OWNER = new_keys()


def an_invitation(**instead: Any) -> Invitation:
    return sign_as_federation(Invitation, FEDERATION, **{**FIELDS, **instead})


def refusal(document: type[Invitation | JoinRequest | Answer], data: bytes) -> ProvisionError:
    with pytest.raises(ProvisionError) as caught:
        document.from_bytes(data, source="it.json")
    assert caught.value.where == "it.json"
    return caught.value


def test_an_invitation_is_read_as_it_was_written() -> None:
    invitation = an_invitation()
    read = Invitation.from_bytes(b" \n" + invitation.to_bytes() + b"\r\n", source="it.json")
    assert read == invitation
    read.verify(public_hex(FEDERATION), source="it.json")
    assert read.expires_at == datetime(2026, 6, 29, 12, tzinfo=UTC)
    assert time_text(read.expires_at) == FIELDS["expires"]


def test_an_invitation_has_these_bytes() -> None:
    """Whoever writes another program gets the same: Ed25519 and RFC 8785 leave no choice."""
    content = {**FIELDS, "kind": "testudo-invitation", "version": 1}
    signature = FEDERATION.sign(b"testudo-provisioning-1\x00" + rfc8785.dumps(content)).hex()
    assert an_invitation().to_bytes() == rfc8785.dumps({**content, "signature": signature})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("version", True),
        ("kind", "testudo-answer"),
        ("id", "0" * 31),
        ("id", "../../../../etc/passwd0123456789"),
        ("id", "0" * 32 + "\n"),
        ("id", "A" * 32),
        ("federation", ""),
        ("federation", "a\nb"),
        ("federation", "x" * 129),
        ("federation_key", "0" * 63),
        ("client", ""),
        ("client", "\u202e"),
        ("client", 7),
        ("port", 0),
        ("port", 65536),
        ("port", "9092"),
        ("port", 9092.5),
        ("port", True),
        ("host", "a b"),
        ("host", "-a.example"),
        ("host", "1.2.3"),
        ("host", "fe80::1%eth0"),
        ("ca", ""),
        ("ca", "x" * 8193),
        ("expires", "2026-06-29"),
        ("expires", "2026-13-29T12:00:00Z"),
        ("expires", "2026-6-29T12:00:00Z"),
        ("signature", "0" * 127),
        ("unknown", "x"),
    ],
)
def test_a_field_that_is_not_as_it_must_be(field: str, value: object) -> None:
    content = {**json.loads(an_invitation().to_bytes()), field: value}
    error = refusal(Invitation, rfc8785.dumps(content))
    assert error.fault is ProvisionFault.FORMAT
    assert field in error.problem


@pytest.mark.parametrize("field", sorted([*FIELDS, "signature"]))
def test_a_field_is_missing(field: str) -> None:
    content = json.loads(an_invitation().to_bytes())
    del content[field]
    assert field in refusal(Invitation, rfc8785.dumps(content)).problem


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"7",
        b"\xff",
        b"[" * 100_000,
        b'{"port":NaN}',
        b'{"port":1e999}',
        b'{"port":' + b"9" * 5000 + b"}",
        an_invitation().to_bytes().replace(b'"port":9092', b'"port":9092,"port":9093'),
        an_invitation().to_bytes().replace(b'"port":9092', b'"port": 9092'),
        an_invitation().to_bytes().replace(b'"shop-1"', b'"shop\\u002d1"'),
        b" " * MAX_DOCUMENT_BYTES + an_invitation().to_bytes(),
    ],
    ids=[
        "nothing", "list", "null", "number", "no-text", "deep", "nan", "infinite", "huge-number", "field-twice",
        "space", "escape", "too-large",
    ],
)  # fmt: skip
def test_not_the_one_way_to_write_it(data: bytes) -> None:
    assert refusal(Invitation, data).fault is ProvisionFault.FORMAT


def test_one_kind_does_not_pass_for_another() -> None:
    data = an_invitation().to_bytes()
    assert refusal(JoinRequest, data).fault is ProvisionFault.FORMAT
    assert refusal(Answer, data).fault is ProvisionFault.FORMAT
    assert kind_of(data, source="it.json") == "testudo-invitation"
    assert kind_of(b'{"kind":7}', source="it.json") == ""


@pytest.mark.parametrize("field", ["host", "client", "ca", "federation_key", "expires", "id", "port", "federation"])
def test_invitation_with_an_altered_field(field: str) -> None:
    other = {"port": 1, "id": "f" * 32, "federation_key": "f" * 64, "expires": "2999-01-01T00:00:00Z"}.get(
        field, "other"
    )
    altered = Invitation.from_bytes(without_signing(an_invitation(), **{field: other}), source="it.json")
    with pytest.raises(ProvisionError) as caught:
        altered.verify(public_hex(FEDERATION), source="it.json")
    assert caught.value.fault is ProvisionFault.SIGNATURE


def test_invitation_signed_by_another_federation() -> None:
    forged = signed_again(an_invitation(), Ed25519PrivateKey.generate())
    with pytest.raises(ProvisionError) as caught:
        forged.verify(public_hex(FEDERATION), source="it.json")
    assert caught.value.fault is ProvisionFault.SIGNATURE


def test_invitation_that_ended() -> None:
    invitation = an_invitation()
    invitation.refuse_if_expired(invitation.expires_at - timedelta(seconds=1), source="it.json")
    with pytest.raises(ProvisionError) as caught:
        invitation.refuse_if_expired(invitation.expires_at, source="it.json")
    assert caught.value.fault is ProvisionFault.EXPIRED
    assert invitation.expires in str(caught.value)


def test_what_cannot_be_read_is_not_signed() -> None:
    for field, value in (("port", 0), ("client", "a\nb"), ("host", "")):
        with pytest.raises(ProvisionError, match=field):
            an_invitation(**{field: value})


def refused_proof(data: bytes) -> ProvisionFault:
    with pytest.raises(ProvisionError) as caught:
        JoinRequest.from_bytes(data, source="it.json").verify(source="it.json")
    return caught.value.fault


def test_request_with_both_proofs() -> None:
    request = request_for(an_invitation(), OWNER)
    JoinRequest.from_bytes(request.to_bytes(), source="it.json").verify(source="it.json")


def test_request_with_swapped_node_key() -> None:
    request = request_for(an_invitation(), OWNER)
    other = node_key_text(new_keys().node.public_key())
    assert refused_proof(without_signing(request, node_key=other)) is ProvisionFault.PROOF


def test_request_with_node_key_of_another_who_did_not_prove_it() -> None:
    """The roster key signs another's node key; only that key's own proof is missing."""
    other = node_key_text(new_keys().node.public_key())
    request = request_for(an_invitation(), OWNER, node_key=other)
    with pytest.raises(ProvisionError, match="node key") as caught:
        request.verify(source="it.json")
    assert caught.value.fault is ProvisionFault.PROOF


def test_request_with_roster_key_of_another_who_did_not_prove_it() -> None:
    request = request_for(an_invitation(), OWNER, roster_key=public_hex(new_keys().roster))
    with pytest.raises(ProvisionError, match="roster key") as caught:
        request.verify(source="it.json")
    assert caught.value.fault is ProvisionFault.PROOF


def test_request_with_csr_for_another_key() -> None:
    request = request_for(an_invitation(), OWNER)
    assert refused_proof(without_signing(request, csr=new_csr(new_keys().tls))) is ProvisionFault.PROOF


def test_proof_of_one_document_in_another() -> None:
    """The same roster key signs a renewal; that signature proves no join."""
    request = request_for(an_invitation(), OWNER)
    renewal = prove_renewal(OWNER.roster, federation="shops", client="shop-1", nonce="0" * 32, csr=request.csr)
    renewal.verify(public_hex(OWNER.roster), source="it.json")
    assert refused_proof(without_signing(request, roster_proof=renewal.roster_proof)) is ProvisionFault.PROOF
    with pytest.raises(ProvisionError) as caught:
        renewal.verify(public_hex(new_keys().roster), source="it.json")
    assert caught.value.fault is ProvisionFault.PROOF
    assert RenewalRequest.from_bytes(renewal.to_bytes(), source="it.json") == renewal


def test_node_key_of_another_kind() -> None:
    p256 = ec.generate_private_key(ec.SECP256R1())
    text = node_key_text(OWNER.node.public_key())
    for wrong in (node_key_text(p256.public_key()), "ssh-ed25519 AAAA", "no key", f"{text} comment", f"{text}\n"):
        assert refused_proof(without_signing(request_for(an_invitation(), OWNER), node_key=wrong)) in (
            ProvisionFault.KEY,
            ProvisionFault.FORMAT,
        )


def test_every_part_of_what_is_agreed_moves_the_fingerprint() -> None:
    invitation, other = an_invitation(), new_keys()
    request = request_for(invitation, OWNER)
    own = join_fingerprint(invitation, request)
    assert own == join_fingerprint(an_invitation(), request_for(invitation, OWNER, csr=new_csr(OWNER.tls)))
    others = {
        own,
        join_fingerprint(signed_again(invitation, Ed25519PrivateKey.generate()), request),
        *(
            join_fingerprint(an_invitation(**{field: value}), request)
            for field, value in {"federation_key": "f" * 64, "ca": "other", "id": "f" * 32, "client": "shop-2"}.items()
        ),
        join_fingerprint(invitation, request_for(invitation, OWNER, nonce="1" * 32)),
        join_fingerprint(invitation, request_for(invitation, OWNER, csr=new_csr(other.tls))),
        join_fingerprint(invitation, request_for(invitation, OWNER, node_key=node_key_text(other.node.public_key()))),
        join_fingerprint(invitation, request_for(invitation, OWNER, roster_key=public_hex(other.roster))),
    }
    assert len(others) == 10
    assert all(len(each) == 29 and each.count("-") == 4 for each in others)


def test_fingerprint_as_people_type_it() -> None:
    own = "ABCDE-FGHIJ-KLMNO-PQRST-UV234"
    for told in (own, own.lower(), own.replace("-", ""), own.replace("-", " "), f" {own}\n"):
        compare(told, own)
    for told in ("", "ABCDE", "ABCDE-FGHIJ-KLMNO-PQRST-UV235", f"{own}A", "ÄBCDE-FGHIJ-KLMNO-PQRST-UV234"):
        with pytest.raises(ProvisionError) as caught:
            compare(told, own)
        assert caught.value.fault is ProvisionFault.FINGERPRINT


def test_nobody_confirms_the_fingerprint() -> None:
    own = "ABCDE-FGHIJ-KLMNO-PQRST-UV234"
    confirm(own, None, lambda: True)
    confirm(own, own, None)
    for ask in (None, lambda: False):
        with pytest.raises(ProvisionError) as caught:
            confirm(own, None, ask)
        assert caught.value.fault is ProvisionFault.UNCONFIRMED
    with pytest.raises(ProvisionError, match="differ"):
        confirm(own, "ABCDE", lambda: True)


def test_ecdsa_proof_is_over_sha384() -> None:
    """Another program verifies the node's proof with the hash that the module names."""
    request = request_for(an_invitation(), OWNER)
    OWNER.node.public_key().verify(bytes.fromhex(request.node_proof), request.signed_bytes, ec.ECDSA(hashes.SHA384()))
