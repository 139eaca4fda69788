"""What a run writes into its log, in which order; and that nothing goes on before it is written and seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit_logs import audited_plan, ml_dsa_key_called
from testudo_common.audit.checkpoints import cosigners_of, open_checkpoint, watch_of
from testudo_common.audit.entries import (
    Charter,
    Evaluation,
    GroupsDrawn,
    Incident,
    IncidentKind,
    Reason,
    RoundClosed,
    RoundOpened,
    UpdateReceived,
    UpdatesRejected,
)
from testudo_common.audit.extension import decode_extension
from testudo_common.audit.log import AuditLog
from testudo_common.audit.notes import PrivateKey, parse_note
from testudo_common.audit.statements import Contribution, encode_statement, parse_statement
from testudo_common.errors import AuditError, AuditFault, RoundError
from testudo_common.roster import Roster, sign_roster
from testudo_common.vectors import vector_digest
from testudo_common.wire import LogUpdate, Message, Refusal, RefusalReason, TrainReply, TrainRequest
from testudo_server import coordinator
from testudo_server.charter import code_digest
from testudo_server.roster import ServerKeys, log_key_of
from testudo_server.scores import RoundScores
from watched_groups import TEN, secure_run
from watched_run import FIVE, MODEL, Answer, WatchedRun

# --- what is written, in which order


def test_plain_run_entry_by_entry(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path, audited_plan("rounds.count=2"))
    final = run.run()
    one_round = ["round_opened", "update_received", "update_received", "round_closed"]
    assert run.types == ["charter", "enrolment", *["plan_approved"] * 5, *one_round, *one_round]
    (charter,) = run.entries(Charter)
    assert (charter.plan_digest, charter.quorum, charter.window) == (run.plan.digest, 4, 1)
    assert charter.plan == run.plan.model_dump(mode="json")
    assert charter.code == code_digest()
    assert {each.time for each in run.all_entries} == {"2026-03-01T12:00:00Z"}
    opened, closed = run.entries(RoundOpened), run.entries(RoundClosed)
    records = run.store.records()
    for number, (first, last, record) in enumerate(zip(opened, closed, records, strict=True), 1):
        assert (first.round, first.attempt, first.cohort) == (number, 0, record.cohort)
        assert (last.round, last.model_digest, last.rule) == (number, record.model_digest, ("mean",))
        assert last.survivors == tuple((client,) for client in record.cohort)
        assert record.log is not None
        assert run.all_entries[record.log.opened] == first
        assert run.all_entries[record.log.closed] == last
        assert record.log.cosigners >= 4
        assert record.log.cpu_seconds > 0
    assert [entry.model_digest for entry in opened] == [vector_digest(MODEL), closed[0].model_digest]
    assert closed[-1].model_digest == vector_digest(final.model)
    received = [entry.statement.client for entry in run.entries(UpdateReceived)]
    assert received == [client for record in records for client in record.cohort]
    assert run.history.model_digest == vector_digest(final.model), "the owners' rules hold for all of it"


def test_bytes_of_the_log_are_told_round_by_round(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path)
    run.run()
    logged = [record.log for record in run.store.records() if record.log is not None]
    witnesses = run.journal._log.witnesses
    assert len(logged) == 4
    assert all(each.bytes_down > 0 and each.bytes_up > 0 for each in logged)
    assert sum(each.bytes_down for each in logged) < witnesses.bytes_down, (
        "what the end of the run costs is in no round"
    )
    assert logged[0].bytes_down > logged[1].bytes_down, "what its beginning costs is in the first one"


def test_secure_run_entry_by_entry(tmp_path: Path) -> None:
    """A scored round, and one in which a group is lost after a failed attempt."""
    run = secure_run(tmp_path, "rounds.min_replies=7", "evaluation.federated_every_rounds=1", silent=(2, 0))
    run.coordinator.run_round(run.begin())
    rest = run.types[12:]
    assert rest == [
        *["round_opened", "groups_drawn", *["update_received"] * 4, "updates_rejected"],
        *["round_opened", "groups_drawn", *["update_received"] * 8, "round_closed"],
    ]
    first, second = run.entries(RoundOpened)
    assert (first.attempt, second.attempt) == (0, 1)
    assert first.cohort == second.cohort
    assert first.model_digest == second.model_digest
    (rejected,) = run.entries(UpdatesRejected)
    groups = run.entries(GroupsDrawn)[0].groups
    assert rejected.attempt == 0
    assert set(rejected.clients.values()) == {Reason.NO_REPLY}
    assert [(set(group.members), group.reason) for group in rejected.groups] == [
        (set(group), "too_few") for group in groups
    ]
    (closed,) = run.entries(RoundClosed)
    assert closed.attempt == 1
    assert closed.survivors == tuple(sorted(tuple(sorted(group)) for group in groups))


def test_scores_stand_beside_the_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = RoundScores({"after": {"mse": 0.5, "rmse": float("nan")}}, {"after": {"mse": 0.1}})
    monkeypatch.setattr(coordinator, "scores_of", lambda plan, number, collected: found)
    run = secure_run(tmp_path, "evaluation.federated_every_rounds=2")
    run.run()
    assert run.types[-2:] == ["round_closed", "evaluation"]
    (scores,) = run.entries(Evaluation)
    assert (scores.round, scores.metrics, scores.noise) == (2, {"after": {"mse": 0.5}}, {"after": {"mse": 0.1}})


def test_account_is_the_logs_own(tmp_path: Path) -> None:
    settings = ('privacy.unit="example"', "privacy.noise_multiplier=1.0")
    run = WatchedRun(tmp_path, audited_plan("rounds.count=3", *settings))
    run.run()
    accounts = [closed.example for closed in run.entries(RoundClosed)]
    steps = [sum(event[2] for event in account.events) for account in accounts if account is not None]
    most = max(run.history.asked.values())
    assert steps == [2, 2, 2 * most]
    (charter,) = run.entries(Charter)
    assert charter.training.example == ((1.0, 0.5, 2),)


def test_failed_round_is_an_incident(tmp_path: Path) -> None:
    def silent(client: str, message: Message, answer: Answer) -> Message | str | None:
        return None if isinstance(message, TrainRequest) else answer()

    run = WatchedRun(tmp_path, meddle=silent)
    with pytest.raises(RoundError, match="brought 0 usable replies"):
        run.run()
    assert run.types[-2:] == ["round_opened", "incident"]
    (incident,) = run.entries(Incident)
    assert (incident.kind, incident.round, incident.note) == (IncidentKind.ROUND_FAILED, 1, "")


# --- nothing goes on before it is written, and seen


def note_size(data: bytes) -> int:
    return int(parse_note(data).text.split("\n")[1])


def test_nothing_is_sent_that_the_disk_does_not_have(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path)
    seen = []

    def look(client: str, message: Message, answer: Answer) -> Message | str:
        if isinstance(message, LogUpdate):
            found = decode_extension(message.body)
            assert note_size(found.note) == run.log.size == message.first + len(found.entries)
        else:
            assert isinstance(message, TrainRequest)
            opened = run.history.opened
            assert opened is not None
            assert opened[0] < note_size(message.body) <= run.log.size
            assert message.model_digest == opened[1].model_digest
            seen.append(client)
        return answer()

    run.owners.meddle = look
    run.run()
    assert len(seen) == 8


def test_training_is_asked_for_under_a_checkpoint_that_a_quorum_cosigned(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path, audited_plan("audit.quorum=3"))
    run.run()
    watch = watch_of(run.keys.roster, run.plan.digest)
    requests = run.owners.sent(TrainRequest)
    assert len(requests) == 8
    for client, request in requests:
        assert len(cosigners_of(open_checkpoint(request.body, watch)[1], watch)) == 3
        assert client in run.entries(RoundOpened)[request.round - 1].cohort


class FailingLog(AuditLog):
    """A log whose disk is full from the addition number ``at`` on."""

    def __init__(self, at: int) -> None:
        super().__init__(None)
        self.additions, self._at = 0, at

    def append(self, entries: Sequence[bytes], note: bytes | None = None) -> int:
        self.additions += 1
        if self.additions >= self._at:
            raise AuditError(AuditFault.STORAGE, "the disk is full")
        return super().append(entries, note)


def test_log_that_cannot_be_written_stops_the_run_at_once(tmp_path: Path) -> None:
    whole = WatchedRun(tmp_path / "whole", audited_plan("rounds.count=2"))
    whole.log = counted = FailingLog(1000)
    whole.start()
    whole.run()
    assert counted.additions == 12, "charter, approvals, three a round, and a note for each of four checkpoints"
    for at in range(1, counted.additions + 1):
        run = WatchedRun(tmp_path / str(at), audited_plan("rounds.count=2"))
        run.log = log = FailingLog(at)
        run.start()
        sizes: list[tuple[int, bool]] = []

        def look(
            client: str,
            message: Message,
            answer: Answer,
            log: FailingLog = log,
            sizes: list[tuple[int, bool]] = sizes,
        ) -> Message | str:
            sizes.append((log.additions, isinstance(message, TrainRequest)))
            return answer()

        run.owners.meddle = look
        with pytest.raises(AuditError, match="the disk is full"):
            run.run()
        assert log.additions == at, "nothing was tried again"
        assert all(additions < at for additions, _ in sizes), "nothing was sent after"
        trained = [request.round for _, request in run.owners.sent(TrainRequest)]
        assert set(trained) <= {entry.round for entry in run.entries(RoundOpened)}
        kept = run.store.load(run.plan.digest).round
        closed = len(run.entries(RoundClosed))
        assert kept - closed in (0, 1), "the run is never further ahead than what is made up for"


def test_run_goes_on_after_the_disk_was_full(tmp_path: Path) -> None:
    for at in range(1, 13):
        run = WatchedRun(tmp_path / str(at), audited_plan("rounds.count=2"))
        full = run.log = FailingLog(at)
        run.start()
        with pytest.raises(AuditError, match="the disk is full"):
            run.run()
        run.log = AuditLog(None)
        run.log.append(tuple(full.entries()))
        final = run.go_on()
        assert final.round == 2
        assert run.history.model_digest == vector_digest(final.model)
        assert [entry.round for entry in run.entries(RoundClosed)] == [1, 2]


# --- updates


def test_update_without_what_its_owner_signed_does_not_count(tmp_path: Path) -> None:
    def changed(reply: TrainReply, **said: object) -> str:
        assert reply.statement is not None
        statement = parse_statement(reply.statement)
        assert isinstance(statement, Contribution)
        return encode_statement(statement.model_copy(update=said))

    def another(reply: TrainReply) -> str:
        return encode_statement(run.owners.watchers["owner-1"].contribution(reply.round, reply.attempt))

    cases = {
        None: "it signed nothing for its update",
        "not a statement": "not the statement of an owner",
        "attempt": "what it signed is about another attempt",
        "commitment": "the contribution of owner-0 is not signed with its key",
        "another": "what it signed is not about its update",
    }
    for case, problem in cases.items():

        def meddle(client: str, message: Message, answer: Answer, case: str | None = case) -> Message | str:
            reply = answer()
            if client != "owner-0" or not isinstance(reply, TrainReply):
                return reply
            match case:
                case "attempt":
                    return replace(reply, statement=changed(reply, attempt=3))
                case "commitment":
                    return replace(reply, statement=changed(reply, commitment="cd" * 32))
                case "another":
                    return replace(reply, statement=another(reply))
            return replace(reply, statement=case)

        settings = ("rounds.count=1", "rounds.cohort_size=5", "rounds.min_replies=4")
        run = WatchedRun(tmp_path / str(case), audited_plan(*settings), meddle=meddle)
        run.run()
        assert run.store.records()[0].excluded == (("owner-0", problem),)
        assert [entry.statement.client for entry in run.entries(UpdateReceived)] == list(FIVE[1:])
        (rejected,) = run.entries(UpdatesRejected)
        assert rejected.clients == {"owner-0": Reason.UNUSABLE}


def test_reasons_are_coarse(tmp_path: Path) -> None:
    def meddle(client: str, message: Message, answer: Answer) -> Message | str | None:
        if not isinstance(message, TrainRequest):
            return answer()
        match client:
            case "owner-0":
                return None
            case "owner-1":
                return "Flower error 2"
            case "owner-2":
                return Refusal(message.plan_digest, message.round, message.attempt, RefusalReason.PRIVACY_SPENT)
            case "owner-3":
                reply = answer()
                assert isinstance(reply, TrainReply)
                return replace(reply, update=np.full(8, np.nan, dtype=np.float32))
        return answer()

    settings = ("rounds.count=1", "rounds.cohort_size=5", "rounds.min_replies=1")
    run = WatchedRun(tmp_path, audited_plan(*settings), meddle=meddle)
    run.run()
    (rejected,) = run.entries(UpdatesRejected)
    assert rejected.clients == {
        "owner-0": Reason.NO_REPLY,
        "owner-1": Reason.NO_REPLY,
        "owner-2": Reason.REFUSED,
        "owner-3": Reason.UNUSABLE,
    }
    received = [entry.statement.client for entry in run.entries(UpdateReceived)]
    assert received == ["owner-3", "owner-4"], "what arrived is in the log, also where it is of no use"


# --- groups


def test_groups_are_shown_to_their_members_before_they_are_told_more(tmp_path: Path) -> None:
    run = secure_run(tmp_path)
    run.coordinator.run_round(run.begin())
    cohort = run.entries(RoundOpened)[0].cohort
    drawn = run.types.index("groups_drawn")
    for client in cohort:
        watcher = run.owners.watchers[client]
        assert any(note_size(note) == drawn + 1 for note in watcher.notes)
    others = [client for client in TEN if client not in cohort]
    assert others
    for client in others:
        assert all(note_size(note) != drawn + 1 for note in run.owners.watchers[client].notes)


# --- the end


def test_everybody_ends_with_the_whole_log_and_a_checkpoint_of_a_quorum_over_it(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path)
    run.run()
    watch = watch_of(run.keys.roster, run.plan.digest)
    for watcher in run.owners.watchers.values():
        assert watcher.entries == list(run.log.entries())
        whole = [note for note in watcher.notes if note_size(note) == run.log.size]
        assert max(len(cosigners_of(open_checkpoint(note, watch)[1], watch)) for note in whole) >= 4


# --- other keys of the log


def test_log_signed_with_ml_dsa(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path)
    key: PrivateKey = ml_dsa_key_called("log")
    roster = Roster("shops", run.keys.roster.members, log_key_of(key))
    federation = run.keys._federation_key()
    run.keys.server_keys = ServerKeys(
        roster, sign_roster(roster, federation), key, federation.public_key().public_bytes_raw()
    )
    run.keys.roster = roster
    for watcher in run.owners.watchers.values():
        watcher._watch = watch_of(roster, run.plan.digest)
    run.start()
    assert run.run().round == 4
    (latest,) = [note for note in run.log.notes() if note_size(note) == run.log.size]
    watch = watch_of(roster, run.plan.digest)
    assert len(cosigners_of(open_checkpoint(latest, watch)[1], watch)) == 5
