"""Verification of a whole log: each check fails for its own reason, names the entry, and the others are still made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_cases import Step, call, do
from audit_logs import (
    CLIENT_PRIVATE,
    EXAMPLE_PRIVATE,
    SCORED,
    SECURE,
    AuditLogBuilder,
    audited_plan,
    digest_of,
    full_log,
    key_called,
    ml_dsa_key_called,
)
from testudo_common.audit.entries import Contribution
from testudo_common.audit.extension import decode_extension
from testudo_common.audit.log import AuditLog
from testudo_common.audit.receipts import receipt_for
from testudo_common.audit.verify import Check, Evidence, Outcome, Own, Verdict, verify
from testudo_common.errors import AuditError

PLAN = audited_plan(*EXAMPLE_PRIVATE, *SCORED, tables=SECURE)
A = "owner-00"
NAMES = (
    "signature and quorum",
    "earlier checkpoints",
    "receipts",
    "order of entries",
    "chain of models",
    "epsilon",
    "approvals",
    "smallest cohorts",
    "enrolled keys",
    "contributions",
)


def evidence_of(log: AuditLogBuilder, **more: Any) -> Evidence:
    """All of a log, under a checkpoint that everybody cosigned."""
    found = Evidence(log.federation_public, tuple(log.entries), (log.note(),))
    return replace(found, **more)


def check_of(verdict: Verdict, name: str) -> Check:
    (found,) = (check for check in verdict.checks if check.name == name)
    return found


def failed(verdict: Verdict) -> set[str]:
    return {check.name for check in verdict.checks if check.outcome is Outcome.FAILED}


def receipt_of(log: AuditLogBuilder, index: int, size: int | None = None, **more: Any) -> bytes:
    kept = AuditLog(None)
    kept.append(log.entries, log.note(size, **more))
    return receipt_for(kept, index).encode()


@pytest.fixture(scope="module")
def log() -> AuditLogBuilder:
    """Never changed."""
    return full_log(PLAN, 10)


# A log that holds.


@pytest.mark.parametrize(
    ("settings", "tables", "said"),
    [
        ((), {}, ""),
        ((), SECURE, ""),
        (EXAMPLE_PRIVATE, SECURE, "one example: epsilon"),
        (CLIENT_PRIVATE, SECURE, "one client: epsilon"),
    ],
    ids=["plain", "secure", "example", "client"],
)
def test_valid_log_holds(settings: tuple[str, ...], tables: dict[str, Any], said: str) -> None:
    plan = audited_plan(*settings, tables=tables) if tables else audited_plan(*settings)
    found = full_log(plan, 10)
    verdict = verify(evidence_of(found))
    assert verdict.holds and verdict.first_failure is None
    assert tuple(check.name for check in verdict.checks) == NAMES
    skipped = {check.name for check in verdict.checks if check.outcome is Outcome.SKIPPED}
    assert skipped == {"earlier checkpoints", "receipts", *([] if said else ["epsilon"])}
    assert said in check_of(verdict, "epsilon").detail
    assert (verdict.entries, verdict.rounds, verdict.plan) == (len(found.entries), 4, "small")
    assert verdict.origin == f"testudo/shops/{plan.digest[:16]}"


def test_figures_are_told(log: AuditLogBuilder) -> None:
    verdict = verify(
        evidence_of(
            log, kept=(("mine", log.note(40)),), receipts=(("r1", receipt_of(log, 14, 20, cosigners=log.owners[:8])),)
        )
    )
    said = {check.name: check.detail for check in verdict.checks}
    assert said["signature and quorum"] == (
        "68 entries cosigned by 10 of 10 witnesses, 7 have to; two histories would need 4 witnesses that sign both"
    )
    assert said["earlier checkpoints"] == "the log extends 1 earlier checkpoint, from the first 40 entries on"
    assert said["receipts"] == "1 receipt of entries of this log, each seen by 8 or more"
    assert said["order of entries"] == "4 rounds closed of 4, in 5 attempts"
    assert said["epsilon"].endswith("recomputed for 4 rounds: one example: epsilon 13.98 at delta 1e-05 after 16 steps")
    assert said["approvals"] == "10 owners approved; nobody else was asked"
    assert said["smallest cohorts"].startswith("the smallest cohort had 8 clients, the smallest sum 3")
    assert said["enrolled keys"] == "10 members enrolled; 31 updates signed, each by its owner"


def test_each_entry_is_told_of(log: AuditLogBuilder) -> None:
    seen: list[int] = []
    verify(evidence_of(log), seen.append)
    assert seen == list(range(len(log.entries)))


def test_log_with_a_key_of_ml_dsa() -> None:
    found = full_log(audited_plan(), 5, log_key=ml_dsa_key_called("log"))
    assert verify(evidence_of(found)).holds
    other = found.note(log_key=ml_dsa_key_called("another log"))
    assert failed(verify(evidence_of(found, notes=(other,)))) == {"signature and quorum"}


def test_run_that_has_not_begun_holds() -> None:
    verdict = verify(evidence_of(AuditLogBuilder(PLAN)))
    assert verdict.holds
    assert check_of(verdict, "chain of models") == Check("chain of models", Outcome.SKIPPED, "no round is closed")


# Signatures, checkpoints, receipts.


def notes_case(
    make: Callable[[AuditLogBuilder], dict[str, Any]], name: str, problem: str, entry: int | None = None
) -> Any:
    return pytest.param(make, name, problem, entry, id=problem)


@pytest.mark.parametrize(
    ("make", "name", "problem", "entry"),
    [
        notes_case(lambda log: {"notes": ()}, "signature and quorum", "the log is under no checkpoint"),
        notes_case(
            lambda log: {"notes": (log.note(60),)},
            "signature and quorum",
            "from here on, the log is under no checkpoint",
            60,
        ),
        notes_case(
            lambda log: {"notes": (log.note(log_key=key_called("mallory")),)},
            "signature and quorum",
            "the log did not sign",
        ),
        notes_case(
            lambda log: {"notes": (log.note().replace(b"testudo/shops/", b"testudo/stalls/"),)},
            "signature and quorum",
            "a checkpoint of another log",
        ),
        notes_case(
            lambda log: {"entries": tuple(log.entries[:60])},
            "signature and quorum",
            "a checkpoint over 68 entries, and 60 are there",
        ),
        notes_case(
            lambda log: {"notes": (log.note(cosigners=log.owners[:6]),)},
            "signature and quorum",
            "6 of 10 witnesses cosigned, and 7 have to",
        ),
        notes_case(
            lambda log: {"notes": (log.note(50), log.note(cosigners=()))},
            "signature and quorum",
            "only the first 50 entries were cosigned by a quorum, and this round closed after them",
            52,
        ),
        notes_case(
            lambda log: {"notes": (forged_cosignature(log),)},
            "signature and quorum",
            "the signature of owner-09 does not hold",
        ),
        notes_case(
            lambda log: {"kept": (("mine", full_log(audited_plan(), 10).note()),)},
            "earlier checkpoints",
            "mine: a checkpoint of another log",
        ),
        notes_case(
            lambda log: {"kept": (("mine", forked(log).note(40)),)},
            "earlier checkpoints",
            "mine: the first 40 entries are others than they were before",
        ),
        notes_case(
            lambda log: {"entries": tuple(log.entries[:60]), "notes": (log.note(60),), "kept": (("mine", log.note()),)},
            "earlier checkpoints",
            "mine: the log has 60 entries, and had 68 before",
        ),
        notes_case(
            lambda log: {"receipts": (("r1", receipt_of(forked(log), 30)),)},
            "receipts",
            "r1: a checkpoint over 68 entries, and they are others here",
        ),
        notes_case(
            lambda log: {"receipts": (("r1", receipt_of(log, 30, cosigners=log.owners[:6])),)},
            "receipts",
            "r1, entry 30: a receipt that 6 witnesses cosigned, where 7 have to",
            30,
        ),
        notes_case(lambda log: {"receipts": (("r1", b"junk"),)}, "receipts", "r1: not a receipt of an audit log"),
        notes_case(
            lambda log: {"receipts": (("r1", receipt_of(log, 30).replace(b"index 30", b"index 31")),)},
            "receipts",
            "r1, entry 31: the inclusion proof does not lead to the root",
            31,
        ),
    ],
)
def test_what_was_not_signed_or_kept_is_found(
    log: AuditLogBuilder, make: Callable[[AuditLogBuilder], dict[str, Any]], name: str, problem: str, entry: int | None
) -> None:
    verdict = verify(evidence_of(log, **make(log)))
    first = verdict.first_failure
    assert first is not None and not verdict.holds
    assert (first.name, first.entry) == (name, entry)
    assert problem in first.detail
    assert {check.outcome for check in verdict.checks[3:]} == {Outcome.OK}, "the others are made all the same"


def forged_cosignature(log: AuditLogBuilder) -> bytes:
    """The line of one witness, over another text."""
    mine, other = log.note().split(b"\n"), log.note(40).split(b"\n")
    mine[-2] = other[-2]
    return b"\n".join(mine)


def forked(log: AuditLogBuilder) -> AuditLogBuilder:
    """Another history of the same log, signed by everybody, that differs from entry 30 on."""
    other = AuditLogBuilder(log.plan, 10, enrol=False)
    other.entries = [*log.entries[:30], log.entries[30].replace(b"12:00:00", b"12:00:01"), *log.entries[31:]]
    return other


def test_tail_that_trains_nothing_may_be_signed_by_the_log_alone() -> None:
    found = full_log(PLAN, 10)
    seen = found.note()
    found.release()
    verdict = verify(evidence_of(found, notes=(seen, found.note(cosigners=()))))
    assert verdict.holds
    assert "the last 1 entry by the log alone" in check_of(verdict, "signature and quorum").detail


def test_last_round_of_a_run_that_goes_on_need_not_be_cosigned_yet(log: AuditLogBuilder) -> None:
    notes = (log.note(60), log.note(cosigners=()))
    assert not verify(evidence_of(log, notes=notes)).holds
    assert verify(evidence_of(log, notes=notes, unseen_rounds=1)).holds
    assert not verify(evidence_of(log, notes=(log.note(50), log.note(cosigners=())), unseen_rounds=1)).holds


# What the replay finds.


def epsilon_told_smaller(log: AuditLogBuilder) -> None:
    account = log.history.next_accounts()[0]
    assert account is not None and account.epsilon is not None
    log.close(example=account.model_copy(update={"epsilon": account.epsilon / 2}))


REPLAYED: dict[str, tuple[str, Step, Step, str]] = {
    # name -> the check that fails; what was before; the entry that is wrong; what is said of it
    "a round left out": ("order of entries", call("round"), call("open", round=3), "round 3 is opened where round 2"),
    "another model": (
        "chain of models",
        call("round"),
        call("open", model_digest=digest_of("another")),
        "round 2 does not begin from the model that came before",
    ),
    "an epsilon told smaller": ("epsilon", call("attempt"), epsilon_told_smaller, "and comes to epsilon"),
    "an owner that withdrew": (
        "approvals",
        call("withdraw", A),
        call("open", cohort=tuple(f"owner-{n:02d}" for n in range(8))),
        "owner-00, entry 11: it is asked, and has withdrawn",
    ),
    "a small cohort": (
        "smallest cohorts",
        call("incident"),
        call("open", cohort=("owner-00", "owner-01", "owner-02")),
        "a cohort of 3, where the plan has 4 to 8",
    ),
    "groups that the server chose": (
        "smallest cohorts",
        call("open"),
        call("draw_groups", coin=digest_of("heads")),
        "the groups are not those that the coin draws",
    ),
    "a stranger's approval": (
        "enrolled keys",
        call("incident"),
        lambda log: log.approve("stranger", key=key_called("stranger")),
        "stranger, entry 11: it is not enrolled",
    ),
    "a forged update": (
        "enrolled keys",
        do(call("open"), call("draw_groups")),
        lambda log: log.receive(A, key=key_called("mallory")),
        "the contribution of owner-00 is not signed with its key",
    ),
    "a second update": (
        "contributions",
        do(call("open"), call("draw_groups"), call("receive", A)),
        call("receive", A),
        "owner-00, entry 13: a second update in one attempt",
    ),
}


@pytest.mark.parametrize("name", REPLAYED)
def test_breach_fails_its_check_and_no_other(name: str) -> None:
    """Although the log's own key and all witnesses signed it."""
    expected, before, wrong, problem = REPLAYED[name]
    found = AuditLogBuilder(PLAN)
    before(found)
    wrong(found)
    verdict = verify(evidence_of(found))
    assert failed(verdict) == {expected}
    check = check_of(verdict, expected)
    assert check.entry == len(found.entries) - 1
    assert problem in check.detail
    assert check_of(verdict, "signature and quorum").outcome is Outcome.OK


