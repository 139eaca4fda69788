"""Checkpoints, who may sign and cosign them, and how many witnesses it takes."""

from __future__ import annotations

import base64

import pytest

from audit_logs import AuditLogBuilder, audited_plan, key_called, ml_dsa_key_called
from testudo_common.audit.checkpoints import (
    Checkpoint,
    colluders_found,
    cosigners_of,
    default_quorum,
    open_checkpoint,
    parse_checkpoint,
    watch_of,
    witness_name,
)
from testudo_common.audit.notes import KeyKind, Note, NoteSignature, Signer, parse_note
from testudo_common.errors import AuditError, AuditFault
from testudo_common.roster import Roster
from vectors import signed_notes

ROOT = bytes(range(32))
ENCODED = base64.b64encode(ROOT).decode()
TEXT = f"testudo/shops/3f0a77c21be94d50\n41\n{ENCODED}\n"
LOG = AuditLogBuilder(audited_plan(), 4)
NOTE = LOG.note()


def test_there_and_back() -> None:
    checkpoint = Checkpoint("testudo/shops/3f0a77c21be94d50", 41, ROOT)
    assert checkpoint.text() == TEXT
    assert parse_checkpoint(TEXT) == checkpoint


def test_published_checkpoint() -> None:
    checkpoint = parse_checkpoint(signed_notes.SOFA_TEXT)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.root == base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
    assert checkpoint.text() == signed_notes.SOFA_TEXT


NO_CHECKPOINTS = {
    "empty": "",
    "one line": "testudo\n",
    "two lines": "testudo\n41\n",
    "no origin": TEXT.removeprefix("testudo/shops/3f0a77c21be94d50"),
    "no newline at the end": TEXT[:-1],
    "an extension line": TEXT + "more\n",
    "an empty extension line": TEXT + "\n",
    "size with a zero before": TEXT.replace("\n41\n", "\n041\n"),
    "size with a sign": TEXT.replace("\n41\n", "\n+41\n"),
    "size below 0": TEXT.replace("\n41\n", "\n-1\n"),
    "size in other digits": TEXT.replace("\n41\n", "\n٤١\n"),
    "size of 19 digits": TEXT.replace("\n41\n", f"\n{10**18}\n"),
    "size of 5000 digits": TEXT.replace("\n41\n", f"\n{'9' * 5000}\n"),
    "size in hexadecimal": TEXT.replace("\n41\n", "\n0x29\n"),
    "size with a fraction": TEXT.replace("\n41\n", "\n41.0\n"),
    "no size": TEXT.replace("\n41\n", "\n\n"),
    "root of 31 bytes": TEXT.replace(ENCODED, base64.b64encode(ROOT[1:]).decode()),
    "root of 33 bytes": TEXT.replace(ENCODED, base64.b64encode(ROOT + b"\0").decode()),
    "root with bits left over": TEXT.replace("Hh8=", "Hh9="),
    "root without its end": TEXT.replace("Hh8=", "Hh8"),
    "root of other letters": TEXT.replace("Hh8=", "Hé8="),
    "root in hexadecimal": TEXT.replace(ENCODED, ROOT.hex()),
    "a carriage return": TEXT.replace("41\n", "41\r\n"),
}


@pytest.mark.parametrize("text", NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS)
def test_no_checkpoint(text: str) -> None:
    with pytest.raises(AuditError, match="not a checkpoint") as refused:
        parse_checkpoint(text)
    assert refused.value.fault is AuditFault.FORMAT


# --- whose signatures count


def test_watch_is_what_the_roster_says() -> None:
    roster = LOG.roster()
    watch = watch_of(roster, LOG.plan.digest)
    assert watch.origin == f"testudo/shops/{LOG.plan.digest[:16]}"
    assert (watch.log.name, watch.log.kind, watch.log.raw) == ("testudo/shops", KeyKind.ED25519, roster.log[1:])
    assert set(watch.witnesses) == set(roster.members)
    for client, key in watch.witnesses.items():
        assert (key.name, key.kind, key.raw) == (client, KeyKind.ED25519_COSIGNER, roster.members[client])


def test_names_with_spaces_and_signs_are_names_of_keys() -> None:
    names = ["a b", "a+b", "zoë", "a/b", "a%20b", "testudo/shops"]
    members = {name: key_called(name).public_key().public_bytes_raw() for name in names}
    watch = watch_of(Roster("the shops+", members, LOG.log_public), "ab" * 32)
    assert watch.log.name == "testudo/the%20shops%2B"
    assert witness_name("a b") == "a%20b"
    used = {watch.log.name, *(key.name for key in watch.witnesses.values())}
    assert len(used) == len(names) + 1, "no two keys have one name"


def test_a_roster_without_a_log_is_not_enough() -> None:
    with pytest.raises(AuditError, match="shops: the roster names no key of an audit log") as refused:
        watch_of(Roster("shops", {}), "ab" * 32)
    assert refused.value.fault is AuditFault.ENROLMENT
    assert "testudo-server init" in refused.value.remedy


@pytest.mark.parametrize("key", [None, ml_dsa_key_called("log")], ids=["Ed25519", "ML-DSA-44"])
def test_a_checkpoint_of_the_log_is_opened(key) -> None:  # type: ignore[no-untyped-def]
    log = AuditLogBuilder(audited_plan(), 4, log_key=key)
    checkpoint, note = open_checkpoint(log.note(3), log.watch)
    assert checkpoint == Checkpoint(log.watch.origin, 3, log.root(3))
    assert cosigners_of(note, log.watch) == set(log.owners)


def refused_note(data: bytes) -> AuditError:
    with pytest.raises(AuditError) as refused:
        open_checkpoint(data, LOG.watch)
    return refused.value


