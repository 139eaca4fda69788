"""A server that has the log's key, and lies: its owners find every lie within a round, say which, and train no more.

Each lie is told once, in an otherwise proper run. With the owners' check for it off, the same lie goes through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lies import (
    AsksAWithdrawnOwner,
    ForgetsASurvivor,
    Forks,
    HidesASurvivor,
    LeavesAContributionOut,
    LogsOtherGroups,
    ModelNotLogged,
    ModelOfItsOwn,
    NeedsNoQuorum,
    Reorders,
    ReusesARound,
    Rewrites,
    SkipsAnApproval,
    Truncates,
    UnderstatesEpsilon,
)
from lying_server import OWNERS, Lie, Outcome, plan_for, run_under
from testudo_client import own_checks
from testudo_client.mirror import Mirror
from testudo_common.audit import closing_rules, history, round_rules
from testudo_common.audit.checkpoints import Checkpoint
from testudo_common.audit.log import AuditLog
from testudo_common.audit.merkle import Frontier, leaf_hash
from testudo_common.errors import AuditError, AuditFault
from testudo_common.wire import RefusalReason

Off = Callable[[pytest.MonkeyPatch], None]


def passes(*_args: object) -> None:
    """Finds no fault."""


def without(module: ModuleType, *rules: str) -> Off:
    """The owners have no such check; a rule of the log is kept by nobody."""

    def all_but_these(rule: Callable[..., None], *args: object) -> None:
        if rule.__name__ not in rules:
            rule(*args)

    def switch_off(monkeypatch: pytest.MonkeyPatch) -> None:
        for rule in rules:
            monkeypatch.setattr(module, rule, passes)
        monkeypatch.setattr(history, "_apply", all_but_these)

    return switch_off


def believing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owners keep no memory against the log: they take what it holds now for what it held."""

    def forget(mirror: Mirror, first: int, entries: tuple[bytes, ...], checkpoint: Checkpoint) -> Any:
        whole = (*mirror.log.entries(0, first), *entries)
        if Frontier(map(leaf_hash, whole)).root() != checkpoint.root:
            return None
        mirror._log, mirror._state = AuditLog(None), mirror._empty
        return whole

    monkeypatch.setattr(Mirror, "continued", forget)


@dataclass(frozen=True, slots=True)
class Told:
    """A lie, and what becomes of it.

    Attributes:
        lie: Which.
        words: What its owners read about it.
        reason: What the server gets to hear.
        stops: Under which plans the owners take no further part before a person has looked.
        off: Takes their check away.
        plans: For which plans it can be told.
    """

    lie: type[Lie]
    words: str
    off: Off
    reason: RefusalReason = RefusalReason.LOG_NOT_TRUSTED
    stops: tuple[str, ...] = ("plain", "secure")
    plans: tuple[str, ...] = ("plain", "secure")


