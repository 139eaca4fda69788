"""An owner as a witness: what it takes in, cosigns, asks for, says, and keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from audit_logs import AuditLogBuilder, audited_plan, ml_dsa_key_called
from testudo_client.ledger import Ledger, Withdrawn
from testudo_client.membership import Membership
from testudo_client.own_voice import ConsentingVoice, Decision
from testudo_client.witness import Witness
from testudo_common.audit.checkpoints import cosigners_of, open_checkpoint
from testudo_common.audit.extension import decode_testimony
from testudo_common.audit.notes import parse_line
from testudo_common.audit.receipts import decode_receipt, verify_receipt
from testudo_common.audit.statements import Approval, Withdrawal, commitment_to, verify_statement
from testudo_common.errors import AuditError, AuditFault, RosterError, UsageError
from watching import ME, UPDATE, Watching

ONE_ROUND = audited_plan("rounds.cohort_size=5")


class Voice(ConsentingVoice):
    """An owner that decides what a test says."""

    decided: Decision | None = None

    def decision(self) -> Decision | None:
        return self.decided


@pytest.fixture
def watching() -> Watching:
    return Watching()


def test_whole_log_is_mirrored_and_cosigned(watching: Watching) -> None:
    testimony = watching.testimony()
    checkpoint, note = open_checkpoint(watching.log.note(cosigners=()), watching.log.watch)
    cosigned = note.with_signatures([parse_line(testimony.cosignature)])
    assert checkpoint.size == watching.size == len(watching.log.entries)
    assert cosigners_of(cosigned, watching.log.watch) == {ME}


def test_what_is_new_is_taken_in_step_by_step(watching: Watching) -> None:
    watching.tell(size=2)
    assert watching.size == 2
    watching.tell(size=4)
    watching.log_round()
    assert watching.testimony().cosignature
    assert watching.witness._mirror.state.history == watching.log.history


def test_one_that_lacks_earlier_entries_says_from_where(watching: Watching) -> None:
    watching.tell(size=3)
    watching.log_round()
    answer = watching.tell(5)
    assert (answer.size, answer.body) == (3, b"")
    assert watching.size == 3
    assert watching.tell(3).size == len(watching.log.entries)


def test_log_whose_key_is_of_ml_dsa(tmp_path: Path) -> None:
    log = AuditLogBuilder(ONE_ROUND, 5, log_key=ml_dsa_key_called("log"))
    watching = Watching(ONE_ROUND, tmp_path, log=log)
    watching.round()
    watching.tell(cosigned=log.note())
    kept = decode_receipt(watching.files.receipt(1, 0).read_bytes())
    assert verify_receipt(kept, log.watch, quorum=4)[1] == set(log.owners)


def test_what_it_has_already_may_be_sent_again(watching: Watching) -> None:
    first = watching.testimony()
    assert watching.testimony(first=0) == first  # by the same clock
    assert watching.testimony(first=3) == first
    watching.log_round()
    assert watching.testimony(first=2).cosignature != first.cosignature


def test_nothing_new_is_cosigned_as_well(watching: Watching) -> None:
    assert watching.testimony() == watching.testimony()


def test_asked_under_a_quorum_it_finds_nothing_wrong(watching: Watching) -> None:
    watching.log.open()
    watching.tell()
    watching.witness.check(watching.request())


def test_approval_is_said_until_the_log_has_it() -> None:
    plan = audited_plan()
    log = AuditLogBuilder(plan, 5, enrol=False)
    log.charter()
    log.enrol()
    watching = Watching(plan, log=log)
    (said,) = watching.testimony().statements
    assert isinstance(said, Approval) and said.number == 0
    verify_statement(said, log.roster().members[ME], plan.digest)
    assert watching.testimony().statements == (said,)
    log.approve(ME)
    assert watching.testimony().statements == ()


def test_owner_that_never_approved_cosigns_and_says_nothing() -> None:
    voice = Voice(Ledger(None))
    watching = Watching(voice=voice)
    assert watching.testimony().cosignature
    assert watching.testimony().statements == ()


def test_withdrawal_is_said_once_it_is_decided_and_the_owner_goes_on_to_cosign() -> None:
    watching = Watching(voice=(voice := Voice(Ledger(None))))
    voice.decided = Decision(approves=True, number=0)
    assert watching.testimony().statements == ()
    voice.decided = Decision(approves=False, number=1)
    testimony = watching.testimony()
    (said,) = testimony.statements
    assert testimony.cosignature and isinstance(said, Withdrawal) and said.number == 1
    verify_statement(said, watching.log.roster().members[ME], watching.plan.digest)


def test_number_of_a_decision_is_above_those_in_the_log() -> None:
    """Whose ledger was begun anew counts from 0 again, and its word must outdo what it said before."""
    log = AuditLogBuilder(audited_plan(), 5)
    log.withdraw(ME, 6)
    watching = Watching(log=log, voice=(voice := Voice(Ledger(None))))
    voice.decided = Decision(approves=True, number=0)
    watching.ledger.append(Withdrawn(watching.plan.digest, ME, "00"))
    voice._ledger = watching.ledger
    (said,) = watching.testimony().statements
    assert (type(said), said.number) == (Approval, 7)
    log.approve(ME, 7)
    assert watching.testimony().statements == ()


def test_statement_commits_to_the_update_and_names_the_ledger(watching: Watching) -> None:
    watching.log.open()
    watching.tell()
    statement = watching.contribute()
    salt = watching.witness._record.salt(1, 0)
    assert salt is not None and len(salt) == 32
    assert statement.commitment == commitment_to(salt, UPDATE)
    assert statement.ledger == watching.ledger.head.hex()
    verify_statement(statement, watching.log.roster().members[ME], watching.plan.digest)
    assert watching.testimony().cosignature


def test_retry_says_the_same_and_another_update_says_another(watching: Watching) -> None:
    watching.charge(1)
    first = watching.witness.statement(1, 0, "ab" * 32, UPDATE)
    watching.charge(1)  # the ledger has grown in between
    assert watching.witness.statement(1, 0, "ab" * 32, UPDATE) == first
    assert watching.witness.statement(1, 1, "ab" * 32, UPDATE) != first
    other = watching.witness.statement(1, 0, "ab" * 32, "cd" * 32)
    assert other != first
    signed = watching.witness._record.signed(1, 0)
    assert signed is not None and len(signed.statements) == 2


def test_either_of_two_statements_of_one_attempt_may_be_logged(watching: Watching) -> None:
    watching.log.open()
    watching.tell()
    watching.contribute()
    watching.witness.statement(1, 0, "ab" * 32, "cd" * 32)
    assert watching.testimony().cosignature


def test_receipt_once_a_quorum_has_cosigned(tmp_path: Path) -> None:
    watching = Watching(ONE_ROUND, tmp_path)
    watching.round()
    receipt = watching.files.receipt(1, 0)
    assert not receipt.exists()
    watching.tell(cosigned=watching.log.note(cosigners=watching.log.owners[:3]))
    assert not receipt.exists(), "three of five are no quorum of four"
    watching.tell(cosigned=watching.log.note(cosigners=watching.log.owners[:4]))
    kept = decode_receipt(receipt.read_bytes())
    _, cosigners = verify_receipt(kept, watching.log.watch, quorum=4)
    assert cosigners == set(watching.log.owners[:4])
    assert ME.encode() in kept.entry
    assert (receipt.stat().st_mode & 0o777, receipt.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert watching.witness.receipts() == {(1, 0): receipt.read_bytes()}


def test_cosignatures_that_come_one_by_one_add_up(tmp_path: Path) -> None:
    watching = Watching(ONE_ROUND, tmp_path)
    watching.round()
    for owner in watching.log.owners[:4]:
        assert not watching.files.receipt(1, 0).exists()
        watching.tell(cosigned=watching.log.note(cosigners=[owner]))
    assert watching.files.receipt(1, 0).exists()


def test_lines_of_unknown_keys_are_not_kept(tmp_path: Path) -> None:
    watching = Watching(ONE_ROUND, tmp_path)
    note = watching.log.note(cosigners=[])
    line = note.decode().splitlines()[-1]
    name, blob = line.split(" ")[1:]
    flooded = note + f"— {name}x {blob}\n".encode() * 50
    watching.tell(note=flooded)
    with watching.witness._mirror.held():
        assert watching.witness._mirror.log.latest_note() == note


def test_in_memory_there_is_a_receipt_for_whoever_asks() -> None:
    watching = Watching(ONE_ROUND)
    watching.round()
    assert watching.witness.receipts() == {}
    watching.tell(cosigned=watching.log.note())
    assert list(watching.witness.receipts()) == [(1, 0)]


def test_salt_is_private_and_nobody_else_needs_it(tmp_path: Path) -> None:
    watching = Watching(ONE_ROUND, tmp_path)
    watching.round()
    salt = watching.files.salt(1, 0)
    assert (salt.stat().st_mode & 0o777, salt.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    salt.unlink()
    watching.begun_anew()
    watching.round()
    assert watching.testimony(cosigned=watching.log.note()).cosignature
    assert watching.files.receipt(1, 0).exists() and watching.files.receipt(2, 0).exists()
    signed = json.loads(watching.files.contribution(1, 0).read_text())
    assert set(signed) == {"model_digest", "statements"}
    assert UPDATE not in watching.files.contribution(1, 0).read_text()


def test_membership_without_the_federations_key() -> None:
    log = AuditLogBuilder(audited_plan(), 5)
    with pytest.raises(UsageError, match="federation's key is not known"):
        Witness(ME, log.plan, Membership(log.keys[ME], log.roster()), ConsentingVoice(Ledger(None)))


def test_foreign_key_of_the_owner() -> None:
    log = AuditLogBuilder(audited_plan(), 5)
    membership = Membership(log.keys["owner-01"], log.roster(), log.federation_public)
    with pytest.raises(RosterError, match="another key"):
        Witness(ME, log.plan, membership, ConsentingVoice(Ledger(None)))


def test_message_that_is_no_extension(watching: Watching) -> None:
    with pytest.raises(AuditError) as caught:
        watching.witness.answer(replace(watching.update(), body=b"hello"))
    assert caught.value.fault is AuditFault.FORMAT
    assert watching.testimony().cosignature, "it proves nothing, and stops nobody"


def test_empty_update_of_the_runs_end_carries_the_last_cosignatures(tmp_path: Path) -> None:
    watching = Watching(ONE_ROUND, tmp_path)
    watching.round()
    answer = watching.tell(entries=(), cosigned=watching.log.note())
    assert decode_testimony(answer.body).cosignature
    assert watching.files.receipt(1, 0).exists()
