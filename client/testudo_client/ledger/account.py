"""What a ledger's entries add up to, and whether more fits: folds over entries. No file, no clock.

Sources: composition is the accountant's (testudo_common/privacy/accountant.py). Data sets are disjoint only where the
owner says so, since parallel composition over data that shares a record would count too little (McSherry 2009).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from testudo_client.ledger.entries import Entry, NewData, Occasion, Purpose, Reserved
from testudo_common.errors import BudgetError, PrivacyError
from testudo_common.privacy.accountant import AccountantName, epsilon_of
from testudo_common.privacy.events import Events, SampledGaussian, Spending, Unit

MOST_ROUNDS: Final = 1_000_000
"""More rounds than that are not told apart."""

_PRV_REACH: Final = 200.0
"""Above this epsilon PRV takes minutes or gives up, and is within a few per cent of RDP: RDP's is used."""
_PRV_STEPS: Final = 100_000
"""With more steps PRV takes seconds to minutes: it decides still, but does not estimate."""

_Mechanism = tuple[Unit, float, float]  # unit, noise multiplier, sample rate
_Steps = Counter[_Mechanism]


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that one account may hold.

    Attributes:
        where: The key that a person knows it by, such as ``privacy.epsilon``.
        unit: Whose account.
        epsilon: At ``delta``.
        delta: In (0, 1).
        accountant: Whose epsilon.
        plan_digest: Count what was reserved under this plan only; None: everything spent on the data.
    """

    where: str
    unit: Unit
    epsilon: float
    delta: float
    accountant: AccountantName
    plan_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Epsilons:
    """One account's epsilon by both accountants, each an upper bound.

    Attributes:
        prv: None where PRV's arithmetic does not reach: a tiny delta, or an epsilon of hundreds.
        rdp: Looser.
    """

    prv: float | None
    rdp: float


class Account:
    """A running fold: what entries add up to so far. Every entry is added once, in order."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._steps: defaultdict[tuple[str, str], _Steps] = defaultdict(Counter)  # (fingerprint, plan digest) -> steps
        self._first: dict[str, int] = {}  # fingerprint -> the entry it first stands in
        self._declared: dict[str, int] = {}  # fingerprint -> the last entry that declares it new
        self._answers: Counter[tuple[str, Purpose]] = Counter()
        self._occasions: set[Occasion] = set()
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Fold in the next entry."""
        match entry.content:
            case Reserved(occasion, _, fingerprint, spending):
                self._first.setdefault(fingerprint, entry.index)
                self._occasions.add(occasion)
                self._answers[occasion.plan_digest, occasion.purpose] += 1
                steps = self._steps[fingerprint, occasion.plan_digest]
                for unit in Unit:
                    for event in spending.of(unit):
                        steps[unit, event.noise_multiplier, event.sample_rate] += event.steps
            case NewData(fingerprint):
                self._first.setdefault(fingerprint, entry.index)
                self._declared[fingerprint] = entry.index
            case _:
                pass

    def spent(self, fingerprint: str, plan_digest: str | None = None) -> Spending:
        """See :func:`spent_on`."""
        total: _Steps = Counter()
        for (other, plan), steps in self._steps.items():
            if (not self._disjoint(fingerprint, other)) if plan_digest is None else plan == plan_digest:
                total.update(steps)
        return _spending(total)

    def answers(self, plan_digest: str, purpose: Purpose) -> int:
        """How many reservations there are of this plan and purpose."""
        return self._answers[plan_digest, purpose]

    def holds(self, occasion: Occasion) -> bool:
        """Whether there is a reservation of exactly this occasion."""
        return occasion in self._occasions

    def _disjoint(self, one: str, other: str) -> bool:
        return one != other and (self._declared_after(one, other) or self._declared_after(other, one))

    def _declared_after(self, one: str, other: str) -> bool:
        return other in self._first and self._declared.get(one, -1) > self._first[other]


def spent_on(entries: Iterable[Entry], fingerprint: str, plan_digest: str | None = None) -> Spending:
    """What was reserved on data that may share a record with the data of ``fingerprint``.

    Two data sets are disjoint only if one was declared new (:class:`NewData`) after the other first stood in the
    ledger. A fingerprint that the ledger does not hold counts everything.

    Args:
        entries: All, in order.
        fingerprint: Of the data.
        plan_digest: Count what was reserved under this plan instead, on any data.
    """
    return Account(entries).spent(fingerprint, plan_digest)


def epsilons_of(spending: Spending, unit: Unit, delta: float) -> Epsilons:
    """Epsilon of one unit's account at ``delta``, by PRV and by RDP."""
    events = spending.of(unit)
    rdp = epsilon_of(events, delta, "rdp")
    prv = None
    if rdp <= _PRV_REACH and _steps(events) <= _PRV_STEPS:
        with suppress(PrivacyError):
            prv = epsilon_of(events, delta, "prv")
    return Epsilons(rdp if math.isinf(rdp) else prv, rdp)


