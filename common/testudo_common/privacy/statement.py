"""The privacy statement: what is guaranteed, to whom, by what account, and what is not. Generated, never by hand.

Pure: from a plan and from what was spent to sentences. The same function serves one data owner, whose ledger says what
was spent, and a federation, for which it is the largest account of any client. What a statement holds follows
"guidelines for evaluating differential privacy guarantees" (NIST SP 800-226): unit, neighbours, parameters, accounting,
threat model, and what stands outside.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from testudo_common.plan import FederationPlan
from testudo_common.privacy.accountant import AccountantName, epsilon_of
from testudo_common.privacy.events import Events, Spending, Unit
from testudo_common.privacy.planned import CLIENT_ACCOUNTANT

_MAYBE_INFINITE = ("epsilon", "epsilon_by_rdp")


@dataclass(frozen=True, slots=True)
class UnitAccount:
    """One unit's guarantee.

    Attributes:
        unit: ``example`` or ``client``.
        protects: What is hidden, in a sentence.
        neighbours: In what two neighbouring data sets differ.
        adversary: Against whom it holds.
        sampling: What is assumed about who and what is drawn, and what is not claimed for it.
        mechanisms: Each with its noise multiplier, sampling rate and steps.
        accountant: ``prv`` or ``rdp``.
        delta: Of the guarantee.
        epsilon: Spent so far; infinite without noise.
        epsilon_by_rdp: The same by the looser accountant, as a check.
        allowed: Ceiling of the plan; None where it states none.
    """

    unit: str
    protects: str
    neighbours: str
    adversary: str
    sampling: str
    mechanisms: tuple[str, ...]
    accountant: str
    delta: float
    epsilon: float
    epsilon_by_rdp: float
    allowed: float | None


@dataclass(frozen=True, slots=True)
class PrivacyStatement:
    """All of it, for one subject.

    Attributes:
        subject: Whose account it is.
        plan_name: Of the plan.
        plan_digest: SHA-256, hex.
        accounts: One a unit.
        unprotected: Units for which there is no guarantee, in a sentence each.
        sums: What secure aggregation adds, and on what it rests.
        not_covered: What the guarantees say nothing about.
    """

    subject: str
    plan_name: str
    plan_digest: str
    accounts: tuple[UnitAccount, ...]
    unprotected: tuple[str, ...]
    sums: tuple[str, ...]
    not_covered: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """As JSON gives it back; an infinite epsilon is None."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for account in content["accounts"]:
            for key in _MAYBE_INFINITE:
                account[key] = account[key] if math.isfinite(account[key]) else None
        return content

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> PrivacyStatement:
        """The statement of which ``content`` is :meth:`as_json`."""
        accounts = []
        for account in content["accounts"]:
            numbers = {key: math.inf if account[key] is None else account[key] for key in _MAYBE_INFINITE}
            accounts.append(UnitAccount(**{**account, **numbers, "mechanisms": tuple(account["mechanisms"])}))
        lists = {key: tuple(content[key]) for key in ("unprotected", "sums", "not_covered")}
        return cls(**{**content, **lists, "accounts": tuple(accounts)})

    def as_text(self) -> str:
        """For a person, in Markdown."""
        return "\n".join(_lines(self))


def statement_of(plan: FederationPlan, spent: Spending, *, subject: str) -> PrivacyStatement:
    """The statement about what was spent under a plan.

    Args:
        plan: That was run.
        spent: By one client, or the most by any.
        subject: Whose account it is, such as ``shop-1`` or ``any client of shops``.

    Raises:
        PrivacyError: delta is too small for the plan's accountant.
    """
    accounts, unprotected = [], []
    if plan.private:
        accounts.append(_example_account(plan, spent.example))
    else:
        unprotected.append(
            "Single examples are not protected: training adds no noise to them, so that an update can give away what "
            "it was trained on to whoever sees it"
        )
    if plan.client_private:
        accounts.append(_client_account(plan, spent.client))
    else:
        unprotected.append(
            "A client as a whole is not protected: what is common to all of its examples may show in the model"
        )
    return PrivacyStatement(
        subject,
        plan.name,
        plan.digest,
        tuple(accounts),
        tuple(unprotected),
        tuple(_sums(plan)),
        tuple(_not_covered(plan)),
    )


def _example_account(plan: FederationPlan, events: Events) -> UnitAccount:
    privacy = plan.privacy
    return UnitAccount(
        unit=Unit.EXAMPLE.value,
        protects="any one example (one row, one image) of this client",
        neighbours="one example is added or removed",
        adversary=_example_adversary(plan),
        sampling=(
            f"each step draws every example by itself with probability {plan.inner.sample_rate:g}; no smaller epsilon "
            "is claimed because only some clients are asked, or because of sums over clients"
        ),
        mechanisms=_mechanisms(events),
        accountant=privacy.accountant,
        delta=privacy.delta,
        allowed=privacy.epsilon,
        **_epsilons(events, privacy.delta, privacy.accountant),
    )


