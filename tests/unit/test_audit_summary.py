"""What a report says of a log, and the files that are kept of it: from logs made by hand, right and wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit_logs import SECURE, AuditLogBuilder, audited_plan
from testudo_common.audit.entries import IncidentKind, Reason
from testudo_common.audit.log import AuditLog
from testudo_common.audit.receipts import decode_receipt, verify_receipt
from testudo_simulations.audit_summary import Logged, folder_of, keep_receipts

QUORUM = 6  # of eight


def kept(built: AuditLogBuilder, *notes: bytes) -> Logged:
    """The log in memory, with these checkpoints."""
    log = AuditLog(None)
    log.append(built.entries)
    for note in notes:
        log.keep_note(note)
    return Logged.of(log, built.roster(), built.plan.digest, QUORUM)


def two_rounds() -> AuditLogBuilder:
    built = AuditLogBuilder(audited_plan("rounds.count=4", tables=SECURE))
    built.round()
    built.incident(IncidentKind.RESUMED, "from round 1")
    built.round(silent=["owner-00"])
    return built


def test_log_is_counted() -> None:
    logged = kept(two_rounds())
    assert [entry.round for entry in logged.closed()] == [1, 2]
    assert logged.incidents() == [(22, "resumed", "from round 1")]
    assert logged.cosigners() == [0, 0], "no checkpoint is kept"
    assert logged.updates_of("owner-01") == [(1, 13), (2, 25)]
    assert logged.updates_of("owner-00") == [(1, 12)]


def test_cosigners_are_those_of_the_rounds_own_checkpoint() -> None:
    built = two_rounds()
    sizes = (11, 21, 25, len(built.entries))  # round 1 opened at 10, closed; round 2 opened at 24, closed
    counts = (8, 2, 7, 3)
    notes = [built.note(size, built.owners[:count]) for size, count in zip(sizes, counts, strict=True)]
    assert kept(built, *notes).cosigners() == [8, 7]


def test_client_asked_most_often_of_whom_most_was_received() -> None:
    built = two_rounds()
    assert kept(built).busiest() == "owner-01", "all were asked twice, and the first was silent once"
    alone = AuditLogBuilder(audited_plan("rounds.count=4"))  # two of eight a round
    alone.rounds(3)
    alone.open(cohort=("owner-02", "owner-07"))
    alone.open(cohort=("owner-02", "owner-07"))
    assert kept(alone).busiest() == "owner-02", "a second attempt is the same round"
    empty = AuditLogBuilder(audited_plan())
    assert kept(empty).busiest() == ""


def test_receipts_are_kept_and_hold(tmp_path: Path) -> None:
    built = two_rounds()
    notes = [built.note(20, built.owners[:3]), built.note(21), built.note()]
    logged = kept(built, *notes)
    receipts = keep_receipts(logged, "owner-01", tmp_path)
    assert [(one.round, one.index, one.cosigners, one.verified) for one in receipts] == [
        (1, 13, 8, True),
        (2, 25, 8, True),
    ]
    for one, note in zip(receipts, notes[1:], strict=True):
        receipt = decode_receipt((tmp_path / one.file).read_bytes())
        verify_receipt(receipt, logged.watch, QUORUM)
        assert (receipt.entry, receipt.note) == (built.entries[one.index], note)
    assert receipts[0].file == "receipts/owner-01/round-0001.tlog-proof"


def test_receipt_without_a_quorum_does_not_hold(tmp_path: Path) -> None:
    built = two_rounds()
    logged = kept(built, built.note(None, built.owners[:QUORUM]), built.note(21, built.owners[: QUORUM - 1]))
    first, second = keep_receipts(logged, "owner-02", tmp_path)
    assert first.verified, "the larger checkpoint covers it too"
    assert second.verified
    logged = kept(built, built.note(21, built.owners[: QUORUM - 1]))
    (first,) = keep_receipts(logged, "owner-02", tmp_path)
    assert (first.verified, first.cosigners) == (False, 5)
    assert keep_receipts(kept(built), "owner-02", tmp_path) == [], "nothing is kept that covers it"


@pytest.mark.parametrize("client", ["../up", "..", ".", "a/b", "shop 1", "zoë", "x" * 128, "é" * 128])
def test_folder_of_a_client_stays_where_it_belongs(client: str, tmp_path: Path) -> None:
    name = folder_of(client)
    (tmp_path / name).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_rejected_updates_are_no_incident() -> None:
    built = AuditLogBuilder(audited_plan("rounds.count=4", tables=SECURE))
    built.attempt()
    built.reject({"owner-00": Reason.UNUSABLE})
    assert kept(built).incidents() == []
