"""Witnesses of simulated owners: in memory they forget everything at a restart, and recall it from the server's log."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit_logs import AuditLogBuilder, audited_plan
from testudo_client.ledger import Ledger, Occasion, Purpose
from testudo_client.membership import Membership
from testudo_common.audit.extension import decode_testimony, encode_extension
from testudo_common.audit.log import AuditLog
from testudo_common.audit.notes import parse_line, parse_note
from testudo_common.audit.statements import Contribution, parse_statement
from testudo_common.errors import AuditError, AuditFault
from testudo_common.privacy.events import Spending
from testudo_common.wire import LogUpdate
from testudo_simulations.witnesses import SimulatedWitness, recalled_from

PLAN = audited_plan("rounds.cohort_size=8")
ADA = "owner-00"


def witness_of(
    built: AuditLogBuilder, ledger: Ledger, folder: Path | None = None, log: Path | None = None
) -> SimulatedWitness:
    membership = Membership(built.keys[ADA], built.roster(), built.federation_public)
    recalled = None if log is None else recalled_from(log).get(ADA)
    return SimulatedWitness(ADA, built.plan, membership, ledger, folder, recalled)


def update_of(built: AuditLogBuilder, first: int = 0) -> LogUpdate:
    return LogUpdate(built.plan.digest, 1, 0, first, encode_extension(built.entries[first:], built.note()))


def a_round(built: AuditLogBuilder, witness: SimulatedWitness, ledger: Ledger) -> None:
    """One round, in which the witness signs for its owner's update."""
    built.open()
    number, digest = len(ledger), "ab" * 32
    ledger.reserve(
        Occasion(built.plan.digest, number, 0, Purpose.TRAINING),
        plan_name="small",
        fingerprint="cd" * 32,
        spending=Spending((), ()),
        ceilings=(),
    )
    opened = built.history.opened
    assert opened is not None
    text = witness.statement(opened[1].round, 0, opened[1].model_digest, digest)
    statement = parse_statement(text)
    assert isinstance(statement, Contribution)
    for owner in opened[1].cohort:
        built.receive(owner, statement if owner == ADA else None)
    built.close()


def kept(built: AuditLogBuilder, path: Path) -> Path:
    log = AuditLog(path, durable=False)
    log.append(built.entries)
    log.close()
    return path


def test_witness_approves_cosigns_and_is_timed() -> None:
    built = AuditLogBuilder(PLAN, enrol=False)
    built.charter()
    built.enrol()
    witness = witness_of(built, Ledger(None))
    assert witness.cpu_seconds == 0
    answer = witness.answer(update_of(built))
    testimony = decode_testimony(answer.body)
    assert [statement.type for statement in testimony.statements] == ["approval"]
    parse_line(testimony.cosignature).verify(built.watch.witnesses[ADA], parse_note(built.note()).text)
    assert 0 < witness.cpu_seconds < 5


def test_witness_in_memory_asks_for_everything_after_a_restart(tmp_path: Path) -> None:
    built, ledger = AuditLogBuilder(PLAN), Ledger(None)
    first = witness_of(built, ledger)
    assert first.answer(update_of(built)).size == 10
    a_round(built, first, ledger)
    size = len(built.entries)
    assert first.answer(update_of(built, 10)).size == size
    path = kept(built, tmp_path / "audit.db")

    forgetful = witness_of(built, ledger)
    asks = forgetful.answer(update_of(built, 10))
    assert (asks.size, asks.body) == (0, b"")
    with pytest.raises(AuditError, match="you did not make") as caught:
        forgetful.answer(update_of(built))
    assert caught.value.fault is AuditFault.CONTRIBUTION

    again = witness_of(built, ledger, log=path)
    assert again.answer(update_of(built, 10)).size == 0
    answer = again.answer(update_of(built))
    assert (answer.size, bool(answer.body)) == (size, True)


def test_forged_contribution_is_found_after_a_restart_too(tmp_path: Path) -> None:
    """What is recalled is what the log said at the restart; what comes later has to be the owner's own again."""
    built, ledger = AuditLogBuilder(PLAN), Ledger(None)
    a_round(built, witness_of(built, ledger), ledger)
    again = witness_of(built, ledger, log=kept(built, tmp_path / "audit.db"))
    again.answer(update_of(built))
    size = len(built.entries)
    built.open()
    built.receive(ADA, ledger=ledger.entries()[-1].hash.hex())
    with pytest.raises(AuditError, match="you did not make"):
        again.answer(update_of(built, size))


def test_witness_with_a_folder_needs_no_recall(tmp_path: Path) -> None:
    built, ledger = AuditLogBuilder(PLAN), Ledger(None)
    first = witness_of(built, ledger, tmp_path)
    a_round(built, first, ledger)
    first.answer(update_of(built))
    again = witness_of(built, ledger, tmp_path)
    assert again.answer(update_of(built, len(built.entries))).body
    assert list((tmp_path / "receipts").rglob("*.tlog-proof"))


def test_nothing_is_recalled_where_nothing_was(tmp_path: Path) -> None:
    assert recalled_from(tmp_path / "none.db") == {}
    built = AuditLogBuilder(PLAN)
    built.round()
    found = recalled_from(kept(built, tmp_path / "audit.db"))
    assert sorted(found) == list(built.owners)
    (((number, attempt), signed),) = found[ADA].items()
    assert (number, attempt) == (1, 0)
    assert signed.statements[0].client == ADA
