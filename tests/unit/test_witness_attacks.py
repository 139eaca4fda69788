"""What a server can do to its log, against an owner that watches it: one test a fault, each named by it.

What the log's key signed is evidence: it stops the owner until a person has looked. What anybody on the way could have
done is refused and no more.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from audit_logs import (
    SECURE,
    AuditLogBuilder,
    audited_plan,
    digest_of,
    key_called,
)
from testudo_client.gate import reason_of
from testudo_common.audit.notes import Signer, parse_note
from testudo_common.audit.statements import Withdrawal, signed
from testudo_common.errors import AuditError, AuditFault, LedgerError
from testudo_common.wire import RefusalReason
from watching import ME, Watching

PLAN = audited_plan("rounds.cohort_size=5")
WIDE = audited_plan("rounds.cohort_size=5", "audit.window=3")


@pytest.fixture
def watching(tmp_path: Path) -> Watching:
    """After one round."""
    found = Watching(PLAN, tmp_path)
    found.round()
    return found


def fault_of(caught: pytest.ExceptionInfo[AuditError]) -> tuple[AuditFault, int | None]:
    return caught.value.fault, caught.value.index


def is_stopped(watching: Watching) -> bool:
    """Whether the owner takes no further part, also after its process was begun anew."""
    halted = watching.files.halt.exists()
    for _ in range(2):
        try:
            watching.witness.refuse_if_halted()
        except AuditError as error:
            assert error.fault is AuditFault.HALTED and halted
        else:
            assert not halted
        watching.begun_anew()
    return halted


# The log and the mirror.


def test_entry_rewritten(watching: Watching) -> None:
    """The mirror has entry 4; the log now says something else there, and everything after it fits."""
    before = watching.size
    watching.log.entries[7:8] = []  # not the owner's own
    watching.log.entries.insert(7, watching.log.entries[6])
    answer = watching.tell()
    assert (answer.size, answer.body) == (0, b""), "which one, only the whole log can tell"
    with pytest.raises(AuditError) as caught:
        watching.tell(0)
    assert fault_of(caught) == (AuditFault.REWRITTEN, 7)
    assert reason_of(caught.value) is RefusalReason.LOG_NOT_TRUSTED
    assert is_stopped(watching) and watching.size == before


def test_last_entry_rewritten_and_sent_again(watching: Watching) -> None:
    last = len(watching.log.entries) - 1
    watching.log.entries[-1] = watching.log.entries[-1].replace(b'"time":"2026', b'"time":"2027')
    with pytest.raises(AuditError) as caught:
        watching.tell(last)
    assert fault_of(caught) == (AuditFault.REWRITTEN, last)
    assert is_stopped(watching)


def test_entries_reordered(watching: Watching) -> None:
    first, second = watching.log.entries[3:5]
    watching.log.entries[3:5] = [second, first]
    assert watching.tell().body == b""
    with pytest.raises(AuditError) as caught:
        watching.tell(0)
    assert fault_of(caught) == (AuditFault.REWRITTEN, 3)
    assert is_stopped(watching)


def test_tail_truncated(watching: Watching) -> None:
    """Refused for as long as it lasts, but no evidence: an honest message that was long on its way looks the same."""
    with pytest.raises(AuditError) as caught:
        watching.tell(0, size=4)
    assert caught.value.fault is AuditFault.TRUNCATED
    assert reason_of(caught.value) is RefusalReason.LOG_NOT_TRUSTED
    assert not is_stopped(watching)
    assert watching.testimony().cosignature


def test_tail_truncated_and_written_anew(watching: Watching) -> None:
    del watching.log.entries[-1]
    watching.log.incident(note="what was there is not there any more")
    watching.log.close()
    assert watching.tell().body == b""
    with pytest.raises(AuditError) as caught:
        watching.tell(0)
    assert fault_of(caught) == (AuditFault.REWRITTEN, len(watching.log.entries) - 2)
    assert is_stopped(watching)


def test_log_begun_anew(watching: Watching) -> None:
    """The same plan in another folder of the server: the same origin, another charter."""
    watching.log = other = AuditLogBuilder(PLAN, 5)
    other.entries[0] = other.entries[0].replace(digest_of("code").encode(), digest_of("other code").encode())
    with pytest.raises(AuditError) as caught:
        watching.tell(0)
    assert fault_of(caught) == (AuditFault.REWRITTEN, 0)
    assert is_stopped(watching)


def test_entries_that_do_not_lead_to_the_root(watching: Watching) -> None:
    """Whoever stands between the two could have changed them, so it stops nobody."""
    watching.log.incident()
    other = list(watching.log.entries)
    other[-1] = other[-1].replace(b"the office", b"our office")
    assert watching.tell(len(other) - 1, entries=other[-1:]).body == b""
    with pytest.raises(AuditError) as caught:
        watching.tell(0, entries=other)
    assert fault_of(caught) == (AuditFault.PROOF, None)
    assert not is_stopped(watching)


def test_fewer_entries_than_the_checkpoint_is_over(watching: Watching) -> None:
    watching.log.incident()
    with pytest.raises(AuditError) as caught:
        watching.tell(entries=())
    assert caught.value.fault is AuditFault.PROOF


def test_entry_against_the_logs_rules(watching: Watching) -> None:
    """Most rules are tests of their own; here: that one is enough."""
    index = watching.log.open(round=3)
    before = len(watching.log.entries) - 1
    with pytest.raises(AuditError) as caught:
        watching.tell()
    assert fault_of(caught) == (AuditFault.ROUND, index)
    assert is_stopped(watching) and watching.size == before


# Signatures.


def test_checkpoint_that_somebody_else_signed(watching: Watching) -> None:
    with pytest.raises(AuditError) as caught:
        watching.tell(note=watching.log.note(cosigners=(), log_key=key_called("somebody")))
    assert caught.value.fault is AuditFault.SIGNATURE
    assert not is_stopped(watching)


def test_checkpoint_of_another_log(watching: Watching) -> None:
    other = AuditLogBuilder(audited_plan("seed=1", "rounds.cohort_size=5"), 5)
    with pytest.raises(AuditError, match="another log") as caught:
        watching.tell(note=other.note(cosigners=()))
    assert caught.value.fault is AuditFault.SIGNATURE
    assert not is_stopped(watching)


def test_cosignature_that_does_not_hold(watching: Watching) -> None:
    watching.log.incident()
    note = parse_note(watching.log.note(cosigners=()))
    forged = Signer("owner-01", key_called("owner 2"), cosigner=True).sign(note.text, 1)
    right = Signer("owner-01", key_called("owner 1"), cosigner=True).sign(note.text, 1)
    forged = replace(forged, blob=right.blob[:12] + forged.blob[12:])
    with pytest.raises(AuditError) as caught:
        watching.tell(note=note.with_signatures([forged]).encode())
    assert caught.value.fault is AuditFault.SIGNATURE


# What others were shown.


def forked(watching: Watching) -> AuditLogBuilder:
    """The same log but for its last entry, under the same key: what the others are shown."""
    other = AuditLogBuilder(PLAN, 5)
    other.entries = [*watching.log.entries[:-1], watching.log.entries[-1].replace(b'"time":"2026', b'"time":"2027')]
    return other


def test_forked_view_in_an_update(watching: Watching) -> None:
    with pytest.raises(AuditError) as caught:
        watching.tell(cosigned=forked(watching).note())
    assert caught.value.fault is AuditFault.SPLIT_VIEW
    assert is_stopped(watching)
    assert json.loads(watching.files.halt.read_text())["note"] == forked(watching).note().decode()


def test_forked_view_in_a_request(watching: Watching) -> None:
    watching.log.open()
    watching.tell()
    with pytest.raises(AuditError) as caught:
        watching.witness.check(watching.request(body=forked(watching).note()))
    assert caught.value.fault is AuditFault.SPLIT_VIEW
    assert is_stopped(watching)


def test_forked_view_of_an_earlier_round_in_a_request(watching: Watching) -> None:
    other = forked(watching)
    watching.log.open()
    watching.tell()
    with pytest.raises(AuditError) as caught:
        watching.witness.check(watching.request(body=other.note()))
    assert caught.value.fault is AuditFault.SPLIT_VIEW
    assert is_stopped(watching)


def test_view_that_only_this_owner_is_shown(watching: Watching) -> None:
    """A fork from the very first entry on is consistent in itself. What it lacks is a quorum."""
    watching.log.open()
    watching.tell()
    for cosigners in ((), (ME,), watching.log.owners[:3]):
        with pytest.raises(AuditError) as caught:
            watching.witness.check(watching.request(cosigners))
        assert caught.value.fault is AuditFault.QUORUM
        assert reason_of(caught.value) is RefusalReason.NO_QUORUM
    assert not is_stopped(watching)
    watching.witness.check(watching.request(watching.log.owners[:4]))


def test_quorum_through_one_witness_counted_twice(watching: Watching) -> None:
    watching.log.open()
    watching.tell()
    note = parse_note(watching.log.note(cosigners=watching.log.owners[:3]))
    again = [Signer("owner-02", key_called("owner 2"), cosigner=True).sign(note.text, time) for time in (7, 8, 9)]
    with pytest.raises(AuditError) as caught:
        watching.witness.check(watching.request(body=note.with_signatures(again).encode()))
    assert caught.value.fault is AuditFault.QUORUM


def test_quorum_of_strangers(watching: Watching) -> None:
    watching.log.open()
    watching.tell()
    note = parse_note(watching.log.note(cosigners=watching.log.owners[:3]))
    strangers = [Signer(f"owner-0{n}", key_called("x"), cosigner=True).sign(note.text, 7) for n in (3, 4, 5)]
    with pytest.raises(AuditError) as caught:
        watching.witness.check(watching.request(body=note.with_signatures(strangers).encode()))
    assert caught.value.fault is AuditFault.QUORUM


# The window.


def test_window_of_one_counts_nothing_but_the_rounds_own_checkpoint(watching: Watching) -> None:
    watching.log.open()
    watching.tell(cosigned=watching.log.note(watching.size))
    watching.log.incident()
    watching.tell(cosigned=watching.log.note(watching.size))
    with pytest.raises(AuditError) as caught:
        watching.witness.check(watching.request(watching.log.owners[:3]))
    assert caught.value.fault is AuditFault.QUORUM


@pytest.mark.parametrize(("window", "enough"), [(1, False), (2, True)])
def test_earlier_attempt_counts_only_in_a_wider_window(tmp_path: Path, window: int, enough: bool) -> None:
    watching = Watching(audited_plan("rounds.cohort_size=5", f"audit.window={window}"), tmp_path)
    watching.log.open()
    watching.tell()
    watching.witness.check(watching.request())
    watching.log.open()
    watching.tell()
    request = watching.request(watching.log.owners[:3])
    assert (request.round, request.attempt) == (1, 1)
    if enough:
        watching.witness.check(request)
        return
    with pytest.raises(AuditError) as caught:
        watching.witness.check(request)
    assert caught.value.fault is AuditFault.QUORUM


def test_window_of_three_counts_three_rounds_and_no_more(tmp_path: Path) -> None:
    watching = Watching(WIDE, tmp_path)
    watching.log.open()
    watching.tell()
    watching.witness.check(watching.request())  # the last time that all are seen
    for owner in watching.log.owners[1:]:
        watching.log.receive(owner)
    watching.contribute()
    watching.log.close()
    for number in (2, 3):
        watching.log.open()
        watching.tell()
        watching.begun_anew()
        assert watching.log.history.opened[1].round == number  # type: ignore[index]
        watching.witness.check(watching.request((ME,)))
        for owner in watching.log.owners[1:]:
            watching.log.receive(owner)
        watching.contribute()
        watching.log.close()
    watching.log.open()
    watching.tell()
    with pytest.raises(AuditError) as caught:
        watching.witness.check(watching.request((ME,)))
    assert caught.value.fault is AuditFault.QUORUM
    watching.witness.check(watching.request(watching.log.owners[:4]))


# The request.


def test_request_under_a_stale_note(watching: Watching) -> None:
    """The checkpoint that the quorum has cosigned is one from before the round was opened."""
    before = len(watching.log.entries)
    watching.log.open()
    watching.tell()
    with pytest.raises(AuditError) as caught:
        watching.witness.check(watching.request(body=watching.log.note(before)))
    assert caught.value.fault is AuditFault.NOT_LOGGED
    assert reason_of(caught.value) is RefusalReason.NOT_LOGGED
    assert not is_stopped(watching)


def test_request_under_a_note_over_what_the_owner_was_not_shown(watching: Watching) -> None:
    watching.log.open()
    watching.tell()
    watching.log.incident()
    with pytest.raises(AuditError) as caught:
        watching.witness.check(watching.request())
    assert caught.value.fault is AuditFault.NOT_LOGGED


def test_request_without_a_note(watching: Watching) -> None:
    watching.log.open()
    watching.tell()
    with pytest.raises(AuditError) as caught:
        watching.witness.check(watching.request(body=b""))
    assert reason_of(caught.value) is RefusalReason.LOG_NOT_TRUSTED
    assert not is_stopped(watching)


@pytest.mark.parametrize(
    "lie",
    [
        {"model_digest": digest_of("another model")},
        {"clip": 0.5},
        {"round": 3},
        {"round": 1},
        {"attempt": 1},
    ],
    ids=["another model", "another clipping norm", "another round", "a round that was closed", "another attempt"],
)
def test_request_for_what_is_not_logged(watching: Watching, lie: dict[str, object]) -> None:
    watching.log.open()
    watching.tell()
    with pytest.raises(AuditError) as caught:
        watching.witness.check(watching.request(**lie))
    assert caught.value.fault is AuditFault.NOT_LOGGED
    assert not is_stopped(watching)
    watching.witness.check(watching.request())


def test_round_used_again_after_it_was_closed(watching: Watching) -> None:
    watching.log.open()
    watching.tell()
    request = watching.request()
    for owner in watching.log.owners[1:]:
        watching.log.receive(owner)
    watching.log.close()
    watching.tell()
    with pytest.raises(AuditError, match="not in the log") as caught:
        watching.witness.check(replace(request, body=watching.log.note()))
    assert caught.value.fault is AuditFault.NOT_LOGGED


def test_owner_that_is_not_in_the_cohort(tmp_path: Path) -> None:
    watching = Watching(audited_plan("rounds.cohort_size=4", "rounds.min_replies=2"), tmp_path)
    watching.log.open(cohort=watching.log.owners[1:])
    watching.tell()
    with pytest.raises(AuditError, match="not in the cohort") as caught:
        watching.witness.check(watching.request())
    assert caught.value.fault is AuditFault.NOT_LOGGED


def test_run_from_weights_that_were_chosen(watching: Watching) -> None:
    watching.log.open()
    watching.tell()
    plans_own = digest_of("model", 0)
    watching.witness.check(watching.request(), lambda: plans_own)
    with pytest.raises(AuditError) as caught:
        watching.witness.check(watching.request(), lambda: digest_of("the plan's own"))
    assert fault_of(caught) == (AuditFault.MODEL, 7)
    assert is_stopped(watching)


# Groups.


def test_groups_that_are_not_in_the_log(watching: Watching) -> None:
    watching.log.open()
    watching.tell()
    with pytest.raises(AuditError) as caught:
        watching.witness.check_groups(2, 0, bytes(32), (ME,))
    assert caught.value.fault is AuditFault.NOT_LOGGED
    assert not is_stopped(watching)


def secure_watching(tmp_path: Path) -> Watching:
    watching = Watching(audited_plan("rounds.cohort_size=5", "rounds.min_replies=3", tables=SECURE), tmp_path)
    watching.log.open()
    watching.log.draw_groups()
    watching.tell()
    return watching


@pytest.mark.parametrize("lie", ["coin", "members", "order", "round"])
def test_another_group_than_the_logs(tmp_path: Path, lie: str) -> None:
    watching = secure_watching(tmp_path)
    index, drawn = watching.log.history.groups or (0, None)
    assert drawn is not None
    coin, members = bytes.fromhex(drawn.coin), next(group for group in drawn.groups if ME in group)
    watching.witness.check_groups(1, 0, coin, members)
    said = {
        "coin": (1, 0, bytes(32), members),
        "members": (1, 0, coin, (*members[:-1], "owner-09")),
        "order": (1, 0, coin, members[::-1]),
        "round": (2, 0, coin, members),
    }
    with pytest.raises(AuditError) as caught:
        watching.witness.check_groups(*said[lie])
    expected = (AuditFault.NOT_LOGGED, None) if lie == "round" else (AuditFault.GROUPS, index)
    assert fault_of(caught) == expected
    assert is_stopped(watching) is (lie != "round")


# The owner's own.


def test_roster_that_the_owner_was_never_shown(watching: Watching) -> None:
    """It may lack the newest one, so it is not stopped: but it takes nothing in, and cosigns nothing."""
    before = watching.size
    watching.log.enrol(watching.log.roster(watching.log.owners[:4]))
    with pytest.raises(AuditError, match="another roster") as caught:
        watching.tell()
    assert caught.value.fault is AuditFault.ENROLMENT
    assert watching.size == before and not is_stopped(watching)


def test_charter_with_a_quorum_of_its_own(tmp_path: Path) -> None:
    log = AuditLogBuilder(PLAN, 5, enrol=False)
    log.charter(quorum=2)
    index = log.enrol()
    watching = Watching(PLAN, tmp_path, log=log)
    with pytest.raises(AuditError, match="a quorum of 2, where it must be 4") as caught:
        watching.tell()
    assert fault_of(caught) == (AuditFault.QUORUM, index)
    assert reason_of(caught.value) is RefusalReason.LOG_NOT_TRUSTED, "no dropout brings that about"
    assert is_stopped(watching)


def test_contribution_that_somebody_with_this_owners_key_made(watching: Watching) -> None:
    """The thief copies a ledger's head from what the owner said before: so it is found by what the owner remembers."""
    watching.log.open()
    ledger = watching.log.history.contributions[ME][0][1].ledger
    index = watching.log.receive(ME, ledger=ledger)
    with pytest.raises(AuditError) as caught:
        watching.tell()
    assert fault_of(caught) == (AuditFault.CONTRIBUTION, index)
    assert is_stopped(watching)


