"""Whatever a policy lets through is within every limit of it, and whatever is within all of them is let through.

The oracle is written here by itself: the whole rule as one conjunction over the raw numbers of plan and policy.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

from policies import BUNDLE, CODE, KEY, NOON, circumstances, make_policy, policy_tables, private_plan
from testudo_client.policy.check import check
from testudo_client.policy.findings import Circumstances
from testudo_client.policy.load import parse_policy
from testudo_client.policy.sections import OwnerPolicy
from testudo_common.plan import FederationPlan

TODAY = NOON.date()
ORDERS = [1 + tenth / 10 for tenth in range(1, 100)] + list(range(12, 64)) + [80, 128, 256, 512, 1024]


def chosen(*choices: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(choices)


# Where most values are within a usual policy, and a few keys at a time are not, both verdicts are common.
WITHIN_AND_NOT: dict[str, tuple[Any, ...]] = {
    "privacy.delta": (1e-5, 1e-6, 2e-5),
    "privacy.noise_multiplier": (1.5, 3.0, 0.8, 0.0),
    "rounds.max_participations": (5, 1, 4, 6, "none"),
    "secure_aggregation.min_cohort": (10, "none", 11, 9),
    "secure_aggregation.min_group": (4, 5, 3),
    "secure_aggregation.corruption": (0.1, 0.2, 0.05),
    "secure_aggregation.max_attempts": (5, 4, 6),
    "secure_aggregation.max_left_out": (0.0, 0.1),
    "audit.mode": ("log", "off"),
    "audit.window": (1, 2),
    "audit.quorum": ("none", 3, 2),
    "model.name": ("linear", "mlp"),
    "model.hidden": ("[2]", "[3]"),
}


@st.composite
def plans(draw: st.DrawFn) -> FederationPlan:
    odd = draw(st.sets(st.sampled_from(sorted(WITHIN_AND_NOT)), max_size=2))
    drawn = [f"{key}={draw(chosen(*values)) if key in odd else values[0]}" for key, values in WITHIN_AND_NOT.items()]
    shape = draw(chosen("usual", "usual", "public", "scored", "scored", "client", "plain"))
    if shape == "public" or (public := shape == "scored" and draw(chosen(False, False, True))):
        drawn.append("privacy={}")
    if shape == "scored":
        drawn += ["evaluation.federated_every_rounds=10", f"evaluation.min_cell={draw(chosen(10, 10, 9))}"]
        if not public:
            drawn.append(f"evaluation.federated_noise_multiplier={draw(chosen(5.0, 1.0, 0.9))}")
    if shape == "client":
        drawn.append(f"client_privacy.noise_multiplier={draw(chosen(4.0, 1.0))}")
    if shape == "plain":
        drawn.append('secure_aggregation={mode = "plain"}')
    return private_plan(*drawn)


@st.composite
def owners_policies(draw: st.DrawFn) -> OwnerPolicy:
    example = draw(chosen(8.0, 50.0, 2.0))
    sections = {
        "example": f'{{epsilon_per_run = {example}, epsilon_for_life = 60.0, delta = 1e-5, accountant = "rdp"}}',
        "client": f"{{epsilon_per_run = {draw(chosen(20.0, 3.0))}, epsilon_for_life = 60.0, delta = 1e-5}}",
    }
    units = draw(chosen((), ("example",), ("example",), ("client",), ("example", "client")))
    privacy = ", ".join(f"{unit} = {sections[unit]}" for unit in units) or "none = true"
    allowed = draw(chosen('["linear", "mlp"]', '["linear"]'))
    bundle = draw(chosen('"any"', '"any"', f'["{BUNDLE}"]'))
    statistics = draw(chosen('["brier", "confusion", "calibration"]', "[]", '["confusion", "brier"]'))
    return make_policy(
        f"privacy={{{privacy}}}",
        f"aggregation.secure={draw(chosen('true', 'false'))}",
        f"aggregation.max_left_out={draw(chosen(0.0, 0.1))}",
        f"model.allowed={allowed}",
        f"model.max_bytes={draw(chosen(4000, 64, 32))}",
        f"metrics.statistics={statistics}",
        f"pins.bundle={bundle}",
        f"audit.required={draw(chosen('true', 'false'))}",
        f"audit.max_window={draw(chosen(1, 2))}",
        f"audit.lower_quorum={draw(chosen('false', 'true'))}",
    )


@st.composite
def situations(draw: st.DrawFn) -> Circumstances:
    here = circumstances(bundle_digest=draw(chosen(BUNDLE, BUNDLE, None, KEY)))
    changes: dict[str, tuple[Any, ...]] = {
        "today": tuple(TODAY + timedelta(days=days) for days in (-400, -166, -165, 199, 200)),
        "code_digest": (None, KEY),
        "federation_key": (None, CODE),
        "client_id": ("eve",),
    }
    odd = draw(chosen(None, None, None, None, *changes))
    return here if odd is None else replace(here, **{odd: draw(chosen(*changes[odd]))})


@lru_cache
def rdp_of_one_step(noise: float, q: float) -> npt.NDArray[np.float64]:
    return np.asarray(compute_rdp(q=q, noise_multiplier=noise, steps=1, orders=ORDERS))


def rdp_epsilon(mechanisms: list[tuple[float, float, int]], delta: float) -> float:
    if any(noise == 0 and steps for noise, _, steps in mechanisms):
        return math.inf
    rdp = np.sum([steps * rdp_of_one_step(noise, q) for noise, q, steps in mechanisms], axis=0)
    return float(get_privacy_spent(orders=ORDERS, rdp=rdp, delta=delta)[0])


def numbers_of(plan: FederationPlan) -> int:
    """d of a linear model or an mlp of one hidden layer, from 3 inputs to 2 outputs."""
    (width,) = plan.model.hidden
    return 3 * 2 + 2 if plan.model.name == "linear" else 3 * width + width + width * 2 + 2


def within_every_limit(policy: OwnerPolicy, plan: FederationPlan, here: Circumstances) -> bool:
    often, q, steps = plan.rounds.max_participations, plan.inner.sample_rate, plan.inner.steps
    if often is None or often > policy.aggregation.max_participations:
        return False
    secure, every = plan.secure_aggregation, plan.evaluation.federated_every_rounds
    scored = 0 if every is None else min(often, plan.rounds.count // every)
    example, client = policy.privacy.example, policy.privacy.client
    noise, score_noise = plan.privacy.noise_multiplier, plan.evaluation.federated_noise_multiplier
    spent = [(noise or 0.0, q, steps * (often + scored)), *([(score_noise or 0.0, 1.0, scored)] if scored else [])]
    private = plan.privacy.unit == "example"
    cohort = secure.min_cohort or max(secure.min_group, math.ceil(plan.rounds.cohort_size / 2))
    return all(
        [
            here.client_id == policy.client,
            policy.dates.not_before <= here.today <= policy.dates.not_after,
            here.federation_key == KEY,
            here.code_digest == CODE,
            policy.pins.bundle == "any" or here.bundle_digest == BUNDLE,
            example is None or (private and rdp_epsilon(spent, example.delta) <= example.epsilon_per_run),
            example is None or plan.privacy.delta <= example.delta,
            client is None
            or (
                plan.client_privacy.noise_multiplier is not None
                and rdp_epsilon([(plan.client_privacy.noise_multiplier, 1.0, often)], 1e-5) <= client.epsilon_per_run
            ),
            not policy.aggregation.secure or secure.mode == "secure",
            secure.mode == "plain"
            or (
                cohort >= policy.aggregation.min_cohort
                and secure.min_group >= policy.aggregation.min_group
                and secure.corruption >= policy.aggregation.min_corruption
                and secure.max_attempts <= policy.aggregation.max_attempts
                and secure.max_left_out <= policy.aggregation.max_left_out
            ),
            every is None
            or (
                {"confusion", "calibration", "brier"} <= set(policy.metrics.statistics)
                and (not private or (score_noise or 0) >= policy.metrics.min_noise_multiplier)
                and plan.evaluation.min_cell >= policy.metrics.min_cell
            ),
            plan.audit.mode == "log" or not policy.audit.required,
            plan.audit.mode == "off"
            or (
                plan.audit.window <= policy.audit.max_window
                and (policy.audit.lower_quorum or plan.audit.quorum != 2)  # of 3 witnesses: more than two thirds are 3
            ),
            plan.model.name in policy.model.allowed,
            4 * numbers_of(plan) <= policy.model.max_bytes,
        ]
    )


@settings(max_examples=250, deadline=None)
@given(owners_policies(), plans(), situations())
def test_let_through_means_within_every_limit(policy: OwnerPolicy, plan: FederationPlan, here: Circumstances) -> None:
    assert (check(policy, plan, here) == []) == within_every_limit(policy, plan, here)


def test_the_oracle_says_both() -> None:
    assert within_every_limit(
        parse_policy(policy_tables(), source=""), private_plan("model.hidden=[2]"), circumstances()
    )
    assert not within_every_limit(make_policy(), private_plan("model.hidden=[2]"), circumstances(client_id="eve"))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_stricter_policy_never_allows_more(data: st.DataObject) -> None:
    plan, here = data.draw(plans()), circumstances()
    loose = (
        "privacy={none = true}",
        "aggregation.secure=false",
        "model.max_bytes=100000",
        "audit.required=false",
        "audit.max_window=9",
        "audit.lower_quorum=true",
    )
    if check(make_policy(*loose), plan, here):
        assert check(make_policy(), plan, here)
