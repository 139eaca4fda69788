"""Whatever an owner does: no record is charged less than was spent on it, and no interleaving passes a ceiling."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger_cases import DATA, DELTA, PLAN, STEP, ceiling, in_folder, reserve
from testudo_client.ledger import Entry, Ledger, NewData, Occasion, Purpose, Reserved
from testudo_client.ledger.account import Account, fits, rounds_left, spent_on
from testudo_client.ledger.entries import Content, decode, encode
from testudo_common.errors import BudgetError
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.events import SampledGaussian, Spending, Unit, compose

NAMES = "ABCDE"
data_sets = st.fixed_dictionaries({name: st.frozensets(st.integers(0, 5), min_size=1) for name in NAMES})
actions = st.lists(st.tuples(st.sampled_from(["reserve", "declare"]), st.sampled_from(NAMES)), max_size=14)
mechanisms = st.builds(SampledGaussian, st.sampled_from([0.8, 1.5]), st.sampled_from([0.1, 1.0]), st.integers(0, 9))
spendings = st.builds(
    lambda example, client: Spending(compose(example), compose(client)),
    st.lists(mechanisms, max_size=3),
    st.lists(mechanisms, max_size=2),
)


def history(held: dict[str, frozenset[int]], steps: list[tuple[str, str]]) -> list[Entry]:
    """What a truthful owner writes: data is declared new only where it shares no record with earlier data."""
    entries: list[Entry] = []
    standing: dict[str, int] = {}
    for kind, name in steps:
        if kind == "declare" and any(held[name] & held[other] for other in standing if other != name):
            continue
        index = len(entries)
        occasion = Occasion(PLAN, index, 0, Purpose.TRAINING)
        # Each reservation is recognised by its number of steps: a power of two.
        told = Spending(example=(SampledGaussian(1.0, 0.1, 2**index),))
        content: Content = NewData(name, "") if kind == "declare" else Reserved(occasion, "p", name, told)
        entries.append(Entry(index, "", content, b""))
        standing.setdefault(name, index)
    return entries


def counted(spending: Spending) -> set[int]:
    """Which reservations are in it."""
    total = sum(event.steps for event in spending.example)
    return {index for index in range(total.bit_length()) if total >> index & 1}


@given(data_sets, actions)
@settings(max_examples=300, deadline=None)
def test_every_record_is_charged_all_that_was_spent_on_it(
    held: dict[str, frozenset[int]], steps: list[tuple[str, str]]
) -> None:
    entries = history(held, steps)
    for name, records in held.items():
        touching = {
            entry.index
            for entry in entries
            if isinstance(entry.content, Reserved) and records & held[entry.content.fingerprint]
        }
        assert touching <= counted(spent_on(entries, name))


@given(data_sets, actions)
@settings(max_examples=100, deadline=None)
def test_unknown_data_is_charged_everything_and_new_data_nothing_earlier(
    held: dict[str, frozenset[int]], steps: list[tuple[str, str]]
) -> None:
    entries = history(held, steps)
    everything = {entry.index for entry in entries if isinstance(entry.content, Reserved)}
    assert counted(spent_on(entries, "unknown")) == counted(spent_on(entries, "unknown", PLAN)) == everything
    fresh = [*entries, Entry(len(entries), "", NewData("F", ""), b"")]
    assert counted(spent_on(fresh, "F")) == set()
    own = Reserved(Occasion(PLAN, 0, 0, Purpose.TRAINING), "p", "F", Spending(example=(SampledGaussian(1, 0.1, 1),)))
    again = [*fresh, Entry(len(fresh), "", own, b"")]
    assert counted(spent_on(again, "F")) == {0}
    for name in NAMES:  # and what was declared disjoint of the others is not charged to them
        stands = any(getattr(entry.content, "fingerprint", None) == name for entry in entries)
        more = sum(e.steps for e in spent_on(again, name).example) - sum(e.steps for e in spent_on(fresh, name).example)
        assert more == (0 if stands else 1)


@given(actions, data_sets, st.integers(0, 14))
@settings(max_examples=50, deadline=None)
def test_a_running_fold_is_the_fold_of_everything(
    steps: list[tuple[str, str]], held: dict[str, frozenset[int]], cut: int
) -> None:
    entries = history(held, steps)
    account = Account(entries[:cut])
    for entry in entries[cut:]:
        account.add(entry)
    for name in (*NAMES, "unknown"):
        assert account.spent(name) == spent_on(entries, name)


@given(st.text(), st.text(), spendings, st.integers(0, 2**53 - 1), st.sampled_from(Purpose))
@settings(max_examples=100, deadline=None)
def test_any_reservation_is_read_as_it_was_written(
    name: str, fingerprint: str, spending: Spending, number: int, purpose: Purpose
) -> None:
    content = Reserved(Occasion(PLAN, number, 0, purpose), name, fingerprint, spending)
    assert decode(encode("now", content)) == ("now", content)


@given(spendings, spendings, st.floats(0.1, 20), st.sampled_from(Unit))
@settings(max_examples=50, deadline=None)
def test_rounds_left_is_the_last_count_that_fits(spent: Spending, one: Spending, epsilon: float, unit: Unit) -> None:
    limit = ceiling(epsilon, unit)
    left = rounds_left(spent, one, limit)
    if left == 1_000_000:
        assert fits(spent + one.times(left), limit) or not one.of(unit)
    else:
        assert left == 0 or fits(spent + one.times(left), limit)
        assert not fits(spent + one.times(left + 1), limit)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["reserve", "commit", "read", "again"])), max_size=20),
    st.integers(0, 6),
)
@settings(max_examples=25, deadline=None)
def test_no_interleaving_of_processes_passes_a_ceiling(turns: list[tuple[int, str]], rounds: int) -> None:
    """Three ledgers on one file, each with a memory of its own, in any order; a new one may take a place."""
    limit = ceiling(epsilon_of(STEP.times(rounds).example, DELTA, "rdp") + 1e-9)
    with tempfile.TemporaryDirectory() as folder:
        ledgers = [in_folder(Path(folder)) for _ in range(3)]
        length, taken = 1, 0
        for number, (who, action) in enumerate(turns):
            ledger: Ledger = ledgers[who]
            match action:
                case "reserve":
                    try:
                        assert reserve(ledger, number, ceilings=[limit]) == length
                        taken, length = taken + 1, length + 1
                    except BudgetError:
                        assert taken == rounds
                case "commit" if length > 1:
                    ledger.commit(1, "ee" * 32)
                    length += 1
                case "again":
                    ledgers[who] = in_folder(Path(folder))
                case _:
                    assert len(ledger) == length
        assert taken <= rounds
        for ledger in ledgers:
            assert len(ledger) == length
            assert ledger.spent(DATA) == (STEP.times(taken) if taken else Spending())
