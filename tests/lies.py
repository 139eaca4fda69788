"""Lies that a server can tell its owners with the key of their log, for lying_server.py. No tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lying_server import OWNERS, QUORUM, Lie, LyingLog
from testudo_client.ledger import Withdrawn
from testudo_client.own_voice import ConsentingVoice, Decision
from testudo_common.audit.entries import (
    AnyEntry,
    GroupsDrawn,
    LeakageDrill,
    PlanApproved,
    Reason,
    RoundClosed,
    RoundOpened,
    UpdateReceived,
    UpdatesRejected,
    decode_entry,
    encode_entry,
)
from testudo_common.secagg.groups import partition
from testudo_common.vectors import vector_digest
from testudo_common.wire import Message, TrainReply, TrainRequest
from testudo_server.store import RunState
from testudo_simulations.owners import Owners

_PRIVATE = ('privacy.unit="example"', "privacy.noise_multiplier=1.0", "rounds.max_participations=3")


class Rewrites(Lie):
    """An entry that everybody has seen becomes another one: other code than the charter said."""

    def before_showing(self, log: LyingLog, round_number: int) -> None:
        if round_number == self.first and not self.indices:
            self.indices.append(0)
            charter = decode_entry(log.entries[0])
            log.tamper([encode_entry(charter.model_copy(update={"code": "0" * 64})), *log.entries[1:]])


class Reorders(Lie):
    """Two entries that everybody has seen change places."""

    first = 3  # updates of the first round are seen when the second is opened

    def before_showing(self, log: LyingLog, round_number: int) -> None:
        if round_number == self.first and not self.indices:
            entries = log.entries
            updates = [i for i, data in enumerate(entries) if isinstance(decode_entry(data), UpdateReceived)]
            one, other = updates[1:3]
            self.indices.append(one)
            entries[one], entries[other] = entries[other], entries[one]
            log.tamper(entries)


class Truncates(Lie):
    """A leakage drill that failed was in the log, and is taken out again when everybody has seen it."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def after_opening(self, log: LyingLog, request: TrainRequest) -> TrainRequest:
        if request.round != self.first or self.size:
            return request
        log.append(LeakageDrill(time=log.time(), report="0" * 64, passed=False))
        log.publish(request.round, request.attempt)
        self.size = len(log.entries)
        log.tamper(log.entries[:-1])
        return replace(request, body=log.act_on(log.publish(request.round, request.attempt)))


