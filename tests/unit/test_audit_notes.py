"""Signed notes: those that other programs made verify, and nothing else is a note, a line or a key."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from testudo_common.audit.notes import (
    MAX_NOTE_BYTES,
    KeyKind,
    Note,
    NoteKey,
    NoteSignature,
    Signer,
    is_key_name,
    parse_line,
    parse_note,
    parse_vkey,
    signed_message,
)
from testudo_common.errors import AuditError, AuditFault
from vectors import signed_notes

ROOT = bytes(range(32))
TEXT = f"testudo/shops/1\n41\n{base64.b64encode(ROOT).decode()}\n"
LOG = Signer("testudo/shops", Ed25519PrivateKey.from_private_bytes(b"l" * 32))
WITNESS = Signer("shop-1", Ed25519PrivateKey.from_private_bytes(b"w" * 32), cosigner=True)
QUANTUM = Signer("testudo/shops", MLDSA44PrivateKey.from_seed_bytes(b"q" * 32))
SIGNERS = {"Ed25519": LOG, "cosigner": WITNESS, "ML-DSA-44": QUANTUM}
TIME = 1_772_366_400


def noted(*signers: Signer, text: str = TEXT) -> Note:
    return Note(text, tuple(signer.sign(text, TIME) for signer in signers))


# --- made by others


PUBLISHED = {
    "C2SP signed-note": (signed_notes.EXAMPLE_KEY, signed_notes.EXAMPLE, KeyKind.ED25519),
    "Go sumdb/note": (signed_notes.GO_KEY, signed_notes.GO_NOTE, KeyKind.ED25519),
    "a certificate log": (signed_notes.ARCHE_LOG, signed_notes.ARCHE, KeyKind.ED25519),
    "its witness": (signed_notes.ARCHE_WITNESS, signed_notes.ARCHE, KeyKind.ED25519_COSIGNER),
    "torchwood's log": (signed_notes.ML_DSA_KEY, signed_notes.ML_DSA_NOTE, KeyKind.ML_DSA_44),
}


@pytest.mark.parametrize(("vkey", "text", "kind"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_note_verifies(vkey: str, text: str, kind: KeyKind) -> None:
    key, note = parse_vkey(vkey), parse_note(text.encode())
    assert key.kind is kind
    assert key.vkey() == vkey
    assert note.signed_by(key)
    assert note.encode() == text.encode()
    if kind is not KeyKind.ED25519:
        return
    changed = Note(note.text.replace("e", "3", 1), note.signatures)
    with pytest.raises(AuditError, match=f"the signature of {key.name} does not hold"):
        changed.signed_by(key)


def test_our_note_is_the_published_one() -> None:
    """Ed25519 is deterministic."""
    seed = base64.b64decode(signed_notes.GO_SEED)
    signer = Signer("PeterNeumann", Ed25519PrivateKey.from_private_bytes(seed[1:]))
    note = parse_note(signed_notes.GO_NOTE.encode())
    assert signer.key.vkey() == signed_notes.GO_KEY
    assert noted(signer, text=note.text).encode() == signed_notes.GO_NOTE.encode()


def test_empty_lines_in_a_text_are_the_texts() -> None:
    note = parse_note(signed_notes.POEM.encode())
    assert note.text.endswith("sole:\n\ned è subito sera.\n")
    assert [each.name for each in note.signatures] == ["quasimodo.example/salvatore"]
    assert note.encode() == signed_notes.POEM.encode()


def test_cosignature_of_the_specification() -> None:
    note = parse_note(signed_notes.SOFA.encode())
    log, witness = note.signatures
    assert note.text == signed_notes.SOFA_TEXT
    assert (log.blob[:4].hex(), len(log.blob)) == ("033de0ae", 4 + 64)
    assert (witness.blob[:4].hex(), len(witness.blob)) == ("8d66cf3f", 4 + 8 + 64)
    assert int.from_bytes(witness.blob[4:12]) == signed_notes.SOFA_TIME
    key = NoteKey("witness.example.com/w1", KeyKind.ED25519_COSIGNER, bytes(32))
    assert signed_message(key, note.text, signed_notes.SOFA_TIME) == signed_notes.SOFA_SIGNED.encode()


# --- what is signed, byte by byte


def test_log_signs_the_text() -> None:
    (line,) = noted(LOG).signatures
    identity = hashlib.sha256(b"testudo/shops\n\x01" + LOG.key.raw).digest()[:4]
    assert line.blob[:4] == LOG.key.id == identity
    Ed25519PublicKey.from_public_bytes(LOG.key.raw).verify(line.blob[4:], TEXT.encode())


def test_witness_signs_a_time_and_the_text() -> None:
    (line,) = noted(WITNESS).signatures
    identity = hashlib.sha256(b"shop-1\n\x04" + WITNESS.key.raw).digest()[:4]
    assert line.blob[:12] == identity + TIME.to_bytes(8)
    signed = b"cosignature/v1\ntime 1772366400\n" + TEXT.encode()
    Ed25519PublicKey.from_public_bytes(WITNESS.key.raw).verify(line.blob[12:], signed)


def test_ml_dsa_signs_name_time_and_checkpoint() -> None:
    (line,) = noted(QUANTUM).signatures
    identity = hashlib.sha256(b"testudo/shops\n\x06" + QUANTUM.key.raw).digest()[:4]
    assert line.blob[:12] == identity + TIME.to_bytes(8)
    assert len(line.blob) == 4 + 8 + 2420
    signed = b"".join(
        [
            b"subtree/v1\n\x00",
            b"\x0dtestudo/shops",
            b"\x00\x00\x00\x00\x69\xa4\x2a\x40",
            b"\x0ftestudo/shops/1",
            b"\x00\x00\x00\x00\x00\x00\x00\x00",
            b"\x00\x00\x00\x00\x00\x00\x00\x29",
            ROOT,
        ]
    )
    MLDSA44PublicKey.from_public_bytes(QUANTUM.key.raw).verify(line.blob[12:], signed)


@pytest.mark.parametrize("signer", SIGNERS.values(), ids=SIGNERS)
def test_there_and_back(signer: Signer) -> None:
    note = noted(signer)
    again = parse_note(note.encode())
    assert again == note
    assert again.signed_by(signer.key)
    assert parse_vkey(signer.key.vkey()) == signer.key


def test_no_secret_and_no_signature_is_printed() -> None:
    for signer in SIGNERS.values():
        shown = repr(signer) + repr(signer.key) + repr(noted(signer))
        assert "private" not in shown
        assert repr(signer.key.raw)[2:40] not in shown
        assert "blob" not in shown


# --- signatures that do not hold


def altered(note: Note, place: int, bit: int = 1) -> Note:
    (line,) = note.signatures
    blob = bytearray(line.blob)
    blob[place] ^= bit
    return Note(note.text, (NoteSignature(line.name, bytes(blob)),))


@pytest.mark.parametrize("signer", SIGNERS.values(), ids=SIGNERS)
def test_a_flipped_bit_of_a_signature(signer: Signer) -> None:
    """Of the id: then it claims to be another key's. Of the time or the signature: then it does not hold."""
    note = noted(signer)
    length = len(note.signatures[0].blob)
    for place in range(4):
        assert not altered(note, place).signed_by(signer.key)
    for place in [*range(4, min(length, 80)), *range(80, length, 97), length - 1]:
        with pytest.raises(AuditError) as refused:
            altered(note, place, 1 << place % 8).signed_by(signer.key)
        assert refused.value.fault is AuditFault.SIGNATURE