def test_log_goes_on_after_a_breach_and_a_second_one_is_found_too() -> None:
    found = AuditLogBuilder(PLAN)
    found.attempt()
    found.reject()
    epsilon_told_smaller(found)
    wrong = len(found.entries) - 1
    good = AuditLogBuilder(PLAN)
    good.rounds(2)
    tail = good.entries[len(found.entries) :]
    found.entries += tail
    found.entries.append(good.entries[2])  # an approval again
    verdict = verify(evidence_of(found))
    assert failed(verdict) == {"epsilon", "approvals"}
    assert check_of(verdict, "epsilon").entry == wrong
    assert check_of(verdict, "approvals").entry == len(found.entries) - 1
    assert verdict.rounds == 2


def test_entry_that_cannot_be_read_ends_the_replay(log: AuditLogBuilder) -> None:
    found = AuditLogBuilder(PLAN, 10, enrol=False)
    found.entries = [*log.entries[:30], b"{}", *log.entries[31:]]
    verdict = verify(evidence_of(found))
    assert failed(verdict) == {"order of entries"}
    assert check_of(verdict, "order of entries").entry == 30
    assert check_of(verdict, "epsilon").detail == "nothing is wrong before entry 30, and after it nothing can be known"
    assert check_of(verdict, "epsilon").outcome is Outcome.SKIPPED


