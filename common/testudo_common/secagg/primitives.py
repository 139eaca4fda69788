"""The cryptography that the protocol is made of, each with the protocol's own labels. Holds no protocol logic.

Key agreement X25519 (RFC 7748), signatures Ed25519 (RFC 8032), key derivation HKDF-SHA256 (RFC 5869), sealing
AES-256-GCM (NIST SP 800-38D), tags HMAC-SHA256 (RFC 2104). Each derived key is for one purpose, one direction and
one context, so a fixed nonce is safe: a key seals once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from testudo_common.errors import Breach, ProtocolError

PROTOCOL = b"testudo-secagg-1"
SECRET_BYTES = 32
TAG_BYTES = 16
_SEALING_NONCE = bytes(12)
_ANY_SECRET = bytes(range(SECRET_BYTES))  # low order shows with every one


def random_secret() -> bytes:
    """32 bytes from the operating system."""
    return secrets.token_bytes(SECRET_BYTES)


def digest(label: str, *parts: bytes) -> bytes:
    """SHA-256 of the protocol's name, then label and parts, each behind its length of eight bytes, big-endian.

    So no two lists of parts are one string.
    """
    state = hashlib.sha256(PROTOCOL)
    for part in (label.encode(), *parts):
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def number(value: int) -> bytes:
    """A whole number for :func:`digest`, eight bytes, big-endian."""
    return value.to_bytes(8, "big")


def public_key(secret: bytes) -> bytes:
    """The X25519 public key of a 32-byte secret."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


class Agreement:
    """X25519 with one secret and many peers: the secret is expanded once.

    Args:
        secret: 32 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(secret)

    def with_peer(self, peer: bytes) -> bytes:
        """The shared secret with a peer's public key, 32 bytes.

        Raises:
            ProtocolError: The peer's key is of low order: the result would not be secret (RFC 7748, section 6.1).
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError as error:
            raise ProtocolError(Breach.KEY, "a peer's key agrees on nothing secret") from error


_ANYBODY = Agreement(_ANY_SECRET)


def check_public_key(key: bytes) -> None:
    """Check that a peer's X25519 key agrees on something secret.

    Raises:
        ProtocolError: It is of low order.
    """
    _ANYBODY.with_peer(key)


def derive(secret: bytes, label: str, *parts: bytes, length: int = SECRET_BYTES) -> bytes:
    """A key for one purpose: HKDF with the protocol's name as salt and ``digest(label, *parts)`` as info."""
    pseudorandom = hmac.digest(PROTOCOL, secret, "sha256")
    info = digest(label, *parts)
    return HKDFExpand(algorithm=hashes.SHA256(), length=length, info=info).derive(pseudorandom)


@dataclass(frozen=True, slots=True)
class ChannelKeys:
    """What two members share for one round: a key to seal each way, and one for tags.

    Attributes:
        sending: 32 bytes.
        receiving: 32 bytes.
        confirming: 32 bytes, the same at both ends.
    """

    sending: bytes = field(repr=False, compare=False)
    receiving: bytes = field(repr=False, compare=False)
    confirming: bytes = field(repr=False, compare=False)


def channel_keys(shared: bytes, context: bytes, me: int, peer: int) -> ChannelKeys:
    """Keys between the members at positions ``me`` and ``peer`` of the group that ``context`` names.

    96 bytes under the label ``channel``, over context, lower and higher position: the key for what the lower sends, for
    what the higher sends, and for tags.
    """
    low, high = sorted((me, peer))
    keys = derive(shared, "channel", context, number(low), number(high), length=3 * SECRET_BYTES)
    upward, downward, confirming = (keys[i : i + SECRET_BYTES] for i in range(0, 3 * SECRET_BYTES, SECRET_BYTES))
    return ChannelKeys(upward, downward, confirming) if me < peer else ChannelKeys(downward, upward, confirming)


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """``plaintext`` under AES-256-GCM with a key that seals nothing else, and so with a nonce of zeros."""
    return AESGCM(key).encrypt(_SEALING_NONCE, plaintext, associated)


def unseal(key: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """The plaintext of :func:`seal`.

    Raises:
        ProtocolError: It was sealed with another key, for another context, or changed on the way.
    """
    try:
        return AESGCM(key).decrypt(_SEALING_NONCE, ciphertext, associated)
    except InvalidTag as error:
        raise ProtocolError(Breach.SHARE, "a sealed share cannot be opened") from error


def tag(key: bytes, label: str, *parts: bytes) -> bytes:
    """The first 16 bytes of HMAC-SHA256 over ``digest(label, *parts)``."""
    return hmac.digest(key, digest(label, *parts), "sha256")[:TAG_BYTES]


def tags_match(one: bytes, other: bytes) -> bool:
    """Whether two tags are equal, in constant time."""
    return hmac.compare_digest(one, other)


def sign(signing_key: bytes, label: str, *parts: bytes) -> bytes:
    """An Ed25519 signature over ``digest(label, *parts)``, 64 bytes, with a 32-byte private key."""
    return Ed25519PrivateKey.from_private_bytes(signing_key).sign(digest(label, *parts))


def verification_key(signing_key: bytes) -> bytes:
    """The Ed25519 public key, 32 bytes, of a private one."""
    return Ed25519PrivateKey.from_private_bytes(signing_key).public_key().public_bytes_raw()


def verify(key: bytes, signature: bytes, label: str, *parts: bytes) -> None:
    """Check an Ed25519 signature.

    Raises:
        ProtocolError: It does not hold.
    """
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, digest(label, *parts))
    except (InvalidSignature, ValueError) as error:
        raise ProtocolError(Breach.SIGNATURE, "a signature does not hold") from error
