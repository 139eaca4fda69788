"""Each rule of a policy at its limit and one step over it; what cannot be known here is refused. No data is there."""

from __future__ import annotations

from datetime import date
from math import nextafter
from typing import Any

import pytest

from policies import BUNDLE, CERTIFICATE, CODE, KEY, circumstances, make_policy, private_plan
from testudo_client.policy.check import check, examine, refuse
from testudo_client.policy.contract import Contract, Tensor, contract_of
from testudo_common.errors import PolicyError
from testudo_common.plan.sections import ModelPlan
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.events import Unit
from testudo_common.privacy.planned import run_spending

SCORES = (
    "evaluation.federated_every_rounds=10",
    "evaluation.federated_noise_multiplier=30.0",
    "evaluation.min_cell=10",
)
ALL_SCORES = 'metrics.statistics=["confusion", "calibration", "brier"]'
CLIENT = ("client_privacy.noise_multiplier=4.0",)
CLIENT_LIMITS = "privacy.client={epsilon_per_run = 8.0, epsilon_for_life = 8.0, delta = 1e-5}"
PLAIN = ('secure_aggregation={mode = "plain"}',)
WEIGHTED = ("secure_aggregation.max_weight=2", "secure_aggregation.value_bits=8")
TENSORS = 'model.tensors=[{name = "head.weight", shape = [2, 3]}, {name = "head.bias", shape = [2]}]'


def refused(policy: tuple[str, ...] = (), plan: tuple[str, ...] = (), **here: Any) -> set[str]:
    """The policy's keys that refuse."""
    return {fault.key for fault in check(make_policy(*policy), private_plan(*plan), circumstances(**here))}


def test_what_is_within_every_limit_is_allowed() -> None:
    assert refused() == set()
    refuse(make_policy(), private_plan(), circumstances(), source="a test")


# key that refuses; settings of the policy, of the plan, and circumstances exactly at the limit; what is over it
LIMITS: list[tuple[str, tuple[str, ...], tuple[str, ...], dict[str, Any], tuple[str, ...], dict[str, Any]]] = [
    ("client", (), (), {}, (), {"client_id": "Ada"}),
    ("dates.not_before", (), (), {"today": date(2026, 1, 1)}, (), {"today": date(2025, 12, 31)}),
    ("dates.not_after", (), (), {"today": date(2026, 12, 31)}, (), {"today": date(2027, 1, 1)}),
    ("pins.federation_key", (), (), {}, (), {"federation_key": "0" * 64}),
    ("pins.code", (f'pins.code=["{KEY}", "{CODE}"]',), (), {}, (), {"code_digest": "0" * 64}),
    ("pins.bundle", (f'pins.bundle=["{BUNDLE}"]',), (), {"bundle_digest": BUNDLE}, (), {"bundle_digest": KEY}),
    (
        "pins.server_certificate",
        (f'pins.server_certificate=["{CERTIFICATE}"]',),
        (),
        {"server_certificates": (CERTIFICATE,)},
        (),
        {"server_certificates": (KEY,)},
    ),
    (
        "pins.witnesses",
        (f'pins.witnesses=["{KEY}", "{CODE}"]',),
        (),
        {"witnesses": (CODE, KEY, BUNDLE)},
        (),
        {"witnesses": (CODE, BUNDLE)},
    ),
    ("privacy.example.delta", (), ("privacy.delta=1e-5",), {}, ("privacy.delta=1.001e-5",), {}),
    (
        "privacy.client.delta",
        (CLIENT_LIMITS,),
        (*CLIENT, "client_privacy.delta=1e-5"),
        {},
        (*CLIENT, "client_privacy.delta=1.001e-5"),
        {},
    ),
    (
        "aggregation.max_participations",
        (),
        ("rounds.max_participations=5",),
        {},
        ("rounds.max_participations=6",),
        {},
    ),
    (
        "aggregation.min_cohort",
        (),
        ("secure_aggregation.min_cohort=10",),
        {},
        ("secure_aggregation.min_cohort=9",),
        {},
    ),
    ("aggregation.min_group", (), ("secure_aggregation.min_group=4",), {}, ("secure_aggregation.min_group=3",), {}),
    (
        "aggregation.min_corruption",
        (),
        ("secure_aggregation.corruption=0.1",),
        {},
        ("secure_aggregation.corruption=0.09",),
        {},
    ),
    (
        "aggregation.max_left_out",
        ("aggregation.max_left_out=0.1",),
        ("secure_aggregation.max_left_out=0.1",),
        {},
        ("secure_aggregation.max_left_out=0.11",),
        {},
    ),
    (
        "aggregation.max_attempts",
        (),
        ("secure_aggregation.max_attempts=5",),
        {},
        ("secure_aggregation.max_attempts=6",),
        {},
    ),
    ("aggregation.weighted", (), ("secure_aggregation.max_weight=1",), {}, WEIGHTED, {}),
    ("aggregation.secure", (), (), {}, PLAIN, {}),
    ("metrics.statistics", (ALL_SCORES,), SCORES, {}, (), {}),
    ("metrics.min_noise_multiplier", (ALL_SCORES, "metrics.min_noise_multiplier=30.0"), SCORES, {}, (), {}),
    ("metrics.min_cell", (ALL_SCORES, "metrics.min_cell=10"), SCORES, {}, (*SCORES, "evaluation.min_cell=9"), {}),
    ("audit.required", (), (), {}, ("audit.mode=off",), {}),
    ("audit.max_window", ("audit.max_window=3",), ("audit.window=3",), {}, ("audit.window=4",), {}),
    ("audit.lower_quorum", (), ("audit.quorum=3",), {}, ("audit.quorum=2",), {}),
    ("model.allowed", (), ('model.name="mlp"',), {}, ('model.name="conv"', "model.inputs=[1, 4, 4]"), {}),
    ("model.max_bytes", ("model.max_bytes=32",), (), {}, ("model.outputs=3",), {}),
    ("model.tensors", (TENSORS,), (), {}, ("model.outputs=3",), {}),
]
OVER_IN_POLICY = {
    "metrics.statistics": ('metrics.statistics=["confusion", "calibration"]',),
    "metrics.min_noise_multiplier": (ALL_SCORES, "metrics.min_noise_multiplier=30.1"),
}