def test_foreign_federation(log: AuditLogBuilder) -> None:
    other = key_called("another federation").public_key().public_bytes_raw()
    verdict = verify(evidence_of(log, federation_key=other))
    first = verdict.first_failure
    assert first is not None
    assert (first.name, first.entry) == ("enrolled keys", 1)
    assert "the roster is not signed with the federation's key" in first.detail
    assert check_of(verdict, "signature and quorum").outcome is Outcome.SKIPPED


@pytest.mark.parametrize("entries", [(), (b"",), (b"junk",), (b"{}",)], ids=["none", "empty", "junk", "an object"])
def test_nothing_of_a_log(entries: tuple[bytes, ...]) -> None:
    verdict = verify(Evidence(key_called("federation").public_key().public_bytes_raw(), entries, (b"",)))
    assert failed(verdict) == {"order of entries"}
    assert (verdict.origin, verdict.plan, verdict.rounds) == ("", "", 0)


def test_log_of_another_plan_than_its_place_says(log: AuditLogBuilder) -> None:
    assert verify(evidence_of(log, plan=PLAN.digest[:16])).holds
    assert failed(verify(evidence_of(log, plan="ab" * 8))) == {"order of entries"}


# What an owner knows.


def own_of(log: AuditLogBuilder, **more: Any) -> Own:
    """What the first owner knows when all is well."""
    mine = [statement for _, statement in log.history.contributions[A]]
    return replace(
        Own(
            client=A,
            sent={(each.round, each.attempt): digest_of("model", each.round - 1) for each in mine},
            signed=frozenset(mine),
            ledger=frozenset(each.ledger for each in mine),
            decided=True,
        ),
        **more,
    )