@pytest.mark.parametrize("signer", SIGNERS.values(), ids=SIGNERS)
def test_a_changed_text(signer: Signer) -> None:
    for text in (TEXT.replace("41", "42"), TEXT.replace("/1\n", "/2\n"), TEXT.replace("AAEC", "AAED")):
        with pytest.raises(AuditError, match="does not hold"):
            Note(text, noted(signer).signatures).signed_by(signer.key)


def foreign(signer: Signer) -> NoteKey:
    other = (
        MLDSA44PrivateKey.from_seed_bytes(b"x" * 32)
        if signer is QUANTUM
        else Ed25519PrivateKey.from_private_bytes(b"x" * 32)
    )
    return Signer(signer.name, other, signer.cosigner).key


@pytest.mark.parametrize("signer", SIGNERS.values(), ids=SIGNERS)
def test_a_foreign_key_of_the_same_name(signer: Signer) -> None:
    assert not noted(signer).signed_by(foreign(signer))


@pytest.mark.parametrize("signer", SIGNERS.values(), ids=SIGNERS)
def test_a_foreign_signature_under_our_id(signer: Signer) -> None:
    """Four bytes of an id are soon found again; the signature is what counts."""
    (line,) = noted(signer).signatures
    stolen = NoteSignature(line.name, foreign(signer).id + line.blob[4:])
    with pytest.raises(AuditError, match="does not hold"):
        stolen.verify(foreign(signer), TEXT)
    with pytest.raises(AuditError, match="does not hold"):
        Note(TEXT, (line, NoteSignature(line.name, line.blob[:4] + bytes(len(line.blob) - 4)))).signed_by(signer.key)