@pytest.mark.parametrize(
    ("key", "policy", "plan", "here", "over", "over_here"), LIMITS, ids=lambda value: str(value)[:40]
)
def test_exactly_at_the_limit_passes_and_one_step_over_is_refused(
    key: str,
    policy: tuple[str, ...],
    plan: tuple[str, ...],
    here: dict[str, Any],
    over: tuple[str, ...],
    over_here: dict[str, Any],
) -> None:
    assert refused(policy, plan, **here) == set()
    if key in OVER_IN_POLICY:
        assert refused(OVER_IN_POLICY[key], plan, **here) == {key}
    else:
        assert refused(policy, over or plan, **{**here, **over_here}) == {key}


def test_every_rule_stands_in_the_table() -> None:
    here = circumstances(bundle_digest=BUNDLE, server_certificates=(CERTIFICATE,), witnesses=(KEY,))
    policy = make_policy(CLIENT_LIMITS, TENSORS, ALL_SCORES, f'pins.witnesses=["{KEY}"]')
    rules = {finding.key for plan in (SCORES, CLIENT) for finding in examine(policy, private_plan(*plan), here)}
    elsewhere = {f"privacy.{unit}{key}" for unit in Unit for key in ("", ".epsilon_per_run")}
    assert rules == {row[0] for row in LIMITS} | elsewhere


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
@pytest.mark.parametrize("unit", Unit)
def test_epsilon_of_a_run_at_the_ceiling_and_one_step_over(unit: Unit, accountant: str) -> None:
    plan = private_plan(*(CLIENT if unit is Unit.CLIENT else ()))
    by = accountant if unit is Unit.EXAMPLE else "rdp"
    epsilon = epsilon_of(run_spending(plan).of(unit), 1e-5, by)  # type: ignore[arg-type]
    assert 0.5 < epsilon < 90
    more = f', accountant = "{accountant}"' if unit is Unit.EXAMPLE else ""

    def faults(limit: float) -> list[str]:
        limits = f"{{epsilon_per_run = {limit!r}, epsilon_for_life = 99.0, delta = 1e-5{more}}}"
        policy = make_policy("privacy.example=none", f"privacy.{unit}={limits}")
        return [fault.key for fault in check(policy, plan, circumstances())]

    assert faults(epsilon) == []
    assert faults(nextafter(epsilon, 0)) == [f"privacy.{unit}.epsilon_per_run"]