def test_contribution_under_a_ledger_that_is_not_there(watching: Watching) -> None:
    before = watching.size
    watching.log.open()
    watching.log.receive(ME)
    with pytest.raises(LedgerError, match="rolled back"):
        watching.tell()
    assert watching.size == before and not is_stopped(watching)


def test_withdrawal_that_the_ledger_does_not_hold(watching: Watching) -> None:
    statement = signed(Withdrawal(client=ME, number=1), watching.log.keys[ME], PLAN.digest)
    watching.log.withdraw(ME, statement.number)
    with pytest.raises(LedgerError, match="holds your withdrawal"):
        watching.tell()


# Halts.


def test_stopped_owner_answers_nothing_until_a_person_has_looked(watching: Watching) -> None:
    watching.log.open()
    watching.tell()
    right = watching.log
    request = watching.request()
    watching.log = forked(watching)
    with pytest.raises(AuditError):
        watching.tell(0)
    watching.log = right
    halt = json.loads(watching.files.halt.read_text())
    assert (halt["fault"], halt["entry"]) == ("rewritten", len(right.entries) - 1)
    assert halt["time"] == "2026-03-01T12:00:00Z" and "another entry" in halt["problem"]
    assert parse_note(halt["note"].encode()).signed_by(right.watch.log)
    assert watching.files.halt.stat().st_mode & 0o777 == 0o600
    watching.begun_anew()
    for attempt in (
        watching.tell,
        lambda: watching.witness.check(request),
        lambda: watching.witness.check_groups(2, 0, b"", ()),
    ):
        with pytest.raises(AuditError, match="moves that file away") as caught:
            attempt()
        assert caught.value.fault is AuditFault.HALTED
        assert reason_of(caught.value) is RefusalReason.LOG_NOT_TRUSTED
    watching.files.halt.rename(watching.files.halt.with_suffix(".looked-at"))
    watching.witness.check(request)
    assert watching.testimony().cosignature


def test_first_halt_stays(watching: Watching) -> None:
    error = AuditError(AuditFault.GROUPS, "a first thing")
    watching.witness._record.halt(error, b"one", watching.witness._now())
    watching.witness._record.halt(AuditError(AuditFault.PLAN, "a second"), b"two", watching.witness._now())
    assert json.loads(watching.files.halt.read_text())["problem"] == "a first thing"


def test_damaged_halt_stops_all_the_same(watching: Watching) -> None:
    watching.files.halt.write_text("{")
    with pytest.raises(AuditError, match="damaged") as caught:
        watching.tell()
    assert caught.value.fault is AuditFault.HALTED