def epsilon_under(spending: Spending, ceiling: Ceiling) -> float:
    """Epsilon of ``spending`` as ``ceiling`` counts it. Never above RDP's, which is an upper bound of all there is.

    Raises:
        PrivacyError: The ceiling's delta is too small for PRV's arithmetic.
    """
    events = spending.of(ceiling.unit)
    by_rdp = epsilon_of(events, ceiling.delta, "rdp")
    if ceiling.accountant == "rdp" or by_rdp > _PRV_REACH:
        return by_rdp
    return min(by_rdp, epsilon_of(events, ceiling.delta, "prv"))


def fits(spending: Spending, ceiling: Ceiling) -> bool:
    """Whether ``spending`` as a whole is within ``ceiling``.

    RDP is cheap: where it is within the ceiling, PRV is not asked.

    Raises:
        PrivacyError: PRV is asked, and the ceiling's delta is too small for its arithmetic.
    """
    by_rdp = epsilon_of(spending.of(ceiling.unit), ceiling.delta, "rdp")
    return by_rdp <= ceiling.epsilon or epsilon_under(spending, ceiling) <= ceiling.epsilon


def rounds_left(spent: Spending, one: Spending, ceiling: Ceiling) -> int:
    """How many more times ``one`` fits under ``ceiling``, up to a million. By RDP where PRV would take too long.

    Raises:
        PrivacyError: The ceiling's delta is too small for PRV's arithmetic.
    """
    if not one.of(ceiling.unit):
        return MOST_ROUNDS

    def allowed(by: Ceiling) -> Callable[[int], bool]:
        return lambda count: fits(spent + one.times(count), by)

    found = _most(allowed(replace(ceiling, accountant="rdp")), known=0, stride=1)
    if ceiling.accountant == "rdp" or _steps((spent + one.times(found)).of(ceiling.unit)) > _PRV_STEPS:
        return found
    # PRV is slow, and its answer is not far above RDP's.
    return _most(allowed(ceiling), known=found, stride=max(1, found // 16))


def _most(allowed: Callable[[int], bool], *, known: int, stride: int) -> int:
    """The largest count up to a million that is allowed; ``known`` is, or is 0."""
    low, high = known, min(known + stride, MOST_ROUNDS)
    while low < high and allowed(high):
        low, stride = high, 2 * stride
        high = min(high + stride, MOST_ROUNDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return low


def check(
    account: Account, fingerprint: str, asked: Spending, ceilings: Sequence[Ceiling], *, one: Spending | None = None
) -> None:
    """Refuse ``asked`` if it takes any account over its ceiling. What costs an account nothing is not held to it.

    Args:
        account: What is spent.
        fingerprint: Of the data that is asked for.
        asked: The price.
        ceilings: All have to hold.
        one: What one round costs, where ``asked`` is the price of several; for the sentence only.

    Raises:
        BudgetError: With what is spent, what is asked, the ceiling, and how many more rounds fit.
        PrivacyError: A ceiling's delta is too small for PRV's arithmetic.
    """
    for ceiling in ceilings:
        if not asked.of(ceiling.unit):
            continue
        spent = account.spent(fingerprint, ceiling.plan_digest)
        if not fits(spent + asked, ceiling):
            raise _over(spent, asked, ceiling, one or asked)


def _steps(events: Events) -> int:
    return sum(event.steps for event in events)


def _over(spent: Spending, asked: Spending, ceiling: Ceiling, one: Spending) -> BudgetError:
    before, after = epsilon_under(spent, ceiling), epsilon_under(spent + asked, ceiling)
    left = rounds_left(spent, one, ceiling)
    on = "on this data" if ceiling.plan_digest is None else "under this plan"
    account = f"{ceiling.unit.value}-level epsilon at delta {ceiling.delta:g} by {ceiling.accountant.upper()}"
    return BudgetError(
        f"{account}: {_shown(before)} is spent {on}, this would make it {_shown(after)}, and the ceiling is "
        f"{ceiling.epsilon:g}; {left or 'no'} more round{'' if left == 1 else 's'} of this kind fit{'s' * (left == 1)}",
        where=ceiling.where,
        remedy="ask for a plan with more noise or fewer rounds, or stay out; what is spent cannot be given back",
        spent=before,
        asked=after,
        ceiling=ceiling.epsilon,
        rounds_left=left,
    )


def _shown(epsilon: float) -> str:
    return "infinite (steps without noise)" if math.isinf(epsilon) else f"{epsilon:.3f}"


def _spending(steps: _Steps) -> Spending:
    events: dict[Unit, list[SampledGaussian]] = {unit: [] for unit in Unit}
    for (unit, noise_multiplier, sample_rate), count in sorted(steps.items()):
        if count > 0:
            events[unit].append(SampledGaussian(noise_multiplier, sample_rate, count))
    return Spending(example=tuple(events[Unit.EXAMPLE]), client=tuple(events[Unit.CLIENT]))