def _example_adversary(plan: FederationPlan) -> str:
    everything = (
        "whoever sees everything that this client's training sent out and every model made from it, whatever "
        "else they know; it does not rest on secure aggregation or on the server"
    )
    if plan.evaluation.federated_noise_multiplier is None:
        return everything
    return (
        f"{everything}. The scores are different: their noise is in the opened sums, so for them it holds against "
        f"whoever sees sums, while at most {plan.secure_aggregation.corruption:.0%} of a group's members work with them"
    )


def _client_account(plan: FederationPlan, events: Events) -> UnitAccount:
    client, secure = plan.client_privacy, plan.secure_aggregation
    return UnitAccount(
        unit=Unit.CLIENT.value,
        protects="all that this client contributed, every example of it together",
        neighbours="the client's contribution to a sum is replaced by nothing; that it took part stays visible",
        adversary=(
            "whoever sees the opened sums and the models, the server among them, while at most "
            f"{secure.corruption:.0%} of a group's members work with them and the other survivors add their noise"
        ),
        sampling="every round that the client took part in is charged whole; nothing is claimed from drawing a cohort",
        mechanisms=_mechanisms(events),
        accountant=CLIENT_ACCOUNTANT,
        delta=client.delta,
        allowed=client.epsilon,
        **_epsilons(events, client.delta, CLIENT_ACCOUNTANT),
    )


def _epsilons(events: Events, delta: float, accountant: AccountantName) -> dict[str, float]:
    by_rdp = epsilon_of(events, delta, "rdp")
    return {
        "epsilon": by_rdp if accountant == "rdp" else epsilon_of(events, delta, accountant),
        "epsilon_by_rdp": by_rdp,
    }


def _mechanisms(events: Events) -> tuple[str, ...]:
    return tuple(
        f"{event.steps} Gaussian step{'s' if event.steps != 1 else ''}, noise multiplier {event.noise_multiplier:.4g}, "
        f"sampling rate {event.sample_rate:g}"
        for event in events
    )


def _sums(plan: FederationPlan) -> Iterator[str]:
    secure = plan.secure_aggregation
    if not plan.secure:
        yield "Secure aggregation is off: the server sees this client's update by itself"
        return
    yield (
        f"The server learns sums over groups of clients, never over fewer than {secure.min_group}, and no single "
        "client's update; this hides who contributed what, not what all contributed together"
    )
    yield (
        f"It holds while at most {secure.corruption:.0%} of a group work with the server; it is not differential "
        "privacy, and no epsilon is claimed for it"
    )


def _not_covered(plan: FederationPlan) -> Iterator[str]:
    yield "That this client takes part, when, and how long it takes to answer"
    if plan.private:
        yield "How many examples this client has: the noise is set relative to it, as if it were public"
        yield "Several examples of one person: for k of them epsilon is up to k times as large, at a larger delta"
    yield "What is released outside this account: adapted models, predictions, files, figures told by word of mouth"
    yield "Choices made by looking at results, such as learning rates or which run to keep"
    if plan.asks_for_scores and plan.evaluation.federated_noise_multiplier is None:
        yield "Sums of scores over training clients, which leave in secure sums without noise"
    yield "Poisoned clients, which can bend the model or hide a backdoor in it; attacks on the machine itself"
    yield "Rounding in floating point (Mironov 2012) and the quality of the generators of noise beyond our tests"


def _lines(statement: PrivacyStatement) -> Iterator[str]:
    yield f"# Privacy statement: {statement.subject}, plan {statement.plan_name!r}"
    yield ""
    yield f"Plan digest {statement.plan_digest}"
    for account in statement.accounts:
        yield ""
        yield f"## One {account.unit}: epsilon {shown_epsilon(account.epsilon)} at delta {account.delta:g}"
        yield ""
        allowed = "no ceiling in the plan" if account.allowed is None else f"{account.allowed:g} allowed"
        also = f"; {shown_epsilon(account.epsilon_by_rdp)} by RDP" if account.accountant != "rdp" else ""
        yield f"- Spent: {shown_epsilon(account.epsilon)} by {account.accountant.upper()} ({allowed}{also})"
        yield f"- Protects: {account.protects}"
        yield f"- Neighbours: {account.neighbours}"
        yield f"- Adversary: {account.adversary}"
        yield f"- Sampling: {account.sampling}"
        yield from (f"- Mechanism: {mechanism}" for mechanism in account.mechanisms)
    for title, sentences in (
        ("No guarantee", statement.unprotected),
        ("Secure aggregation", statement.sums),
        ("Not covered", statement.not_covered),
    ):
        if sentences:
            yield ""
            yield f"## {title}"
            yield ""
            yield from (f"- {sentence}" for sentence in sentences)


def shown_epsilon(epsilon: float) -> str:
    """An epsilon for a person, rounded up: never less than it is."""
    return "infinite" if math.isinf(epsilon) else f"{math.ceil(epsilon * 100 - 1e-9) / 100:.2f}"
