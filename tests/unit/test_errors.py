"""Errors: what a person reads, and that a worker process can hand each of them to its parent whole."""

from __future__ import annotations

import copy
import pickle

import pytest

from testudo_common import errors
from testudo_common.errors import (
    AuditError,
    AuditFault,
    Breach,
    Fault,
    PeerError,
    PlanError,
    ProtocolError,
    TestudoError,
)

FAULTS = [Fault("inner.steps", "1 cannot be used", "Write 2"), Fault("", "not TOML", "Correct that line")]


def every_kind(kind: type[TestudoError] = TestudoError) -> list[type[TestudoError]]:
    return [kind, *(each for sub in kind.__subclasses__() for each in every_kind(sub))]


MADE: list[TestudoError] = [
    PlanError(FAULTS, source="plan.toml"),
    ProtocolError(Breach.TOO_FEW, "3 clients are there", where="group 2", remedy="Wait for more"),
    PeerError("shop-3", Breach.SHARE, "its share does not fit"),
    errors.PolicyError(FAULTS, source="policy.toml"),
    errors.BudgetError("it would spend too much", spent=7.5, asked=8.25, ceiling=8.0, rounds_left=0),
    errors.ProvisionError(
        errors.ProvisionFault.USED, "it was used already", where="request.json", remedy="Invite again"
    ),
    errors.ContractError(FAULTS, row=2),
    AuditError(AuditFault.ROUND, "it was closed before", index=7, where="shops.tlog", remedy="Ask why"),
]


def made(kind: type[TestudoError]) -> TestudoError:
    for error in MADE:
        if type(error) is kind:
            return error
    return kind("a column is missing", where="mine.csv", remedy="Add it")


def test_tree_is_one() -> None:
    named = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert named == set(every_kind())
    assert len(named) == 23


@pytest.mark.parametrize("kind", every_kind(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_error_is_pickled_whole(kind: type[TestudoError], protocol: int) -> None:
    error = made(kind)
    for again in (pickle.loads(pickle.dumps(error, protocol)), copy.deepcopy(error)):
        assert type(again) is kind
        assert again.__dict__ == error.__dict__
        assert again.args == error.args
        assert str(again) == str(error)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (made(errors.DataError), "mine.csv: a column is missing. Add it"),
        (errors.DataError("empty"), "empty"),
        (errors.DataError("empty", where="mine.csv"), "mine.csv: empty"),
        (errors.DataError("empty", remedy="Fill it"), "empty. Fill it"),
        (
            made(PlanError),
            "plan.toml: 2 faults in the plan\n"
            "  - inner.steps: 1 cannot be used. Write 2\n"
            "  - (whole file): not TOML. Correct that line",
        ),
        (made(ProtocolError), "group 2: 3 clients are there. Wait for more"),
        (made(PeerError), "shop-3: its share does not fit"),
        (made(AuditError), "shops.tlog, entry 7: it was closed before. Ask why"),
        (AuditError(AuditFault.ROUND, "it was closed before", index=0), "entry 0: it was closed before"),
        (AuditError(AuditFault.PROOF, "not so", where="shop-1"), "shop-1: not so"),
        (AuditError(AuditFault.PROOF, "not so"), "not so"),
    ],
)
def test_sentence(error: TestudoError, text: str) -> None:
    assert str(error) == text


def test_attributes_hold_what_the_sentence_is_made_of() -> None:
    plan_error = made(PlanError)
    assert isinstance(plan_error, PlanError)
    assert plan_error.faults == tuple(FAULTS)
    assert plan_error.source == plan_error.where == "plan.toml"


def test_breaches_are_fixed() -> None:
    """They are in rounds.jsonl, and programs may count them."""
    assert sorted(Breach) == [
        "commitment",
        "confirmation",
        "key",
        "left_out",
        "malformed",
        "members",
        "norm",
        "not_on_roster",
        "out_of_turn",
        "range",
        "reused",
        "share",
        "signature",
        "survivors",
        "too_few",
        "values",
    ]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_whose_fault_it_is_crosses_processes(protocol: int) -> None:
    again = pickle.loads(pickle.dumps(made(PeerError), protocol))
    assert isinstance(again, ProtocolError)
    assert (again.client_id, again.breach, again.where) == ("shop-3", Breach.SHARE, "shop-3")
    assert type(again.breach) is Breach


def test_audit_faults_are_fixed() -> None:
    """They stand in an owner's file of a log that it does not trust, and programs may count them."""
    assert sorted(AuditFault) == [
        "approval",
        "cohort",
        "contribution",
        "enrolment",
        "epsilon",
        "format",
        "groups",
        "halted",
        "model",
        "not_logged",
        "plan",
        "proof",
        "quorum",
        "receipt",
        "rewritten",
        "round",
        "signature",
        "split_view",
        "storage",
        "truncated",
    ]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_which_entry_it_is_crosses_processes(protocol: int) -> None:
    again = pickle.loads(pickle.dumps(made(AuditError), protocol))
    assert isinstance(again, AuditError)
    assert (again.fault, again.index, again.where) == (AuditFault.ROUND, 7, "shops.tlog, entry 7")
    assert type(again.fault) is AuditFault