def test_signatures_of_one_key_for_two_things_are_not_exchanged() -> None:
    """A log's key used as a witness's: neither signature stands for the other."""
    as_log, as_witness = Signer("a", WITNESS.private), Signer("a", WITNESS.private, cosigner=True)
    for signer, other in ((as_log, as_witness), (as_witness, as_log)):
        note = noted(signer)
        assert not note.signed_by(other.key)
        moved = NoteSignature("a", other.key.id + note.signatures[0].blob[4:])
        with pytest.raises(AuditError, match="does not hold"):
            moved.verify(other.key, TEXT)


@pytest.mark.parametrize("signer", [WITNESS, QUANTUM], ids=["cosigner", "ML-DSA-44"])
def test_a_time_past_what_fits(signer: Signer) -> None:
    (line,) = noted(signer).signatures
    late = NoteSignature(line.name, line.blob[:4] + (1 << 63).to_bytes(8) + line.blob[12:])
    with pytest.raises(AuditError, match="does not hold"):
        late.verify(signer.key, TEXT)
    with pytest.raises(OverflowError, match="beyond 2\\^63"):
        signer.sign(TEXT, 1 << 63)
    with pytest.raises(OverflowError):
        signer.sign(TEXT, -1)
    assert Note(TEXT, (signer.sign(TEXT, (1 << 63) - 1),)).signed_by(signer.key)


@pytest.mark.parametrize("length", [0, 4, 8, 12, 63, 65, 2420])
@pytest.mark.parametrize("signer", SIGNERS.values(), ids=SIGNERS)
def test_a_signature_of_another_length(signer: Signer, length: int) -> None:
    (line,) = noted(signer).signatures
    with pytest.raises(AuditError, match="does not hold"):
        NoteSignature(line.name, (line.blob[:4] + bytes(3000))[: 4 + length]).verify(signer.key, TEXT)


NO_CHECKPOINTS = {
    "one line": "testudo\n",
    "two lines": "testudo\n3\n",
    "no origin": TEXT.removeprefix("testudo/shops/1"),
    "size in other digits": TEXT.replace("41", "٤١"),
    "size with a sign": TEXT.replace("41", "+41"),
    "size below 0": TEXT.replace("41", "-41"),
    "size with spaces": TEXT.replace("41", " 41 "),
    "size with a low line": TEXT.replace("41", "4_1"),
    "size past 2^64": TEXT.replace("41", "9" * 20),
    "size of 5000 digits": TEXT.replace("41", "9" * 5000),
    "root of 31 bytes": TEXT.replace("Hh8=", "Hg=="),
    "root not base64": TEXT.replace("AAEC", "A*EC"),
    "origin of 256 bytes": TEXT.replace("/shops", "/" + "s" * 249),
}


