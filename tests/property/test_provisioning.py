"""Joining, whatever arrives: a document that is not exactly what was signed is refused with an error of ours."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from forged import NOON, new_keys, request_for
from testudo_common.errors import ProvisionError
from testudo_common.key_files import public_hex
from testudo_common.provisioning.certificates import (
    client_certificate,
    client_in,
    is_host,
    key_in_csr,
    new_authority,
    node_key_text,
    node_public_key,
)
from testudo_common.provisioning.documents import Answer, Invitation, JoinRequest, RenewalRequest, sign_as_federation
from testudo_common.roster import is_client_id
from testudo_server.provisioning.folder import file_name_of

KEY, OWNER = Ed25519PrivateKey.from_private_bytes(bytes(32)), new_keys()
AUTHORITY = new_authority("shops", OWNER.tls, NOON)
INVITATION = sign_as_federation(
    Invitation,
    KEY,
    id="0" * 32,
    federation="shops",
    federation_key=public_hex(KEY),
    ca="PEM",
    host="fl.example.org",
    port=9092,
    client="shop-1",
    expires="2026-06-29T12:00:00Z",
)
REQUEST = request_for(INVITATION, OWNER)
CSR = base64.b64decode("".join(REQUEST.csr.splitlines()[1:-1]))
KINDS = [Invitation, JoinRequest, RenewalRequest, Answer]
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=128).filter(is_client_id)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def checked(data: bytes) -> None:
    """As the owner checks an invitation, and the operator a request."""
    if b"testudo-join" in data:
        JoinRequest.from_bytes(data, source="it").verify(source="it")
    else:
        Invitation.from_bytes(data, source="it").verify(public_hex(KEY), source="it")


@given(st.sampled_from([INVITATION.to_bytes(), REQUEST.to_bytes()]), st.data())
@settings(max_examples=80, deadline=None)
def test_no_byte_can_be_another(document: bytes, data: st.DataObject) -> None:
    checked(document)
    place = data.draw(st.integers(0, len(document) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != document[place]))
    with pytest.raises(ProvisionError):
        checked(document[:place] + bytes([byte]) + document[place + 1 :])


@given(st.sampled_from(["cut", "twice", "longer"]), st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_no_part_and_no_more(change: str, count: int) -> None:
    whole = INVITATION.to_bytes()
    changed = {"cut": whole[:-count], "twice": whole + whole, "longer": whole + b"}" * count}[change]
    with pytest.raises(ProvisionError):
        checked(changed)


@given(
    st.sampled_from([Invitation, JoinRequest, RenewalRequest, Answer]), st.binary(max_size=200) | JSON.map(json.dumps)
)
@settings(max_examples=80, deadline=None)
def test_anything_else_is_an_error_of_ours(kind: Any, anything: bytes | str) -> None:
    data = anything if isinstance(anything, bytes) else anything.encode("utf-8", "surrogatepass")
    with pytest.raises(ProvisionError):
        kind.from_bytes(data, source="it")


@given(st.sampled_from([INVITATION, REQUEST]), st.data())
@settings(max_examples=80, deadline=None)
def test_a_field_of_another_type_is_an_error_of_ours(document: Any, data: st.DataObject) -> None:
    content = json.loads(document.to_bytes())
    field = data.draw(st.sampled_from(sorted(content)))
    before = content[field]
    content[field] = data.draw(JSON.filter(lambda value: rfc8785.dumps(value) != rfc8785.dumps(before)))
    with pytest.raises(ProvisionError):
        checked(rfc8785.dumps(content))


def changed(data: st.DataObject, whole: bytes) -> bytes:
    """A few bytes of it are others, or are left out."""
    made = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(made) - 1))
        made[place : place + 1] = data.draw(st.binary(max_size=2))
    return bytes(made)


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_a_strange_csr_or_node_key_is_an_error_of_ours(data: st.DataObject) -> None:
    """The library that reads them has errors of many kinds; a sender chooses the bytes."""
    csr = base64.b64encode(changed(data, CSR)).decode()
    with contextlib.suppress(ProvisionError):
        key_in_csr(f"-----BEGIN CERTIFICATE REQUEST-----\n{csr}\n-----END CERTIFICATE REQUEST-----\n", source="it")
    kind, text = REQUEST.node_key.split()
    blob = base64.b64encode(changed(data, base64.b64decode(text))).decode()
    with contextlib.suppress(ProvisionError):
        assert node_key_text(node_public_key(f"{kind} {blob}", source="it")) == f"{kind} {blob}"


@given(NAMES)
@settings(max_examples=60, deadline=None)
def test_every_name_comes_back_from_its_certificate(name: str) -> None:
    assert client_in(client_certificate(AUTHORITY, OWNER.tls.public_key(), name, NOON)) == name


@given(st.lists(NAMES, min_size=2, max_size=20, unique=True))
@settings(max_examples=60, deadline=None)
def test_no_two_names_have_one_file(names: list[str]) -> None:
    files = [file_name_of(name) for name in names]
    assert len({file.casefold() for file in files}) == len(names)
    assert all(re.fullmatch("[0-9A-Za-z-]{1,57}", file) for file in files)


@given(st.text(max_size=80))
@settings(max_examples=100, deadline=None)
def test_a_host_is_ascii_and_one_word(host: str) -> None:
    if is_host(host):
        assert host.isascii()
        assert not set(host) & set(" \t\r\n/@#?%[]\\\x00")
