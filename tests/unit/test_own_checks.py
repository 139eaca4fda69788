"""Each of an owner's own checks by itself: what it lets through at most, and that the attack works where it is off."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from audit_logs import CLIENT_PRIVATE, EXAMPLE_PRIVATE, SECURE, AuditLogBuilder, audited_plan, digest_of
from testudo_client import own_checks as checks
from testudo_common.audit.entries import Charter, Price, decode_entry
from testudo_common.audit.history import History
from testudo_common.errors import AuditError, AuditFault, LedgerError
from watching import ME, Watching

PRICED = audited_plan("rounds.max_participations=4", *EXAMPLE_PRIVATE, *CLIENT_PRIVATE, tables=SECURE)


def charter_with(**prices: Price) -> Charter:
    log = AuditLogBuilder(PRICED, 8, enrol=False)
    log.charter(**prices)
    charter = decode_entry(log.entries[0])
    assert isinstance(charter, Charter)
    return charter


@pytest.mark.parametrize(("what", "unit"), [("training", "example"), ("scores", "example"), ("sum", "client")])
@pytest.mark.parametrize("how", ["more noise", "a lower rate", "fewer steps", "fewer mechanisms"])
def test_charter_with_a_price_that_is_too_low(what: str, unit: str, how: str) -> None:
    """Where a plan's noise is found by PRV, the log's own rules only bound it; the owner computes the figure."""
    honest = getattr(charter_with(), what)
    checks.charter_states_my_prices(charter_with(), PRICED)
    events = list(getattr(honest, unit))
    noise, rate, steps = events.pop()
    match how:
        case "more noise":
            events.append((1.003 * noise, rate, steps))
        case "a lower rate":
            events.append((noise, 0.99 * rate, steps))
        case "fewer steps":
            events.append((noise, rate, steps - 1))
    other = charter_with(**{what: honest.model_copy(update={unit: tuple(events)})})
    with pytest.raises(AuditError) as caught:
        checks.charter_states_my_prices(other, PRICED)
    assert (caught.value.fault, caught.value.index) == (AuditFault.EPSILON, 0)


def test_price_to_the_accuracy_of_another_computer() -> None:
    honest = charter_with().training
    close = tuple((1.0015 * noise, rate, steps) for noise, rate, steps in honest.example)
    checks.charter_states_my_prices(charter_with(training=Price(example=close)), PRICED)


@pytest.fixture
def watching() -> Watching:
    """After one round, in the second."""
    found = Watching(audited_plan("rounds.cohort_size=5"))
    found.round()
    found.log.open()
    found.tell()
    return found


BUNDLE = digest_of("a bundle")


@pytest.mark.parametrize(
    ("logged", "came", "says"),
    [
        (BUNDLE, BUNDLE, None),
        (BUNDLE, None, None),
        (None, None, None),
        (digest_of("another"), BUNDLE, f"came here is {BUNDLE}, and the log's charter names {digest_of('another')}"),
        (None, BUNDLE, "names none"),
    ],
)
def test_bundle_that_the_charter_names(logged: str | None, came: str | None, says: str | None) -> None:
    """It stops no owner for good: a person may have looked at the other bundle, and pin it."""
    log = AuditLogBuilder(audited_plan(), 5, enrol=False)
    log.charter(bundle=logged)
    log.enrol()
    watching = Watching(log.plan, log=log, bundle_digest=came)
    if says is None:
        assert watching.testimony().cosignature
        return
    for _ in range(2):
        with pytest.raises(AuditError, match=says) as caught:
            watching.tell()
        assert (caught.value.fault, caught.value.index) == (AuditFault.PLAN, 0)
    assert watching.size == 0, "nothing of it is taken"


# What each check is for: without it, the attack goes through.


def stale(watching: Watching) -> None:
    watching.witness.check(watching.request(body=watching.log.note(len(watching.log.entries) - 1)))


def alone(watching: Watching) -> None:
    watching.witness.check(watching.request(()))


def again(watching: Watching) -> None:
    watching.witness.check(watching.request(round=1))


def other_model(watching: Watching) -> None:
    watching.witness.check(watching.request(model_digest=digest_of("another model")))


def chosen_weights(watching: Watching) -> None:
    watching.witness.check(watching.request(), lambda: digest_of("the plan's own"))


def beside(watching: Watching) -> None:
    for owner in watching.log.owners[1:]:
        watching.log.receive(owner)
    watching.log.close()
    watching.log.open(cohort=watching.log.owners[1:])
    watching.tell()
    watching.witness.check(watching.request())


def other_group(watching: Watching) -> None:
    watching.witness.check_groups(2, 0, bytes(32), (ME, "mallory"))


def other_roster(watching: Watching) -> None:
    watching.log.enrol(watching.log.roster(watching.log.owners[:4]))
    watching.tell()


def other_bundle(watching: Watching) -> None:
    Watching(watching.plan, bundle_digest=digest_of("the bundle that came")).tell()


def other_ledger(watching: Watching) -> None:
    watching.log.receive(ME)
    watching.tell()


def forgotten_withdrawal(watching: Watching) -> None:
    watching.log.withdraw(ME)
    watching.tell()


@pytest.mark.parametrize(
    ("check", "attack"),
    [
        ("note_is_over_my_mirror", stale),
        ("quorum_has_seen", alone),
        ("attempt_is_open", again),
        ("model_is_logged", other_model),
        ("run_began_from_the_plans_model", chosen_weights),
        ("cohort_holds_me", beside),
        ("groups_are_logged", other_group),
        ("roster_is_mine", other_roster),
        ("bundle_is_mine", other_bundle),
        ("contributions_are_mine", other_ledger),
        ("withdrawal_is_mine", forgotten_withdrawal),
    ],
)
def test_attack_works_where_its_check_is_off(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, check: str, attack: Callable[[Watching], None]
) -> None:
    def off(history: History, *_: object) -> object:
        return history.opened if check == "attempt_is_open" else None

    monkeypatch.setattr(checks, check, off)
    attack(watching)
    monkeypatch.undo()


@pytest.mark.parametrize(
    "attack",
    [
        stale, alone, again, other_model, chosen_weights, beside, other_group, other_roster, other_bundle,
        other_ledger, forgotten_withdrawal,
    ],
)  # fmt: skip
def test_and_not_where_it_is_on(watching: Watching, attack: Callable[[Watching], None]) -> None:
    with pytest.raises((AuditError, LedgerError)):
        attack(watching)