TOLD = {
    "rewrites an entry": Told(Rewrites, "the log holds another entry than it did", believing),
    # That entries are missing may be an old message; where groups take their place, it is a rewritten log.
    "truncates": Told(Truncates, "entries, and had 2", believing, stops=("secure",)),
    "reorders": Told(Reorders, "the log holds another entry than it did", believing),
    "forks between two groups": Told(
        Forks,
        "4 witnesses have cosigned what is in the log, and 6 have to",
        without(own_checks, "quorum_has_seen"),
        RefusalReason.NO_QUORUM,
        stops=(),
    ),
    "sends one owner another model": Told(
        ModelOfItsOwn,
        "the model that was sent is another than the one in the log",
        without(own_checks, "model_is_logged"),
        RefusalReason.NOT_LOGGED,
        stops=(),
        plans=("plain",),  # members of one sum agree on the model's digest, whatever the log says
    ),
    "sends a model that is not logged": Told(
        ModelNotLogged,
        "the model that was sent is another than the one in the log",
        without(own_checks, "model_is_logged"),
        RefusalReason.NOT_LOGGED,
        stops=(),
    ),
    "skips an approval": Told(
        SkipsAnApproval,
        "it is asked, and has not approved the plan",
        without(round_rules, "cohort_may_be_asked"),
    ),
    "reports a smaller epsilon": Told(
        UnderstatesEpsilon,
        "the account of an example after round 1 says epsilon",
        without(closing_rules, "accounts_are_as_recomputed"),
    ),
    "reuses a round": Told(
        ReusesARound,
        "round 1 is opened where round 2 is next",
        without(round_rules, "opens_the_next_round"),
    ),
    "leaves a contribution out": Told(
        LeavesAContributionOut,
        "it is said to be in the round, and sent no update",
        without(closing_rules, "survivors_sent_updates"),
    ),
    "hides a survivor": Told(
        HidesASurvivor,
        "the log says otherwise than this owner was told who of its group is in the sum: wave-000003",
        without(own_checks, "survivors_are_as_told"),
        plans=("secure",),  # in the open no owner is told
    ),
    "forgets a survivor": Told(
        ForgetsASurvivor,
        "it was asked, and is neither in the round nor among the rejected",
        without(closing_rules, "nobody_asked_is_forgotten"),
        plans=("plain",),
    ),
    "shows other groups than logged": Told(
        LogsOtherGroups,
        "the log has another coin or other groups than this owner drew",
        without(own_checks, "groups_are_logged"),
        plans=("secure",),
    ),
    "asks a withdrawn owner": Told(
        AsksAWithdrawnOwner,
        "it is asked, and has withdrawn",
        without(round_rules, "cohort_may_be_asked"),
    ),
    "goes on without a quorum": Told(
        NeedsNoQuorum,
        "5 witnesses have cosigned what is in the log, and 6 have to",
        without(own_checks, "quorum_has_seen"),
        RefusalReason.NO_QUORUM,
        stops=(),
    ),
}
CASES = [pytest.param(told, plan, id=f"{name}, {plan}") for name, told in TOLD.items() for plan in told.plans]


def everybody(outcome: Outcome) -> set[str]:
    return {participant.client_id for participant in outcome.owners._participants.values()}


@pytest.mark.parametrize("plan", ["plain", "secure"])
def test_server_that_does_not_lie_finishes(plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run_under(Lie(), plan_for(Lie(), secure=plan == "secure"), tmp_path, monkeypatch)
    assert outcome.error is None
    assert outcome.refusals == []
    assert all(outcome.trained_in(number) == everybody(outcome) for number in (1, 2, 3))


@pytest.mark.parametrize(("told", "plan"), CASES)
def test_lie_is_found_within_one_round(told: Told, plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lie = told.lie()
    outcome = run_under(lie, plan_for(lie, secure=plan == "secure"), tmp_path, monkeypatch)
    owners = everybody(outcome)
    finders = owners if lie.finders is None else lie.finders
    assert len(owners) == OWNERS

    # Until it was told, all went well; from then on, nobody who could find it out has trained, and nothing has left.
    assert all(outcome.sent_in(number) == outcome.trained_in(number) == owners for number in range(1, lie.first))
    assert all(outcome.sent_in(number).isdisjoint(finders) for number in range(lie.first, 4))
    before = owners if lie.late else owners - finders if lie.others_train else set()
    assert outcome.trained_in(lie.first) == before
    assert outcome.trained_in(lie.first + 1) == set()
    assert outcome.error is not None, "the server could not go on"
    assert f"round {lie.first} brought" in outcome.error.problem

    # Each of them has read why, and of which entry.
    about = [one for one in outcome.refusals if told.words in one.sentence]
    assert {one.client for one in about} == finders
    assert all(one.reason is told.reason for one in about)
    for one in about:
        assert bool(lie.indices) == ("entry " in one.sentence)
        assert not lie.indices or any(f"entry {index}: " in one.sentence for index in lie.indices)

    # What proves a lie stops an owner until a person has looked; what may be bad luck does not.
    assert {witness_stopped(outcome, client) for client in finders} == {plan in told.stops}


def witness_stopped(outcome: Outcome, client: str) -> bool:
    (participant,) = (one for one in outcome.owners._participants.values() if one.client_id == client)
    assert participant._witness is not None
    try:
        participant._witness.refuse_if_halted()
    except AuditError as error:
        assert error.fault is AuditFault.HALTED
        return True
    return False


@pytest.mark.parametrize(("told", "plan"), CASES)
def test_lie_goes_through_where_its_check_is_off(
    told: Told, plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.off(monkeypatch)
    lie = told.lie()
    outcome = run_under(lie, plan_for(lie, secure=plan == "secure"), tmp_path, monkeypatch)
    assert outcome.error is None
    assert outcome.refusals == []
    assert len(outcome.sent) == len(outcome.trained) == 3 * OWNERS
