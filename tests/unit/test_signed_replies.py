"""A reply counts only as its owner signed it: what is signed byte by byte, and every way to be another's."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testudo_common.errors import ReplyError
from testudo_common.roster import Roster
from testudo_common.signed_replies import IDENTIFICATION, Asked, ReplySigner, verify_reply
from testudo_common.wire import Message, Parts, Refusal, RefusalReason, SecureMessage, TrainReply, Witnessed, encode

DIGEST = "ab" * 32
ASKED = Asked(2**64 - 3, "5f" * 32)
UPDATE = TrainReply(DIGEST, 1, 0, DIGEST, np.array([1.5, -0.0, 3.5], dtype=np.float32))
MASKED = SecureMessage(DIGEST, 1, 0, b"\x00 a body \xff", np.array([0, 1, 2**32 - 1], dtype=np.uint32))
STEP = SecureMessage(DIGEST, 1, 0, b"a body")
WITNESSED = Witnessed(DIGEST, 1, 0, 7, b"")
REFUSAL = Refusal(DIGEST, 1, 0, RefusalReason.NO_QUORUM)


def key_of(client: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(client.encode()).digest())


def roster_of(*clients: str) -> Roster:
    return Roster("shops", {client: key_of(client).public_key().public_bytes_raw() for client in clients})


ADA, ROSTER = ReplySigner("ada", key_of("ada")), roster_of("ada", "bob", "Größe 1")


@pytest.mark.parametrize("message", [UPDATE, MASKED, STEP, WITNESSED, REFUSAL], ids=lambda it: type(it).__name__)
def test_every_kind_of_reply(message: Message) -> None:
    parts = encode(message)
    verify_reply(ROSTER, "ada", ASKED, parts, ADA.sign(ASKED, parts))


def test_identification() -> None:
    for client in ROSTER.members:
        signature = ReplySigner(client, key_of(client)).sign(ASKED, IDENTIFICATION)
        verify_reply(ROSTER, client, ASKED, IDENTIFICATION, signature)


def test_what_is_signed_byte_by_byte() -> None:
    """Put together by hand, from the page that says what is signed; Ed25519 signs the same bytes the same way."""
    parts = encode(MASKED)
    assert parts.body is not None and parts.vector is not None
    reply = b"".join(
        [
            struct.pack(">Q", len(parts.header)),
            parts.header,
            b"\x01",
            struct.pack(">Q", len(parts.body)),
            parts.body,
            b"\x02",
            struct.pack(">Q", 3),
            bytes.fromhex("00000000 01000000 ffffffff"),
        ]
    )
    signed = b"testudo-reply-1" + bytes.fromhex("fffffffffffffffd") + b"\0\0\0\x40" + b"5f" * 32 + b"\0\0\0\x03ada"
    assert ADA.sign(ASKED, parts) == ADA.key.sign(signed + hashlib.sha256(reply).digest())
    nothing = hashlib.sha256(bytes(8) + b"\0" + b"\0").digest()
    assert ADA.sign(ASKED, IDENTIFICATION) == ADA.key.sign(signed + nothing)


def test_a_known_signature() -> None:
    """Of a refusal whose bytes no other library has a hand in, so that releases go on understanding one another."""
    signature = ADA.sign(Asked(7, "m1"), Parts(b"header", b"body", np.array([1.0, -2.0], dtype=np.float32)))
    assert hashlib.sha256(signature).hexdigest() == KNOWN


KNOWN = "1fe411f39d9ee5f234a1d257b85e7e14d23a4877044f2ef2276653afd9908bf0"


def altered(parts: Parts, place: int) -> Parts:
    assert parts.vector is not None
    vector = parts.vector.copy()
    vector.view(np.uint8)[place] ^= 1
    return replace(parts, vector=vector)


SENT = encode(MASKED)
BOB_BY_ADA = ReplySigner("bob", key_of("ada"))
SIGNED = ADA.sign(ASKED, SENT)
FAULTS = {
    "the key of another client": (ROSTER, "ada", ASKED, SENT, ReplySigner("ada", key_of("bob")).sign(ASKED, SENT)),
    "another client's name": (ROSTER, "bob", ASKED, SENT, SIGNED),
    "another's name, and its own key": (
        ROSTER,
        "bob",
        ASKED,
        SENT,
        ReplySigner("bob", key_of("ada")).sign(ASKED, SENT),
    ),
    "another run": (ROSTER, "ada", replace(ASKED, run_id=ASKED.run_id - 1), SENT, SIGNED),
    "another message": (ROSTER, "ada", replace(ASKED, message_id="5e" * 32), SENT, SIGNED),
    "an altered header": (ROSTER, "ada", ASKED, replace(SENT, header=SENT.header.replace(b'd":1', b'd":2')), SIGNED),
    "an altered body": (ROSTER, "ada", ASKED, replace(SENT, body=b"\x01" + SENT.body[1:]), SIGNED),  # type: ignore[index]
    "no body": (ROSTER, "ada", ASKED, replace(SENT, body=None), SIGNED),
    "an altered first value": (ROSTER, "ada", ASKED, altered(SENT, 0), SIGNED),
    "an altered last value": (ROSTER, "ada", ASKED, altered(SENT, -1), SIGNED),
    "a value less": (ROSTER, "ada", ASKED, replace(SENT, vector=SENT.vector[:-1]), SIGNED),  # type: ignore[index]
    "values of another type": (ROSTER, "ada", ASKED, replace(SENT, vector=SENT.vector.view(np.float32)), SIGNED),  # type: ignore[union-attr]
    "values of no message's type": (ROSTER, "ada", ASKED, replace(SENT, vector=np.array([{}], dtype=object)), SIGNED),
    "values in rows": (ROSTER, "ada", ASKED, replace(SENT, vector=SENT.vector[None]), SIGNED),  # type: ignore[index]
    "no vector": (ROSTER, "ada", ASKED, replace(SENT, vector=None), SIGNED),
    "no signature": (ROSTER, "ada", ASKED, SENT, None),
    "an empty signature": (ROSTER, "ada", ASKED, SENT, b""),
    "an altered signature": (ROSTER, "ada", ASKED, SENT, bytes([SIGNED[0] ^ 1]) + SIGNED[1:]),
    "a member that is not on the roster any more": (roster_of("bob"), "ada", ASKED, SENT, SIGNED),
    "a member under a new key": (
        Roster("shops", {"ada": key_of("new").public_key().public_bytes_raw()}),
        "ada",
        ASKED,
        SENT,
        SIGNED,
    ),
    "an identification": (ROSTER, "ada", ASKED, SENT, ADA.sign(ASKED, IDENTIFICATION)),
    "a reply as an identification": (ROSTER, "ada", ASKED, IDENTIFICATION, SIGNED),
}


@pytest.mark.parametrize(("roster", "client", "asked", "parts", "signature"), FAULTS.values(), ids=FAULTS.keys())
def test_refused(roster: Roster, client: str, asked: Asked, parts: Parts, signature: bytes | None) -> None:
    with pytest.raises(ReplyError) as caught:
        verify_reply(roster, client, asked, parts, signature)
    assert caught.value.where in (client, "")
    said = f"{caught.value} {caught.value!r}"
    assert not any(secret in said for secret in (SIGNED.hex(), repr(SIGNED), "a body", "4294967295"))


def test_the_base_of_all_faults_is_accepted() -> None:
    verify_reply(ROSTER, "ada", ASKED, SENT, SIGNED)


@pytest.mark.parametrize(("message_id", "client"), [("m1a", "da"), ("m1", "ada"), ("m", "1ada")])
def test_names_do_not_run_into_each_other(message_id: str, client: str) -> None:
    key = key_of("ada")
    made = {ReplySigner(c, key).sign(Asked(1, m), SENT) for m, c in [("m1a", "da"), ("m1", "ada"), ("m", "1ada")]}
    assert ReplySigner(client, key).sign(Asked(1, message_id), SENT) in made
    assert len(made) == 3


def test_a_key_does_not_print() -> None:
    assert key_of("ada").private_bytes_raw().hex() not in repr(ADA)
    assert repr(ADA) == "ReplySigner(client_id='ada')"


def test_a_large_vector_is_not_copied() -> None:
    parts = replace(SENT, vector=np.ones(1_000_000, dtype=np.uint32))
    tracemalloc.start()
    verify_reply(ROSTER, "ada", ASKED, parts, ADA.sign(ASKED, parts))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_a_vector_that_is_a_view_is_signed_for_its_values() -> None:
    whole = np.arange(6, dtype=np.uint32)
    signature = ADA.sign(ASKED, replace(SENT, vector=whole[::2]))
    verify_reply(ROSTER, "ada", ASKED, replace(SENT, vector=np.array([0, 2, 4], dtype=np.uint32)), signature)