def test_scores_count_towards_the_epsilon_of_a_run() -> None:
    quiet, scored = private_plan(), private_plan(*SCORES)
    between = epsilon_of(run_spending(quiet).example, 1e-5, "rdp")
    limit = f"privacy.example.epsilon_per_run={between!r}"
    assert check(make_policy(limit, ALL_SCORES), quiet, circumstances()) == []
    assert [f.key for f in check(make_policy(limit, ALL_SCORES), scored, circumstances())] == [
        "privacy.example.epsilon_per_run"
    ]


def test_the_policys_delta_counts_and_not_the_plans() -> None:
    """At the plan's own smaller delta epsilon would be larger; the ledger's ceilings are at the policy's."""
    plan = private_plan("privacy.delta=1e-9")
    epsilon = epsilon_of(run_spending(plan).example, 1e-5, "rdp")
    assert refused((f"privacy.example.epsilon_per_run={epsilon!r}",), ("privacy.delta=1e-9",)) == set()


# --- what is not said, and what is not known


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (("privacy={}",), "privacy.example"),
        (("privacy.noise_multiplier=0.0",), "privacy.example.epsilon_per_run"),
        (("rounds.max_participations=none",), "privacy.example.epsilon_per_run"),
        (("rounds.max_participations=none",), "aggregation.max_participations"),
    ],
)
def test_a_plan_that_is_not_private_or_leaves_its_cost_open(settings: tuple[str, ...], key: str) -> None:
    assert key in refused((), settings)


def test_a_plan_without_client_level_privacy_where_it_is_needed() -> None:
    assert refused((CLIENT_LIMITS,)) == {"privacy.client"}
    assert refused((CLIENT_LIMITS,), CLIENT) == set()


def test_no_privacy_at_all_must_be_said() -> None:
    public = ("privacy={}",)
    assert refused(("privacy={none = true}",), public) == set()
    assert refused(("privacy={none = true}",)) == set(), "a private plan too"


def test_a_delta_that_prv_cannot_reach_is_refused() -> None:
    limits = 'privacy.example={epsilon_per_run = 8.0, epsilon_for_life = 8.0, delta = 1e-15, accountant = "prv"}'
    found = check(make_policy(limits), private_plan("privacy.delta=1e-15"), circumstances())
    assert [fault.key for fault in found] == ["privacy.example.epsilon_per_run"]
    assert "cannot be computed" in found[0].problem


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("client=ada", "federation_key"),
        ("client=ada", "code"),
        (f'pins.bundle=["{BUNDLE}"]', "bundle"),
        (f'pins.server_certificate=["{CERTIFICATE}"]', "server_certificate"),
        (f'pins.witnesses=["{KEY}"]', "witnesses"),
    ],
)
def test_a_pin_that_cannot_be_checked_here(setting: str, key: str) -> None:
    unknown: dict[str, Any] = {"federation_key": None, "code_digest": None} if setting == "client=ada" else {}
    unknown["witnesses"] = None
    assert f"pins.{key}" in refused((setting,), **unknown)
    found = check(make_policy(setting), private_plan(), circumstances(**unknown))
    assert all("cannot be checked" in fault.problem for fault in found)


@pytest.mark.parametrize("pin", ["federation_key", "code", "bundle", "server_certificate"])
def test_an_empty_pin_allows_nothing(pin: str) -> None:
    everything = {"bundle_digest": BUNDLE, "server_certificates": (CERTIFICATE,)}
    assert refused((f"pins.{pin}=[]",), **everything) == {f"pins.{pin}"}


@pytest.mark.parametrize(
    ("shown", "allowed"),
    [
        ((CERTIFICATE,), True),
        ((CERTIFICATE, KEY), True),
        ((KEY, CERTIFICATE), True),
        ((KEY,), False),
        ((KEY, BUNDLE), False),
        ((), False),
    ],
)
def test_certificate_of_the_server_or_of_one_above_it(shown: tuple[str, ...], allowed: bool) -> None:
    pinned = f'pins.server_certificate=["{CERTIFICATE}"]'
    found = refused((pinned,), server_certificates=shown)
    assert found == (set() if allowed else {"pins.server_certificate"})


@pytest.mark.parametrize("weighted", ["true", "false"])
def test_weights_need_leave(weighted: str) -> None:
    assert refused((f"aggregation.weighted={weighted}",), WEIGHTED) == (
        {"aggregation.weighted"} if weighted == "false" else set()
    )


def test_plain_aggregation_needs_leave() -> None:
    assert refused(("aggregation.secure=false",), PLAIN) == set()
    assert refused(("aggregation.secure=false",)) == set(), "a secure plan too"