class Forks(Lie):
    """From a round on, half of the owners see another history than the others."""

    def __init__(self) -> None:
        super().__init__()
        self.others: tuple[str, ...] = ()
        self.note = b""

    def before_showing(self, log: LyingLog, round_number: int) -> None:
        if round_number == self.first and not self.others:
            self.others = tuple(sorted(log.witnesses.clients)[: OWNERS // 2])
            log.fork(self.others, lambda entry: entry.model_copy(update={"time": "2001-01-01T00:00:00Z"}))

    def after_opening(self, log: LyingLog, request: TrainRequest) -> TrainRequest:
        if log.twin is not None and log.twin_shown is not None:
            self.note = log.twin.act_on(log.twin_shown)
        return request

    def to_client(self, client: str, message: Message) -> Message:
        if isinstance(message, TrainRequest) and client in self.others:
            return replace(message, body=self.note)
        return message


class ModelOfItsOwn(Lie):
    """One owner is sent another model than the others and than the log names."""

    others_train = True

    def __init__(self) -> None:
        super().__init__()
        self.victim = ""
        self.digest = ""

    def says(self, log: LyingLog, entry: AnyEntry) -> AnyEntry:
        if isinstance(entry, RoundOpened):
            self.victim = entry.cohort[3]
            self.finders = {self.victim}
            if entry.round == self.first:
                self.digest = entry.model_digest
                self.indices.append(log.size)
        return entry

    def to_client(self, client: str, message: Message) -> Message:
        if isinstance(message, TrainRequest) and message.round == self.first and client == self.victim:
            return _with_another_model(message)
        return message

    def from_client(self, client: str, message: Message | str) -> Message | str:
        if isinstance(message, TrainReply) and message.round == self.first and client == self.victim:
            return replace(message, model_digest=self.digest)
        return message


class ModelNotLogged(Lie):
    """The whole cohort is sent another model than the log names; secure aggregation holds a cohort to one model."""

    def says(self, log: LyingLog, entry: AnyEntry) -> AnyEntry:
        if isinstance(entry, RoundOpened) and entry.round == self.first:
            self.indices.append(log.size)
        return entry

    def after_opening(self, log: LyingLog, request: TrainRequest) -> TrainRequest:
        return _with_another_model(request) if request.round == self.first else request


def _with_another_model(request: TrainRequest) -> TrainRequest:
    model = request.model + np.float32(0.5)
    return replace(request, model=model, model_digest=vector_digest(model))


class SkipsAnApproval(Lie):
    """An owner's approval is left out of the log, and the owner is asked all the same."""

    first = 1

    def says(self, log: LyingLog, entry: AnyEntry) -> AnyEntry | None:
        if isinstance(entry, PlanApproved) and entry.statement.client == _fourth(log):
            return None
        if isinstance(entry, RoundOpened):
            self.indices.append(log.size)
        return entry


class UnderstatesEpsilon(Lie):
    """A round closes with half of the epsilon that was spent."""

    settings = _PRIVATE

    def says(self, log: LyingLog, entry: AnyEntry) -> AnyEntry:
        if isinstance(entry, RoundClosed) and entry.round == 1:
            self.indices.append(log.size)
            assert entry.example is not None
            assert entry.example.epsilon is not None
            half = entry.example.model_copy(update={"epsilon": entry.example.epsilon / 2})
            return entry.model_copy(update={"example": half})
        return entry


class ReusesARound(Lie):
    """A round that is closed is opened and made again."""

    def opens(self, request: TrainRequest) -> TrainRequest:
        return replace(request, round=1, attempt=1) if request.round == self.first else request

    def says(self, log: LyingLog, entry: AnyEntry) -> AnyEntry:
        if isinstance(entry, RoundOpened) and entry.attempt == 1:
            self.indices.append(log.size)
        return entry


class LeavesAContributionOut(Lie):
    """An owner's update is in the round, and its signed contribution is not in the log."""

    def says(self, log: LyingLog, entry: AnyEntry) -> AnyEntry | None:
        if isinstance(entry, UpdateReceived) and entry.statement.round == 1 and entry.statement.client == _fourth(log):
            return None
        if isinstance(entry, RoundClosed) and entry.round == 1:
            self.indices.append(log.size)
        return entry


class HidesASurvivor(Lie):
    """An owner's update is in the sum of its group, and the log says that it was rejected."""

    settings = ("rounds.min_replies=4",)

    def says(self, log: LyingLog, entry: AnyEntry) -> AnyEntry:
        if isinstance(entry, RoundClosed) and entry.round == 1:
            hidden = _fourth(log)
            words = {hidden: Reason.NO_REPLY}
            log.append(UpdatesRejected(time=entry.time, round=1, attempt=entry.attempt, clients=words, groups=()))
            self.indices.append(log.size)
            (self.finders,) = (set(group) for group in entry.survivors if hidden in group)
            survivors = (tuple(client for client in group if client != hidden) for group in entry.survivors)
            return entry.model_copy(update={"survivors": tuple(survivors)})
        return entry


class ForgetsASurvivor(Lie):
    """An owner's update is in the round, and the log has not a word about it."""

    settings = ("rounds.min_replies=4",)

    def says(self, log: LyingLog, entry: AnyEntry) -> AnyEntry:
        if isinstance(entry, RoundClosed) and entry.round == 1:
            self.indices.append(log.size)
            survivors = tuple(group for group in entry.survivors if group != (_fourth(log),))
            return entry.model_copy(update={"survivors": survivors})
        return entry


class LogsOtherGroups(Lie):
    """The log has other groups than those that the members of secure aggregation are in."""

    late = True

    def __init__(self) -> None:
        super().__init__()
        self.groups: tuple[tuple[str, ...], ...] = ()

    def says(self, log: LyingLog, entry: AnyEntry) -> AnyEntry:
        if isinstance(entry, GroupsDrawn) and entry.round == self.first:
            self.indices.append(log.size)
            members = sorted(client for group in entry.groups for client in group)
            coin = "42" * 32
            self.groups = partition(bytes.fromhex(coin), members, 4)
            return entry.model_copy(update={"coin": coin, "groups": self.groups})
        if isinstance(entry, RoundClosed) and entry.round == self.first:
            survivors = tuple(sorted(tuple(sorted(group)) for group in self.groups))
            return entry.model_copy(update={"survivors": survivors})
        return entry


class AsksAWithdrawnOwner(Lie):
    """An owner has withdrawn, the log says so, and it is asked again."""

    first = 3

    def says(self, log: LyingLog, entry: AnyEntry) -> AnyEntry:
        if isinstance(entry, RoundOpened) and entry.round == self.first:
            self.indices.append(log.size)
        return entry

    def on_round(self, owners: Owners, state: RunState) -> None:
        if state.round == 1:
            participant = owners._of(3)
            ledger = participant._gate._ledger
            ledger.append(Withdrawn(participant.plan_digest, participant.client_id, "00" * 64))
            assert participant._witness is not None
            participant._witness._voice = _Withdrawn(ledger)


class _Withdrawn(ConsentingVoice):
    def decision(self) -> Decision:
        return Decision(approves=False, number=1)


class NeedsNoQuorum(Lie):
    """One cosignature too few is under the checkpoint, and the round goes on."""

    def after_opening(self, log: LyingLog, request: TrainRequest) -> TrainRequest:
        if request.round != self.first:
            return request
        text, end, lines = request.body.partition(b"\n\n")
        kept = lines.splitlines(keepends=True)[:QUORUM]  # the log's own, and one fewer than a quorum
        return replace(request, body=text + end + b"".join(kept))


def _fourth(log: LyingLog) -> str:
    return sorted(log.witnesses.clients)[3]
