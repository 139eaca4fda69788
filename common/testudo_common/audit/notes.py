"""Signed notes: a text, and lines of signatures under it. Knows keys and bytes, not what the text says.

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+...

A line names the key and, in its first four bytes, the key's id, which covers algorithm and public key. Lines of unknown
keys are passed over; one of a known key must hold.
Source: C2SP signed-note and tlog-cosignature.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from testudo_common.errors import AuditError, AuditFault

MAX_NOTE_BYTES: Final = 1 << 22  # some thirty thousand cosignatures
KEY_ID_BYTES: Final = 4
TIME_BYTES: Final = 8
_DASH: Final = "— "
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SIZE: Final = re.compile("[0-9]{1,20}")
_ROOT_BYTES: Final = 32

PrivateKey = Ed25519PrivateKey | MLDSA44PrivateKey


class KeyKind(IntEnum):
    """What a key's signature is over, as the byte that enters its id."""

    ED25519 = 0x01
    """Over the text: a log's own."""
    ED25519_COSIGNER = 0x04
    """Over a time and the text: a witness's."""
    ML_DSA_44 = 0x06
    """Over name, time, origin, size and root of a checkpoint: a log's own, or a witness's."""


_KEY_BYTES: Final = {KeyKind.ED25519: 32, KeyKind.ED25519_COSIGNER: 32, KeyKind.ML_DSA_44: 1312}


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key, with its name.

    Attributes:
        name: Without spaces or plus signs.
        kind: What it signs.
        raw: 32 bytes of Ed25519, 1312 of ML-DSA-44.
    """

    name: str
    kind: KeyKind
    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not is_key_name(self.name):
            raise AuditError(AuditFault.FORMAT, f"no key may be called {self.name[:80]!r}")
        if len(self.raw) != _KEY_BYTES[self.kind]:
            raise AuditError(AuditFault.FORMAT, f"a key of {len(self.raw)} bytes", where=self.name)

    @property
    def id(self) -> bytes:
        """Four bytes."""
        return _key_id(self.name, self.kind, self.raw)

    def vkey(self) -> str:
        """The key as one word of text: ``name+id+base64(kind | key)``."""
        return f"{self.name}+{self.id.hex()}+{_base64(bytes([self.kind]) + self.raw)}"


def parse_vkey(text: str) -> NoteKey:
    """The key that :meth:`NoteKey.vkey` wrote.

    Raises:
        AuditError: It is not one, or its id is another key's.
    """
    name, _, rest = text.strip().partition("+")
    shown, _, encoded = rest.partition("+")
    data = _from_base64(encoded)
    try:
        key = NoteKey(name, KeyKind(data[0]), data[1:])
    except (IndexError, ValueError) as error:
        raise AuditError(AuditFault.FORMAT, "not a key of a log or a witness") from error
    if shown != key.id.hex():
        raise AuditError(AuditFault.FORMAT, "a key whose id is another key's", where=name)
    return key


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key under a name.

    Attributes:
        name: See :class:`NoteKey`.
        cosigner: Whether it is a witness's rather than the log's.
        private: Ed25519 or ML-DSA-44.
    """

    name: str
    private: PrivateKey = field(repr=False, compare=False)
    cosigner: bool = False

    @property
    def key(self) -> NoteKey:
        """The public half."""
        raw = self.private.public_key().public_bytes_raw()
        if isinstance(self.private, MLDSA44PrivateKey):
            return NoteKey(self.name, KeyKind.ML_DSA_44, raw)
        return NoteKey(self.name, KeyKind.ED25519_COSIGNER if self.cosigner else KeyKind.ED25519, raw)

    def sign(self, text: str, time: int) -> NoteSignature:
        """Sign a note's text.

        Args:
            text: Ends in a newline; for ML-DSA-44 a checkpoint.
            time: Seconds since 1970, UTC; not part of a plain Ed25519 signature.
        """
        key = self.key
        signature = self.private.sign(signed_message(key, text, time))
        stamp = b"" if key.kind is KeyKind.ED25519 else time.to_bytes(TIME_BYTES)
        return NoteSignature(self.name, key.id + stamp + signature)


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One line under a note.

    Attributes:
        name: The key's.
        blob: Its id, the time where there is one, and the signature.
    """

    name: str
    blob: bytes = field(repr=False)

    def line(self) -> str:
        """With its newline."""
        return f"{_DASH}{self.name} {_base64(self.blob)}\n"

    def is_by(self, key: NoteKey) -> bool:
        """Whether it claims to be of that key; whether it is, :meth:`verify` says."""
        return self.name == key.name and self.blob[:KEY_ID_BYTES] == key.id

    def verify(self, key: NoteKey, text: str) -> None:
        """Return only if it is that key's, over ``text``.

        Raises:
            AuditError: It is not.
        """
        body = self.blob[KEY_ID_BYTES:]
        time = 0
        if key.kind is not KeyKind.ED25519:
            time, body = int.from_bytes(body[:TIME_BYTES]), body[TIME_BYTES:]
        try:
            _verify(key.kind, key.raw, body, signed_message(key, text, time))
        except (InvalidSignature, ValueError, OverflowError) as error:
            raise AuditError(AuditFault.SIGNATURE, f"the signature of {self.name} does not hold") from error


def parse_line(line: str) -> NoteSignature:
    """The signature in one line.

    Raises:
        AuditError: It is not a line of a note.
    """
    name, space, encoded = line.removesuffix("\n").removeprefix(_DASH).partition(" ")
    blob = _from_base64(encoded)
    if not line.startswith(_DASH) or not space or not is_key_name(name) or len(blob) <= KEY_ID_BYTES:
        raise AuditError(AuditFault.FORMAT, "not the line of a signature")
    return NoteSignature(name, blob)


@dataclass(frozen=True, slots=True)
class Note:
    """A text with its signatures.

    Attributes:
        text: Ends in a newline.
        signatures: In order.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> bytes:
        """As it is stored and sent."""
        return (self.text + "\n" + "".join(each.line() for each in self.signatures)).encode()

    def signed_by(self, key: NoteKey) -> bool:
        """Whether ``key`` signed it.

        Raises:
            AuditError: A line claims to be that key's and is not.
        """
        found = [each for each in self.signatures if each.is_by(key)]
        for each in found:
            each.verify(key, self.text)
        return bool(found)

    def with_signatures(self, more: Iterable[NoteSignature]) -> Note:
        """The same with further lines; a line that is there already is not repeated."""
        there = set(self.signatures)
        fresh = [each for each in dict.fromkeys(more) if each not in there]
        return Note(self.text, (*self.signatures, *fresh))