def test_owners_own_checks_hold(log: AuditLogBuilder) -> None:
    verdict = verify(evidence_of(log, own=own_of(log)))
    assert verdict.holds
    assert {"models sent to me", "my part", "my witness"} <= {check.name for check in verdict.checks}
    assert check_of(verdict, "my part").detail == "3 updates of owner-00, each signed by you; 3 in closed rounds"
    assert check_of(verdict, "models sent to me").detail == "3 models that you trained from, each the log's"


def index_of_first(log: AuditLogBuilder) -> int:
    return log.history.contributions[A][0][0]


@pytest.mark.parametrize(
    ("more", "name", "problem", "entry"),
    [
        (
            {"sent": {(1, 0): digest_of("another")}},
            "models sent to me",
            "another model in round 1.0 than the log's",
            12,
        ),
        (
            {"sent": {(9, 0): digest_of("another")}},
            "models sent to me",
            "you trained in round 9.0, which the log",
            None,
        ),
        ({"signed": frozenset[Contribution]()}, "my part", "an update in your name that you did not sign for", 14),
        ({"ledger": frozenset[str]()}, "my part", "an old copy was put back", 14),
        ({"decided": False}, "my part", "the log has a decision of owner-00 on this plan", None),
        ({"broken": "the ledger is damaged"}, "my part", "the ledger is damaged", None),
        ({"halted": "it has stopped"}, "my witness", "it has stopped", None),
    ],
    ids=["another model", "another round", "not signed", "rolled back", "not decided", "broken", "halted"],
)
def test_owner_finds_what_is_not_its_own(
    log: AuditLogBuilder, more: dict[str, Any], name: str, problem: str, entry: int | None
) -> None:
    verdict = verify(evidence_of(log, own=own_of(log, **more)))
    assert failed(verdict) == {name}
    assert problem in check_of(verdict, name).detail
    assert check_of(verdict, name).entry == entry


def test_ledger_that_a_person_adopted(log: AuditLogBuilder) -> None:
    verdict = verify(evidence_of(log, own=own_of(log, ledger=frozenset[str](), adopted=True)))
    assert verdict.holds
    assert "3 with an entry of the ledger from before you adopted it" in check_of(verdict, "my part").detail


# Any change at all.

EXPORTED = full_log(audited_plan(), 5)


@given(place=st.integers(0, len(EXPORTED.exported()) * 8 - 1))
@settings(max_examples=150, deadline=None)
def test_flipped_bit_anywhere(place: int) -> None:
    """Is found, but in the lines of witnesses beyond the quorum, where it is found too or costs that cosignature."""
    data = bytearray(EXPORTED.exported())
    data[place // 8] ^= 1 << place % 8
    try:
        extension = decode_extension(bytes(data))
    except AuditError:
        return
    verdict = verify(Evidence(EXPORTED.federation_public, extension.entries, (extension.note,)))
    whole = "cosigned by 5 of 5" in check_of(verdict, "signature and quorum").detail
    assert not (verdict.holds and whole)
