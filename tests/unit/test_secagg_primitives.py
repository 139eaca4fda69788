"""The cryptography of secure aggregation against the RFCs' and NIST's own vectors.

What the protocol hashes first (the message of a signature or a tag, the info of a derivation) is taken out of the way
by a digest that passes one part through; the vector is then the primitive's own.
"""

from __future__ import annotations

import hashlib
import hmac
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg import primitives
from testudo_common.secagg.primitives import (
    PROTOCOL,
    Agreement,
    ChannelKeys,
    channel_keys,
    check_public_key,
    derive,
    digest,
    number,
    public_key,
    random_secret,
    seal,
    sign,
    tag,
    tags_match,
    unseal,
    verification_key,
    verify,
)

secrets32 = st.binary(min_size=32, max_size=32)


@pytest.fixture
def digest_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def passed_through(label: str, *parts: bytes) -> bytes:
        assert label == "vector"
        [part] = parts
        return part

    monkeypatch.setattr(primitives, "digest", passed_through)


# X25519: RFC 7748, section 6.1.
ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
BOB_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")


def test_agreement_of_rfc_7748() -> None:
    assert public_key(ALICE) == ALICE_PUBLIC
    assert public_key(BOB) == BOB_PUBLIC
    assert Agreement(ALICE).with_peer(BOB_PUBLIC) == SHARED
    assert Agreement(BOB).with_peer(ALICE_PUBLIC) == SHARED


def test_agreement_after_a_thousand_times() -> None:
    """RFC 7748, section 5.2: the output is the next scalar, the scalar the next point."""
    scalar = point = (9).to_bytes(32, "little")
    for times in range(1, 1001):
        scalar, point = Agreement(scalar).with_peer(point), scalar
        if times == 1:
            assert scalar.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert scalar.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