@lru_cache(maxsize=32)
def parse_note(data: bytes) -> Note:
    """The note in ``data``. Nothing in it is to be believed before a signature was verified.

    Remembered, since in a simulation a thousand clients get the same one, with a thousand cosignatures.

    Raises:
        AuditError: It is not a note.
    """
    fault = AuditError(AuditFault.FORMAT, "not a signed note")
    if len(data) > MAX_NOTE_BYTES:
        raise fault
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise fault from error
    if _CONTROL.search(whole):
        raise fault
    text, blank, signatures = whole.rpartition("\n\n")
    if not blank or not text or not signatures.endswith("\n"):
        raise fault
    lines = signatures.removesuffix("\n").split("\n")
    return Note(text + "\n", tuple(parse_line(line) for line in lines))


def is_key_name(name: str) -> bool:
    """Whether a key may have this name."""
    return bool(name) and name.isprintable() and "+" not in name and " " not in name  # no other space is printable


def signed_message(key: NoteKey, text: str, time: int) -> bytes:
    """What ``key`` signs for ``text`` at ``time``.

    Raises:
        ValueError: ML-DSA-44 signs checkpoints, and ``text`` is none; or a name in it is longer than 255 bytes.
        OverflowError: The time is beyond 2^63, or the size beyond 2^64.
    """
    if time >> 63:
        raise OverflowError("a time beyond 2^63")
    match key.kind:
        case KeyKind.ED25519:
            return text.encode()
        case KeyKind.ED25519_COSIGNER:
            return f"cosignature/v1\ntime {time}\n{text}".encode()
        case KeyKind.ML_DSA_44:
            origin, size, root = text.split("\n")[:3]
            name, log = key.name.encode(), origin.encode()
            if (
                not _SIZE.fullmatch(size)
                or not log
                or len(tree := base64.b64decode(root, validate=True)) != _ROOT_BYTES
            ):
                raise ValueError("not a checkpoint")
            begin, end = bytes(8), int(size).to_bytes(8)
            label = b"subtree/v1\n\0"
            return b"".join(
                [label, bytes([len(name)]), name, time.to_bytes(8), bytes([len(log)]), log, begin, end, tree]
            )


@lru_cache(maxsize=1 << 14)
def _verify(kind: KeyKind, raw: bytes, signature: bytes, message: bytes) -> None:
    """Raise unless it holds. Remembered, since in a simulation every client asks about the same ones."""
    if kind is KeyKind.ML_DSA_44:
        MLDSA44PublicKey.from_public_bytes(raw).verify(signature, message)
    else:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)


@lru_cache(maxsize=1 << 14)
def _key_id(name: str, kind: KeyKind, raw: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + bytes([kind]) + raw).digest()[:KEY_ID_BYTES]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _from_base64(text: str) -> bytes:
    """What ``text`` stands for, in the one way of writing it.

    Raises:
        AuditError: It is not base64.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AuditError(AuditFault.FORMAT, "not base64") from error
    if _base64(data) != text:
        raise AuditError(AuditFault.FORMAT, "not base64 as it should be written")
    return data