@pytest.mark.parametrize("text", NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS)
def test_ml_dsa_signs_checkpoints_alone(text: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        QUANTUM.sign(text, TIME)
    with pytest.raises(AuditError, match="does not hold"):
        Note(text, noted(QUANTUM).signatures).signed_by(QUANTUM.key)


def test_ml_dsa_name_that_is_too_long() -> None:
    with pytest.raises(ValueError, match="range"):
        Signer("s" * 256, QUANTUM.private).sign(TEXT, TIME)


# --- several signatures


def test_lines_of_strangers_are_passed_over() -> None:
    stranger = NoteSignature("stranger", b"\x00" * 70)
    note = Note(TEXT, (stranger, *noted(LOG, WITNESS).signatures, stranger))
    assert note.signed_by(LOG.key)
    assert note.signed_by(WITNESS.key)
    assert not note.signed_by(QUANTUM.key)


def test_further_signatures_are_added_once() -> None:
    note = noted(LOG)
    line = WITNESS.sign(TEXT, TIME)
    more = note.with_signatures([line, *note.signatures, line])
    assert more == noted(LOG, WITNESS)
    assert more.with_signatures([line]) == more
    later = WITNESS.sign(TEXT, TIME + 1)
    assert more.with_signatures([later]).signatures == (*more.signatures, later)


# --- bytes that are no note

GOOD = noted(LOG, WITNESS).encode()
LINE = LOG.sign(TEXT, TIME).line()
NO_NOTES: dict[str, bytes] = {
    "no bytes": b"",
    "a text alone": TEXT.encode(),
    "no signature": TEXT.encode() + b"\n",
    "no text": b"\n" + LINE.encode(),
    "no empty line": TEXT.encode() + LINE.encode(),
    "empty text": b"\n\n" + LINE.encode(),
    "no newline at the end": GOOD[:-1],
    "further newline at the end": GOOD + b"\n",
    "a tab": GOOD.replace(b"testudo/shops/1", b"testudo\tshops/1"),
    "a carriage return": GOOD.replace(b"\n41", b"\r\n41"),
    "a zero": GOOD.replace(b"41", b"4\0"),
    "an escape": GOOD.replace(b"41", b"\x1b[2J"),
    "not UTF-8": GOOD.replace(b"41", b"\xff\xfe"),
    "a surrogate": GOOD.replace(b"41", b"\xed\xa0\x80"),
    "a hyphen for the dash": GOOD.replace("— ".encode(), b"- "),
    "no space after the dash": GOOD.replace("— ".encode(), "—".encode()),
    "no space after the name": GOOD.replace(b"shop-1 ", b"shop-1"),
    "a name with a plus sign": GOOD.replace(b"shop-1 ", b"shop+1 "),
    "a name with a space": GOOD.replace(b"shop-1 ", "shop\u00a01 ".encode()),
    "no name": GOOD.replace(b"shop-1 ", b" "),
    "an invisible name": GOOD.replace(b"shop-1 ", "shop\u202e1 ".encode()),
    "base64 with a space": GOOD[:-9] + b" " + GOOD[-9:],
    "base64 without its end": GOOD.replace(b"=", b""),
    "base64 with further ends": GOOD[:-1] + b"==\n",
    "base64 with bits left over": GOOD[:-4] + bytes([GOOD[-4] + 1]) + GOOD[-3:],
    "base64 of URLs": GOOD.replace(b"+", b"-").replace(b"/", b"_"),
    "base64 of other letters": GOOD[:-9] + "é".encode() + GOOD[-9:],
    "an id alone": TEXT.encode() + b"\n" + "— shop-1 AAAAAA==\n".encode(),
    "less than an id": TEXT.encode() + b"\n" + "— shop-1 AAAA\n".encode(),
    "too long": GOOD + b"x" * MAX_NOTE_BYTES,
}


@pytest.mark.parametrize("data", NO_NOTES.values(), ids=NO_NOTES)
def test_no_note(data: bytes) -> None:
    assert parse_note(GOOD).encode() == GOOD, "otherwise a case could fail for another reason"
    with pytest.raises(AuditError) as refused:
        parse_note(data)
    assert refused.value.fault is AuditFault.FORMAT


def test_a_line_alone() -> None:
    assert parse_line(LINE) == parse_line(LINE.removesuffix("\n")) == LOG.sign(TEXT, TIME)
    for bad in ("", "\n", "— ", LINE + "\n", LINE + LINE, " " + LINE):
        with pytest.raises(AuditError):
            parse_line(bad)


# --- keys


VKEY = LOG.key.vkey()
NO_KEYS: dict[str, str] = {
    "empty": "",
    "a name alone": "testudo/shops",
    "no key": "testudo/shops+01234567",
    "key of no bytes": "testudo/shops+01234567+",
    "another id": VKEY.replace(LOG.key.id.hex(), "00000000"),
    "id in capitals": VKEY.replace(LOG.key.id.hex(), LOG.key.id.hex().upper()),
    "id with spaces": VKEY.replace(LOG.key.id.hex(), " ".join([LOG.key.id.hex()[:2], LOG.key.id.hex()[2:]])),
    "another name": VKEY.replace("shops", "shop"),
    "one bit of the key": VKEY[:-2] + chr(ord(VKEY[-2]) ^ 1) + VKEY[-1],
    "kind 2": f"a+01234567+{base64.b64encode(bytes([2]) + LOG.key.raw).decode()}",
    "31 bytes": f"a+01234567+{base64.b64encode(bytes([1]) + LOG.key.raw[1:]).decode()}",
    "33 bytes": f"a+01234567+{base64.b64encode(bytes([1, 1]) + LOG.key.raw).decode()}",
    "Ed25519 for ML-DSA-44": f"a+01234567+{base64.b64encode(bytes([6]) + LOG.key.raw).decode()}",
    "not base64": "a+01234567+THIS_IS_NOT_BASE64!",
    "a name with a space": "a b" + VKEY.removeprefix("testudo/shops"),
    "no name": VKEY.removeprefix("testudo/shops"),
    "surrogate": "a+01234567+\ud800",
}


@pytest.mark.parametrize("text", NO_KEYS.values(), ids=NO_KEYS)
def test_no_key(text: str) -> None:
    with pytest.raises(AuditError) as refused:
        parse_vkey(text)
    assert refused.value.fault is AuditFault.FORMAT


def test_a_key_of_two_lines_ends() -> None:
    assert parse_vkey(f" {VKEY}\n") == LOG.key


@pytest.mark.parametrize("name", ["", " ", "a b", "a+b", "a\tb", "a\nb", "a\u2003b", "a\u200bb", "a\ud800", "\x7f"])
def test_no_name_of_a_key(name: str) -> None:
    assert not is_key_name(name)
    with pytest.raises(AuditError, match="no key may be called"):
        NoteKey(name, KeyKind.ED25519, bytes(32))


def test_a_long_name_is_not_repeated() -> None:
    with pytest.raises(AuditError) as refused:
        NoteKey("a" * 10_000 + " ", KeyKind.ED25519, bytes(32))
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("data", [b"\xff" * 32, b"\x02" + bytes(31)], ids=["not canonical", "not on the curve"])
def test_a_key_that_is_no_point_verifies_nothing(data: bytes) -> None:
    key = NoteKey("a", KeyKind.ED25519, data)
    with pytest.raises(AuditError, match="does not hold"):
        NoteSignature("a", key.id + bytes(64)).verify(key, TEXT)