def test_a_plan_without_a_log_needs_leave() -> None:
    assert refused(("audit.required=false",), ("audit.mode=off",)) == set()
    assert refused(("audit.required=false",)) == set(), "a plan with one too"


@pytest.mark.parametrize(("members", "least"), [(1, 1), (3, 3), (4, 3), (5, 4), (9, 7), (10, 7)])
def test_more_than_two_thirds_of_the_witnesses_unless_leave_is_given(members: int, least: int) -> None:
    here = {"witnesses": tuple(f"{number:064x}" for number in range(members))}
    for quorum in range(1, members + 1):
        plan = (f"audit.quorum={quorum}",)
        assert refused((), plan, **here) == (set() if quorum >= least else {"audit.lower_quorum"})
        assert refused(("audit.lower_quorum=true",), plan, **here) == set()


def test_a_stated_quorum_of_who_knows_how_many() -> None:
    assert refused((), ("audit.quorum=100",), witnesses=None) == {"audit.lower_quorum"}
    assert refused((), (), witnesses=None) == set()


def test_no_scores_unless_each_statistic_is_named() -> None:
    assert refused((), SCORES) == {"metrics.statistics"}
    assert refused(('metrics.statistics=["errors"]',), SCORES) == {"metrics.statistics"}


# --- the model


def untouchable(_: ModelPlan) -> Contract:
    raise AssertionError("the model was asked for")


def test_a_factory_is_imported_only_if_its_full_name_is_allowed() -> None:
    plan = private_plan('model.name="os.path:join"')
    for allowed in ('["linear"]', '["os.path:joi"]', '["path:join"]', "[]"):
        policy = make_policy(f"model.allowed={allowed}")
        found = check(policy, plan, circumstances(), untouchable)
        assert [fault.key for fault in found] == ["model.allowed"]
    with pytest.raises(AssertionError, match="was asked for"):
        check(make_policy('model.allowed=["os.path:join"]'), plan, circumstances(), untouchable)


def test_a_huge_model_is_refused_without_being_built() -> None:
    """2^32 weights in each layer: 64 GB, if any of it took memory."""
    assert refused((), ('model.name="mlp"', "model.hidden=[65536, 65536, 65536, 65536, 65536]")) == {"model.max_bytes"}


def test_a_model_that_cannot_be_built_is_refused() -> None:
    assert refused((), ("model.inputs=none", "model.outputs=none")) == {"model.max_bytes"}


@pytest.mark.parametrize("unshared", ["true", "false"])
def test_the_contract_holds_what_is_shared_in_order(unshared: str) -> None:
    plan = private_plan('model.name="mlp"', "model.hidden=[4]", f"model.unshared_head={unshared}")
    body = (Tensor("body.1.weight", (4, 3), "float32"), Tensor("body.1.bias", (4,), "float32"))
    head = (Tensor("head.weight", (2, 4), "float32"), Tensor("head.bias", (2,), "float32"))
    assert contract_of(plan.model) == (body if unshared == "true" else body + head)


@pytest.mark.parametrize(
    "tensors",
    [
        '[{name = "head.weight", shape = [2, 3]}]',
        '[{name = "head.bias", shape = [2]}, {name = "head.weight", shape = [2, 3]}]',
        '[{name = "head.weight", shape = [3, 2]}, {name = "head.bias", shape = [2]}]',
        '[{name = "other", shape = [2, 3]}, {name = "head.bias", shape = [2]}]',
        '[{name = "head.weight", shape = [2, 3]}, {name = "head.bias", shape = [2]}, {name = "more", shape = [1]}]',
        "[]",
    ],
    ids=["one missing", "other order", "transposed", "other name", "one more", "none"],
)
def test_tensors_must_be_exactly_the_contract(tensors: str) -> None:
    assert refused((f"model.tensors={tensors}",)) == {"model.tensors"}


# --- all at once


def test_everything_that_is_refused_is_said_at_once() -> None:
    plan = private_plan("privacy={}", *PLAIN, 'model.name="conv"', "model.inputs=[1, 4, 4]")
    with pytest.raises(PolicyError) as caught:
        refuse(make_policy(), plan, circumstances(client_id="eve", code_digest=None), source="policy.toml")
    keys = {fault.key for fault in caught.value.faults}
    assert keys == {"client", "pins.code", "privacy.example", "aggregation.secure", "model.allowed"}
    assert str(caught.value).startswith("policy.toml: 5 things that the policy does not allow\n  - client: ")
    assert all(fault.remedy[0].isupper() and not fault.remedy.endswith(".") for fault in caught.value.faults)
