"""The ledger in use: what it writes, what it refuses, and what it says then."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ledger_cases import DATA, DELTA, OTHER_PLAN, PLAN, STEP, SUM, ceiling, in_folder, in_memory, noon, reserve
from testudo_client.ledger import (
    Approved,
    Committed,
    Entry,
    Ledger,
    NewData,
    Occasion,
    Opened,
    Purpose,
    Reserved,
    Withdrawn,
)
from testudo_client.ledger.account import Account, epsilon_under, epsilons_of, fits, rounds_left, spent_on
from testudo_client.ledger.chain import GENESIS, follow, link
from testudo_client.ledger.entries import decode, encode
from testudo_common.errors import BudgetError, LedgerError, PrivacyError
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.events import SampledGaussian, Spending, Unit

TIME = "2026-03-01T12:00:00Z"
CONTENTS = [
    Opened("0f" * 16),
    Reserved(Occasion(PLAN, 3, 1, Purpose.SCORES), "ümlaut", DATA, STEP + SUM),
    Committed(1, "ee" * 32),
    Approved(PLAN, "small", "dd" * 32, "shop-1", "99" * 64),
    Withdrawn(PLAN, "shop-1", "99" * 64),
    NewData(DATA, "the year 2026 only"),
]


# --- entries


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: type(content).__name__)
def test_an_entry_is_read_as_it_was_written(content: Opened) -> None:
    assert decode(encode(TIME, content)) == (TIME, content)


def test_the_bytes_of_an_entry_and_its_hash_are_as_documented() -> None:
    """Known answer, worked out by hand from the two formats."""
    data = encode(TIME, Reserved(Occasion("9f86", 3, 0, Purpose.TRAINING), "digits", "5d41", STEP))
    assert data == (
        b'{"fingerprint":"5d41","occasion":{"attempt":0,"plan_digest":"9f86","purpose":"training","round":3},'
        b'"plan_name":"digits","spending":{"client":[],"example":[[1.1,0.05,20]]},'
        b'"time":"2026-03-01T12:00:00Z","type":"reserved","version":1}'
    )
    # printf 'testudo-ledger-1', 32 zero bytes, 'x' | sha256sum
    assert link(GENESIS, b"x").hex() == "134639cd9c840cb69c9b50ba240fb2af42bf132b7c3495cce4145f28831a3dd9"


GOOD = encode(TIME, CONTENTS[1])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        GOOD.replace(b'"reserved"', b'"refunded"'),
        GOOD.replace(b'"version":1', b'"version":2'),
        GOOD.replace(b'"round":3', b'"round":-3'),
        GOOD.replace(b'"round":3', b'"round":true'),
        GOOD.replace(b'"round":3', b'"round":3.0'),
        GOOD.replace(b'"round":3', b'"round": 3'),
        GOOD.replace(b'"round":3', b'"round":3,"turn":1'),
        GOOD.replace(b'"version":1', b'"unknown":0,"version":1'),
        GOOD.replace(b'"purpose":"scores"', b'"purpose":"fun"'),
        GOOD.replace(b"[1.1,0.05,20]", b"[-1.1,0.05,20]"),
        GOOD.replace(b"[1.1,0.05,20]", b"[1.1,0.05]"),
        GOOD.replace(b"[1.1,0.05,20]", b'["1.1",0.05,20]'),
        GOOD.replace(b"[1.1,0.05,20]", b"[NaN,0.05,20]"),
        GOOD + b" ",
        GOOD.replace(b'"time"', b'"time":"","time"'),
    ],
)
def test_bytes_that_no_entry_has_are_refused(data: bytes) -> None:
    assert data != GOOD
    with pytest.raises(LedgerError):
        decode(data)


def test_what_has_no_canonical_form_is_not_written() -> None:
    ledger = in_memory()
    with pytest.raises(LedgerError, match="cannot be written down"):
        reserve(ledger, spending=Spending(example=(SampledGaussian(float("inf"), 0.1, 1),)))
    assert len(ledger) == 1


# --- the chain


def rows(count: int) -> list[tuple[int, bytes, bytes]]:
    found, previous = [], GENESIS
    for index in range(count):
        data = encode(TIME, CONTENTS[0] if index == 0 else NewData(DATA, str(index)))
        previous = link(previous, data)
        found.append((index, data, previous))
    return found


def test_a_chain_is_followed_from_any_place() -> None:
    whole = list(follow(rows(5)))
    assert list(follow(rows(5)[3:], index=3, previous=whole[2].hash)) == whole[3:]


@pytest.mark.parametrize("fault", ["edited", "reordered", "missing", "first twice", "no first", "other hash"])
def test_a_broken_chain_is_refused(fault: str) -> None:
    made = rows(5)
    match fault:
        case "edited":
            made[2] = (2, encode(TIME, NewData(DATA, "other")), made[2][2])
        case "reordered":
            made[2], made[3] = (2, *made[3][1:]), (3, *made[2][1:])
        case "missing":
            del made[2]
        case "first twice":
            data = encode(TIME, CONTENTS[0])
            made[2] = (2, data, link(made[1][2], data))
        case "no first":
            data = encode(TIME, CONTENTS[5])
            made[0] = (0, data, link(GENESIS, data))
        case _:
            made[2] = (*made[2][:2], bytes(32))
    with pytest.raises(LedgerError, match=f"entry {0 if fault == 'no first' else 2}"):
        list(follow(made))


# --- the ledger


def test_a_reservation_is_there_for_the_next_process(tmp_path: Path) -> None:
    first = in_folder(tmp_path)
    index = reserve(first)
    first.commit(index, "ee" * 32)
    second = in_folder(tmp_path)
    assert second.entries() == first.entries()
    assert [type(entry.content).__name__ for entry in second.entries()] == ["Opened", "Reserved", "Committed"]
    assert second.head == first.head == second.entries()[-1].hash
    assert second.spent(DATA) == STEP


def test_another_ledger_on_the_same_file_is_seen(tmp_path: Path) -> None:
    first, second = in_folder(tmp_path), in_folder(tmp_path)
    assert [reserve(first), reserve(second), reserve(first)] == [1, 2, 3]
    assert second.spent(DATA) == STEP.times(3)
    assert len(first) == len(second) == 4


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    further = tmp_path / "usb" / "deep" / "anchor"
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    reserve(in_folder(home, further))
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert {path.name for path in found} >= {"ledger.db", "ledger.anchor", "anchor", "state", "deep"}
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in found.items())


def test_threads_share_a_ledger(tmp_path: Path) -> None:
    for ledger in (in_memory(), in_folder(tmp_path)):
        with ThreadPoolExecutor(4) as pool:
            indices = list(pool.map(lambda number: reserve(ledger, number), range(20)))  # noqa: B023
        assert sorted(indices) == list(range(1, 21))
        assert ledger.spent(DATA) == STEP.times(20)


def test_the_time_is_utc_in_whole_seconds() -> None:
    ledger = in_memory()
    assert ledger.entries()[0].time == TIME == noon().strftime("%Y-%m-%dT%H:%M:%SZ")


def test_what_is_not_a_reservation_cannot_be_committed() -> None:
    ledger = in_memory()
    for index in (-1, 0, 1, 7):
        with pytest.raises(LedgerError, match="is no reservation"):
            ledger.commit(index, "ee" * 32)
    assert len(ledger) == 1


@pytest.mark.parametrize("content", [CONTENTS[0], CONTENTS[1], CONTENTS[2]], ids=lambda c: type(c).__name__)
def test_only_the_owners_decisions_are_appended_unasked(content: NewData) -> None:
    with pytest.raises(LedgerError, match="use reserve"):
        in_memory().append(content)


def test_the_same_occasion_is_refused_where_it_may_be_once_only() -> None:
    ledger = in_memory()
    reserve(ledger, 1, purpose=Purpose.SUM, spending=SUM, once=True)
    reserve(ledger, 1, purpose=Purpose.TRAINING, once=True)
    reserve(ledger, 1, attempt=1, purpose=Purpose.SUM, spending=SUM, once=True)
    reserve(ledger, 1, plan=OTHER_PLAN, purpose=Purpose.SUM, spending=SUM, once=True)
    with pytest.raises(LedgerError, match=r"round 1, attempt 0 was answered before \(sum\)"):
        reserve(ledger, 1, purpose=Purpose.SUM, spending=SUM, once=True)
    assert len(ledger) == 5


def test_answers_are_counted_by_plan_and_purpose_retries_included() -> None:
    ledger = in_memory()
    reserve(ledger, 1, max_times=2)
    reserve(ledger, 1, attempt=1, max_times=2)
    reserve(ledger, 1, plan=OTHER_PLAN, max_times=1)
    reserve(ledger, 1, purpose=Purpose.SCORES, max_times=1)
    with pytest.raises(BudgetError, match="answered 2 times under this plan") as refused:
        reserve(ledger, 2, max_times=2)
    assert (refused.value.spent, refused.value.asked, refused.value.ceiling, refused.value.rounds_left) == (2, 3, 2, 0)
    assert len(ledger) == 5


# --- ceilings


@pytest.mark.parametrize(("accountant", "most"), [("prv", 1.8), ("rdp", 2.1)])
def test_what_does_not_fit_is_refused_with_the_four_figures(accountant: str, most: float) -> None:
    ledger, limit = in_memory(), ceiling(most, accountant=accountant)
    reserve(ledger, 1, ceilings=[limit])
    with pytest.raises(BudgetError, match=r"privacy\.epsilon: example-level epsilon .* is spent on this data") as found:
        reserve(ledger, 2, ceilings=[limit])
    error = found.value
    assert error.spent == epsilon_under(STEP, limit) <= most == error.ceiling
    assert error.asked == epsilon_under(STEP.times(2), limit) > most
    assert error.rounds_left == 0
    for figure in (f"{error.spent:.3f}", f"{error.asked:.3f}", f"is {most}", "no more rounds of this kind fit"):
        assert figure in str(error)
    assert len(ledger) == 2


def test_every_ceiling_holds_its_own_account() -> None:
    ledger = in_memory()
    reserve(ledger, 1, spending=STEP.times(100))
    life = ceiling(1.8, where="privacy.example.epsilon_for_life")
    plan_only = ceiling(2.0, plan_digest=OTHER_PLAN)
    client = ceiling(3.0, Unit.CLIENT, where="client_privacy.epsilon")
    reserve(ledger, 1, plan=OTHER_PLAN, ceilings=[plan_only, client])
    reserve(ledger, 1, spending=SUM, ceilings=[life, client])  # costs the example-level account nothing
    with pytest.raises(BudgetError, match="epsilon_for_life"):
        reserve(ledger, 2, plan=OTHER_PLAN, ceilings=[life, plan_only])
    with pytest.raises(BudgetError, match=r"client_privacy\.epsilon: client-level"):
        reserve(ledger, 2, spending=SUM.times(2), ceilings=[client])
    assert len(ledger) == 4


def test_steps_without_noise_fit_under_no_ceiling() -> None:
    ledger = in_memory()
    bare = Spending(example=(SampledGaussian(0.0, 0.1, 1),))
    with pytest.raises(BudgetError, match=r"would make it infinite \(steps without noise\)"):
        reserve(ledger, spending=bare, ceilings=[ceiling(100)])
    reserve(ledger, spending=bare)
    with pytest.raises(BudgetError):
        reserve(ledger, 2, ceilings=[ceiling(100)])


def test_prv_is_asked_only_where_rdp_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def listening(events: tuple[SampledGaussian, ...], delta: float, accountant: str) -> float:
        asked.append(accountant)
        return epsilon_of(events, delta, accountant)  # type: ignore[arg-type]

    monkeypatch.setattr("testudo_client.ledger.account.epsilon_of", listening)
    by_prv, by_rdp = (epsilon_of(STEP.example, DELTA, name) for name in ("prv", "rdp"))
    assert by_prv < by_rdp
    assert fits(STEP, ceiling(by_rdp, accountant="prv"))
    assert "prv" not in asked
    assert fits(STEP, ceiling((by_prv + by_rdp) / 2, accountant="prv"))
    assert asked.count("prv") == 1
    assert not fits(STEP, ceiling((by_prv + by_rdp) / 2, accountant="rdp"))


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_rounds_left_are_those_that_fit(accountant: str) -> None:
    limit = ceiling(4.0, accountant=accountant)
    left = rounds_left(STEP, STEP, limit)
    assert left > 3
    assert fits(STEP.times(1 + left), limit)
    assert not fits(STEP.times(2 + left), limit)
    assert rounds_left(STEP.times(1 + left), STEP, limit) == 0
    assert rounds_left(STEP, SUM, limit) == rounds_left(Spending(), Spending(), limit) == 1_000_000


def test_both_epsilons_of_an_account() -> None:
    both = epsilons_of(STEP + SUM, Unit.CLIENT, DELTA)
    assert both.rdp == epsilon_of(SUM.client, DELTA, "rdp")
    assert both.prv == epsilon_of(SUM.client, DELTA, "prv")
    assert epsilons_of(Spending(), Unit.EXAMPLE, DELTA).prv == 0


@pytest.mark.parametrize(("steps", "delta"), [(100_000, DELTA), (30, 1e-15)], ids=["huge epsilon", "tiny delta"])
def test_where_prv_does_not_reach_the_bound_is_rdps(steps: int, delta: float) -> None:
    spending = Spending(example=(SampledGaussian(0.9, 0.5, steps),))
    both = epsilons_of(spending, Unit.EXAMPLE, delta)
    assert both.prv is None
    assert 0 < both.rdp < float("inf")


def test_a_delta_beyond_prv_refuses_in_words() -> None:
    with pytest.raises(PrivacyError, match="PRV"):
        reserve(in_memory(), spending=STEP.times(30), ceilings=[ceiling(0.1, accountant="prv", delta=1e-15)])


def test_a_ledger_of_ten_thousand_entries_is_folded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every use would otherwise cost what opening costs."""
    ledger = in_memory()
    for number in range(5):
        reserve(ledger, number)
    verified = []

    def counting(data: bytes) -> tuple[str, object]:
        verified.append(data)
        return decode(data)

    monkeypatch.setattr("testudo_client.ledger.chain.decode", counting)
    reserve(ledger, 9)
    assert ledger.spent(DATA) == STEP.times(6)
    assert len(ledger.entries()) == 7
    assert verified == []


def test_a_fold_over_entries_is_the_ledgers_own() -> None:
    ledger = in_memory()
    reserve(ledger, 1)
    reserve(ledger, 2, plan=OTHER_PLAN, spending=SUM)
    entries = ledger.entries()
    assert all(isinstance(entry, Entry) for entry in entries)
    assert spent_on(entries, DATA) == ledger.spent(DATA) == STEP + SUM
    assert spent_on(entries, DATA, OTHER_PLAN) == SUM == Account(entries).spent("anything", OTHER_PLAN)


def test_a_ledger_without_durability_writes_the_same(tmp_path: Path) -> None:
    path, anchor = tmp_path / "ledger.db", tmp_path / "anchor"
    reserve(Ledger(path, anchors=[anchor], durable=False))
    reserve(Ledger(path, anchors=[anchor, anchor]))
    assert len(Ledger(path, anchors=[anchor], durable=False)) == 3