def test_a_checkpoint_that_a_foreign_key_signed() -> None:
    error = refused_note(LOG.note(log_key=key_called("another log")))
    assert (error.fault, error.where) == (AuditFault.SIGNATURE, LOG.watch.origin)
    assert "that the log did not sign" in error.problem


def test_a_checkpoint_that_only_witnesses_signed() -> None:
    note = parse_note(NOTE)
    assert refused_note(Note(note.text, note.signatures[1:]).encode()).fault is AuditFault.SIGNATURE


def test_a_checkpoint_signed_by_the_logs_key_under_another_name() -> None:
    note = parse_note(NOTE)
    line = Signer("testudo/banks", LOG.log_key).sign(note.text, 0)
    assert refused_note(Note(note.text, (line,)).encode()).fault is AuditFault.SIGNATURE


def test_a_checkpoint_of_another_plan() -> None:
    other = AuditLogBuilder(audited_plan("seed=1"), 4)
    error = refused_note(other.note())
    assert (error.fault, error.where) == (AuditFault.SIGNATURE, LOG.watch.origin)
    assert f"another log, '{other.watch.origin}'" in error.problem


def test_what_anybody_can_write_is_not_shown_as_it_is() -> None:
    """An origin could steer a terminal, or fill it."""
    text = Checkpoint("\x9b2J\x7f\u202e" + "x" * 5000, 1, ROOT).text()
    error = refused_note(Note(text, parse_note(NOTE).signatures).encode())
    assert str(error).isprintable()
    assert len(str(error)) < 300


def test_a_checkpoint_with_a_line_that_we_do_not_know() -> None:
    note = parse_note(NOTE)
    text = note.text + "more\n"
    signed = Note(text, (Signer(LOG.watch.log.name, LOG.log_key).sign(text, 0),))
    assert refused_note(signed.encode()).fault is AuditFault.FORMAT


# --- who cosigned


def test_only_those_who_cosigned() -> None:
    note = parse_note(LOG.note(cosigners=["owner-01", "owner-03"]))
    assert cosigners_of(note, LOG.watch) == {"owner-01", "owner-03"}


def test_strangers_do_not_count() -> None:
    note = parse_note(LOG.note(cosigners=["owner-01"]))
    eve = Signer("eve", key_called("eve"), cosigner=True).sign(note.text, 1)
    as_owner = Signer("owner-02", key_called("eve"), cosigner=True).sign(note.text, 1)
    assert cosigners_of(note.with_signatures([eve, as_owner]), LOG.watch) == {"owner-01"}


def test_one_witness_counts_once() -> None:
    note = parse_note(LOG.note(cosigners=["owner-01"]))
    again = Signer("owner-01", LOG.keys["owner-01"], cosigner=True).sign(note.text, 7)
    assert cosigners_of(note.with_signatures([again]), LOG.watch) == {"owner-01"}


def test_a_plain_signature_of_a_witness_is_no_cosignature() -> None:
    note = parse_note(LOG.note(cosigners=[]))
    plain = Signer("owner-01", LOG.keys["owner-01"]).sign(note.text, 1)
    assert cosigners_of(note.with_signatures([plain]), LOG.watch) == frozenset()


def test_a_cosignature_of_another_checkpoint_is_refused() -> None:
    note = parse_note(LOG.note(cosigners=["owner-01"]))
    line = parse_note(LOG.note(2, ["owner-02"])).signatures[1]
    with pytest.raises(AuditError, match="the signature of owner-02 does not hold") as refused:
        cosigners_of(note.with_signatures([line]), LOG.watch)
    assert refused.value.fault is AuditFault.SIGNATURE


def test_a_good_line_does_not_hide_a_bad_one() -> None:
    note = parse_note(LOG.note(cosigners=["owner-01"]))
    line = note.signatures[1]
    bad = NoteSignature(line.name, line.blob[:-1] + bytes([line.blob[-1] ^ 1]))
    for lines in ((line, bad), (bad, line)):
        with pytest.raises(AuditError, match="owner-01"):
            cosigners_of(Note(note.text, (note.signatures[0], *lines)), LOG.watch)


def test_many_witnesses_are_no_quadratic_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is looked at for the witness of its name alone."""
    log = AuditLogBuilder(audited_plan(), 60, enrol=False)
    note = parse_note(log.note())
    asked = []
    is_by = NoteSignature.is_by
    monkeypatch.setattr(NoteSignature, "is_by", lambda line, key: asked.append(key) or is_by(line, key))  # type: ignore[func-returns-value]
    assert len(cosigners_of(note, log.watch)) == 60
    assert len(asked) == 60


# --- how many


@pytest.mark.parametrize(
    ("witnesses", "quorum", "found"),
    [(1, 1, 0), (2, 2, 1), (3, 3, 2), (4, 3, 1), (5, 4, 2), (6, 5, 3), (8, 6, 3), (20, 14, 7), (100, 67, 33)],
)
def test_default_quorum(witnesses: int, quorum: int, found: int) -> None:
    assert default_quorum(witnesses) == quorum
    assert colluders_found(witnesses, quorum) == found


@pytest.mark.parametrize("witnesses", range(1, 13))
def test_two_histories_need_as_many_colluders_as_is_said(witnesses: int) -> None:
    """Counted: f witnesses sign both histories, each of the others one of them."""
    for quorum in range(1, witnesses + 1):
        splits = [
            colluders
            for colluders in range(witnesses + 1)
            for left in range(witnesses - colluders + 1)
            if left + colluders >= quorum and witnesses - left >= quorum
        ]
        assert max(colluders_found(witnesses, quorum), -1) == min(splits) - 1