LOW_ORDER = {
    "zero": "0000000000000000000000000000000000000000000000000000000000000000",
    "one": "0100000000000000000000000000000000000000000000000000000000000000",
    "of order 8": "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "of order 8, the other": "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "p - 1": "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "p": "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "p + 1": "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}


@pytest.mark.parametrize("peer", LOW_ORDER.values(), ids=LOW_ORDER.keys())
def test_a_key_of_low_order(peer: str) -> None:
    for refuse in (Agreement(ALICE).with_peer, check_public_key):
        with pytest.raises(ProtocolError, match="nothing secret") as caught:
            refuse(bytes.fromhex(peer))
        assert caught.value.breach is Breach.KEY


def test_a_key_that_agrees_on_something_secret() -> None:
    check_public_key(ALICE_PUBLIC)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_the_wrong_length(length: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        Agreement(ALICE).with_peer(bytes(length))
    assert caught.value.breach is Breach.KEY


# Ed25519: RFC 8032, section 7.1: secret key, public key, message, signature.
ED25519 = {
    "test 1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "test 2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "test 3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
}


@pytest.mark.usefixtures("digest_passes_through")
@pytest.mark.parametrize(("secret", "public", "message", "signature"), ED25519.values(), ids=ED25519.keys())
def test_signatures_of_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    assert verification_key(bytes.fromhex(secret)).hex() == public
    assert sign(bytes.fromhex(secret), "vector", bytes.fromhex(message)).hex() == signature
    verify(bytes.fromhex(public), bytes.fromhex(signature), "vector", bytes.fromhex(message))


SIGNING = bytes(range(32))
VERIFYING = verification_key(SIGNING)
SIGNATURE = sign(SIGNING, "purpose", b"one", b"two")
FORGED: dict[str, tuple[bytes, bytes, str, tuple[bytes, ...]]] = {
    "another's key": (verification_key(bytes(32)), SIGNATURE, "purpose", (b"one", b"two")),
    "a key of 31 bytes": (VERIFYING[:-1], SIGNATURE, "purpose", (b"one", b"two")),
    "a key that is no point": (bytes.fromhex("02" + 31 * "00"), SIGNATURE, "purpose", (b"one", b"two")),
    "a flipped bit": (VERIFYING, bytes((SIGNATURE[0] ^ 1,)) + SIGNATURE[1:], "purpose", (b"one", b"two")),
    "no signature": (VERIFYING, b"", "purpose", (b"one", b"two")),
    "a signature of 63 bytes": (VERIFYING, SIGNATURE[:-1], "purpose", (b"one", b"two")),
    "for another purpose": (VERIFYING, SIGNATURE, "another", (b"one", b"two")),
    "a part missing": (VERIFYING, SIGNATURE, "purpose", (b"one",)),
    "parts divided elsewhere": (VERIFYING, SIGNATURE, "purpose", (b"on", b"etwo")),
    "parts in another order": (VERIFYING, SIGNATURE, "purpose", (b"two", b"one")),
}


def test_a_signature_that_holds() -> None:
    verify(VERIFYING, SIGNATURE, "purpose", b"one", b"two")


@pytest.mark.parametrize(("key", "signature", "label", "parts"), FORGED.values(), ids=FORGED.keys())
def test_a_signature_that_does_not_hold(key: bytes, signature: bytes, label: str, parts: tuple[bytes, ...]) -> None:
    with pytest.raises(ProtocolError, match="does not hold") as caught:
        verify(key, signature, label, *parts)
    assert caught.value.breach is Breach.SIGNATURE


# HKDF: RFC 5869, appendix A.


def hkdf(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, section 2, from hmac alone."""
    pseudorandom, block, found = hmac.digest(salt, secret, "sha256"), b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(pseudorandom, block + info + bytes((counter,)), "sha256")
        found += block
    return found[:length]


HKDF = {
    "test 1": (
        "000102030405060708090a0b0c",
        22 * "0b",
        "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    "test 2": (
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0x50)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    "test 3": (
        "",
        22 * "0b",
        "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
}


@pytest.mark.usefixtures("digest_passes_through")
@pytest.mark.parametrize(("salt", "secret", "info", "expected"), HKDF.values(), ids=HKDF.keys())
def test_derivation_of_rfc_5869(
    salt: str, secret: str, info: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(primitives, "PROTOCOL", bytes.fromhex(salt))
    arguments = bytes.fromhex(secret), bytes.fromhex(info)
    assert derive(arguments[0], "vector", arguments[1], length=len(expected) // 2).hex() == expected
    assert hkdf(bytes.fromhex(salt), *arguments, len(expected) // 2).hex() == expected


@given(secrets32, st.text(max_size=10), st.lists(st.binary(max_size=10), max_size=3), st.integers(1, 100))
@settings(max_examples=25, deadline=None)
def test_derived_keys(secret: bytes, label: str, parts: list[bytes], length: int) -> None:
    assert derive(secret, label, *parts, length=length) == hkdf(PROTOCOL, secret, digest(label, *parts), length)


# Sealing: AES-256-GCM, test cases 13 and 14 of McGrew and Viega's submission to NIST (key, nonce and plaintext zero).


def test_sealing_of_nist() -> None:
    assert seal(bytes(32), b"", b"").hex() == "530f8afbc74536b9a963b4f1c4cb738b"
    assert seal(bytes(32), bytes(16), b"").hex() == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"


@given(secrets32, st.binary(max_size=200), st.binary(max_size=50))
@settings(max_examples=25, deadline=None)
def test_what_is_sealed_opens(key: bytes, plaintext: bytes, associated: bytes) -> None:
    sealed = seal(key, plaintext, associated)
    assert len(sealed) == len(plaintext) + 16
    assert unseal(key, sealed, associated) == plaintext


SEALED = seal(bytes(32), b"a share", b"for bob")
UNOPENED: dict[str, tuple[bytes, bytes, bytes]] = {
    "another key": (bytes(31) + b"\x01", SEALED, b"for bob"),
    "for somebody else": (bytes(32), SEALED, b"for eve"),
    "for nobody": (bytes(32), SEALED, b""),
    "a flipped bit": (bytes(32), bytes((SEALED[0] ^ 1,)) + SEALED[1:], b"for bob"),
    "a flipped bit of the tag": (bytes(32), SEALED[:-1] + bytes((SEALED[-1] ^ 1,)), b"for bob"),
    "truncated": (bytes(32), SEALED[:-1], b"for bob"),
    "shorter than a tag": (bytes(32), SEALED[:3], b"for bob"),
    "empty": (bytes(32), b"", b"for bob"),
}


@pytest.mark.parametrize(("key", "sealed", "associated"), UNOPENED.values(), ids=UNOPENED.keys())
def test_what_was_sealed_otherwise(key: bytes, sealed: bytes, associated: bytes) -> None:
    with pytest.raises(ProtocolError, match="cannot be opened") as caught:
        unseal(key, sealed, associated)
    assert caught.value.breach is Breach.SHARE


# Tags: HMAC-SHA256, RFC 4231, test case 5, which is truncated to as many bytes as ours.


@pytest.mark.usefixtures("digest_passes_through")
def test_tag_of_rfc_4231() -> None:
    assert tag(20 * b"\x0c", "vector", b"Test With Truncation").hex() == "a3b6167473100ee06e0c796c2955552b"


def test_tags_match() -> None:
    one = tag(bytes(32), "purpose", b"part")
    assert tags_match(one, tag(bytes(32), "purpose", b"part"))
    others = [tag(bytes(32), "purpose"), tag(bytes(32), "another", b"part"), tag(b"k" * 32, "purpose", b"part")]
    assert not any(tags_match(one, other) for other in (*others, one[:-1], b""))


# Digests.


def test_digest_known_answer() -> None:
    """By the definition, from hashlib alone."""
    hashed = PROTOCOL + (7).to_bytes(8, "big") + b"purpose" + (2).to_bytes(8, "big") + b"ab" + bytes(8)
    assert digest("purpose", b"ab", b"") == hashlib.sha256(hashed).digest()


def test_no_two_lists_of_parts_have_one_digest() -> None:
    lists: list[tuple[bytes, ...]] = [
        (),
        (b"",),
        (b"", b""),
        (b"ab",),
        (b"a", b"b"),
        (b"ab", b""),
        (b"", b"ab"),
        (b"b", b"a"),
        (bytes(8),),
        (number(1), b"a"),
    ]
    found = [digest(label, *parts) for label in ("", "a", "ab") for parts in lists]
    assert len(set(found)) == len(found)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
@settings(max_examples=25, deadline=None)
def test_numbers_differ(one: int, other: int) -> None:
    assert (number(one) == number(other)) == (one == other)
    assert len(number(one)) == 8


# Keys of a channel.


@given(secrets32, secrets32, st.integers(0, 65535), st.integers(0, 65535))
@settings(max_examples=25, deadline=None)
def test_both_ends_of_a_channel(shared: bytes, context: bytes, me: int, peer: int) -> None:
    if me == peer:
        return
    mine, theirs = channel_keys(shared, context, me, peer), channel_keys(shared, context, peer, me)
    assert (mine.sending, mine.receiving) == (theirs.receiving, theirs.sending)
    assert mine.confirming == theirs.confirming
    assert len({mine.sending, mine.receiving, mine.confirming}) == 3


def all_keys(keys: ChannelKeys) -> set[bytes]:
    return {keys.sending, keys.receiving, keys.confirming}


def test_channels_share_no_key() -> None:
    """Each secret, context and pair has its own three."""
    channels = [
        all_keys(channel_keys(shared, context, *pair))
        for shared in (bytes(32), b"s" * 32)
        for context in (bytes(32), b"c" * 32)
        for pair in ((0, 1), (0, 2), (1, 2), (0, 256))
    ]
    assert not any(one & other for one, other in combinations(channels, 2))


def test_channel_keys_are_not_printed() -> None:
    keys = channel_keys(bytes(32), bytes(32), 0, 1)
    assert repr(keys) == "ChannelKeys()"


# Secrets.


def test_secrets_come_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(primitives.secrets, "token_bytes", lambda count: count * b"r")
    assert random_secret() == 32 * b"r"


def test_secrets_differ() -> None:
    assert len({random_secret() for _ in range(100)}) == 100
