"""Real rounds with poisoned clients, in the plain exchange: each attack runs, and does harm where nothing defends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers import request_for
from poisoned_federation import adversary_of, always, cell_of, cell_request, writers
from testudo_common.errors import UsageError
from testudo_common.learning.learner import Learner
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector
from testudo_common.wire import TrainReply
from testudo_server.aggregate.base import Rows
from testudo_simulations.attacks.adversary import Adversary, Poison
from testudo_simulations.attacks.cell import run_cell
from testudo_simulations.attacks.data import with_label_noise
from testudo_simulations.attacks.knowledge import Knowledge
from testudo_simulations.attacks.simple import sign_flip
from testudo_simulations.attacks.suite import IN_GROUPS_ONLY, SUITE
from testudo_simulations.owners import Owners

CLEAN = 0.7  # of 0.83
PLAIN_ATTACKS = [name for name in SUITE if name not in IN_GROUPS_ONLY]


@pytest.mark.parametrize("defence", ["mean", "recommended"])
@pytest.mark.parametrize("attack", PLAIN_ATTACKS)
def test_every_attack_of_the_suite_runs_to_the_end(attack: str, defence: str) -> None:
    cell = cell_of(attack, defence)
    assert (cell.rounds, cell.ended, cell.framed, cell.named) == (5, "", [], {})
    assert np.isfinite(cell.score)
    assert cell.error is not None
    assert np.isfinite(cell.error)
    if attack == "non_finite":
        assert cell.weight == 0, "what is not finite is set aside under any rule"
    elif defence == "mean":
        assert cell.weight == pytest.approx(2 / 9)


@pytest.mark.parametrize("attack", ["alie", "ipm", "sign_flip_x10"])
def test_attack_drives_the_mean_off_and_not_the_recommended_rule(attack: str) -> None:
    """Measured, in spreads of the honest updates: 1.4 to 1.7 against 0.1 to 0.4."""
    mean, rule = cell_of(attack, "mean").error, cell_of(attack, "recommended").error
    assert mean is not None
    assert rule is not None
    assert mean > 1.2
    assert rule < 0.5


@pytest.mark.parametrize("attack", ["ipm", "sign_flip_x10"])
def test_attack_ruins_the_mean_and_not_the_recommended_rule(attack: str) -> None:
    clean = cell_of("none", "mean", poisoned=0).score
    assert clean > CLEAN
    assert cell_of(attack, "mean").score < 0.3
    assert cell_of(attack, "recommended").score > CLEAN


def test_scaled_backdoor_is_learnt_by_the_mean_and_not_under_the_recommended_rule() -> None:
    mean, rule, clean = (
        cell_of("backdoor_scaled", "mean"),
        cell_of("backdoor_scaled", "recommended"),
        cell_of("none", "mean"),
    )
    assert clean.backdoor is not None
    assert mean.backdoor is not None
    assert rule.backdoor is not None
    assert clean.backdoor < 0.2
    assert mean.backdoor > 0.9
    assert mean.score > CLEAN, "nobody who does not know the trigger sees it"
    assert rule.backdoor < 0.2


def test_no_attack_poisons_nobody() -> None:
    cell = cell_of("none", "recommended")
    assert (cell.weight, cell.named, cell.framed, cell.ended) == (0.0, {}, [], "")
    assert cell.score > CLEAN


def test_cell_is_the_same_each_time_and_another_for_another_seed() -> None:
    first = cell_of("alie", "recommended")
    again = run_cell(cell_request("alie", "recommended"))
    assert again.model_copy(update={"cpu_seconds": first.cpu_seconds}) == first
    assert cell_of("alie", "recommended", seed=2).error != first.error


@pytest.mark.parametrize("settings", [("outer.step_size=1.0",), ("outer.step_size=0.4", "outer.anneal=false")], ids=str)
def test_error_is_in_spreads_of_the_honest_updates_whatever_the_outer_step(
    monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    """Two of nine that stand 9/4 of a spread beside the honest mean drag the mean of all off by half of one."""

    def beside(knowledge: Knowledge) -> Rows:
        mean = knowledge.honest_mean()
        spread = np.sqrt(np.mean(np.sum((knowledge.honest - mean) ** 2, axis=1)))
        row = mean.copy()
        row[0] += 9 / 4 * spread
        rows: Rows = np.tile(row.astype(np.float32), (knowledge.b, 1))
        return rows

    monkeypatch.setitem(SUITE, "beside", Poison("beside", update=beside))
    assert run_cell(cell_request("beside", "mean", *settings)).error == pytest.approx(0.5, rel=1e-3)
    assert run_cell(cell_request("beside", "mean", "outer.optimizer=adam")).error is None, "it keeps no trace of it"


def test_attack_on_sums_is_refused_where_there_are_none() -> None:
    with pytest.raises(UsageError, match="garble is an attack on secure sums") as caught:
        run_cell(cell_request("garble", "recommended"))
    assert "+groups=M" in caught.value.remedy


def test_half_of_the_clients_poisoned_are_refused() -> None:
    with pytest.raises(UsageError, match="5 of 9 clients poisoned: no rule outvotes half of them"):
        run_cell(cell_request("alie", "mean", poisoned=5))


# --- the adversary

UNWATCHED = "audit.mode=off"


def replies(adversary: Adversary | None, plan: FederationPlan, order: int) -> dict[str, Vector]:
    """What all clients of the federation send in a round, asked in this order (1) or backwards (-1)."""
    federation = writers(UNWATCHED)
    owners = Owners(federation, None, None, adversary=adversary)
    request = request_for(plan)
    found = {}
    for place in range(len(federation.training))[::order]:
        participant = owners(SimpleNamespace(node_config={"partition-id": place}))  # type: ignore[arg-type]
        reply = participant.train(request)
        assert isinstance(reply, TrainReply)
        found[participant.client_id] = reply.update
    return found


@pytest.mark.parametrize("order", [1, -1], ids=["server in order", "server backwards"])
def test_honest_update_is_the_same_whoever_asked_first(order: int) -> None:
    """The poisoned ones stand first, then last: the adversary asks the honest ones before the server, then after."""
    federation = writers(UNWATCHED)
    plan, names = federation.plan, list(federation.training)
    honest = replies(None, plan, 1)
    adversary = adversary_of(plan, Poison("sign_flip", update=sign_flip()), names[:2])
    found = replies(adversary, plan, order)
    for name in names[2:]:
        assert found[name].tobytes() == honest[name].tobytes(), name
    for name in names[:2]:
        np.testing.assert_array_equal(found[name], -honest[name])
    seen = adversary.seen[1]
    expected = np.mean([honest[name] for name in names[2:]], axis=0)
    np.testing.assert_allclose(seen.honest, expected, atol=1e-6)
    apart = [np.linalg.norm(honest[name] - expected) for name in names[2:]]
    assert seen.spread == pytest.approx(float(np.sqrt(np.mean(np.square(apart)))), rel=1e-4)


def test_poisoned_client_sends_what_it_trained_on_poisoned_data() -> None:
    federation = writers(UNWATCHED)
    names = list(federation.training)
    honest = replies(None, federation.plan, 1)
    noisy = replies(
        adversary_of(federation.plan, Poison("noise", task=with_label_noise), names[:1]), federation.plan, 1
    )
    assert np.linalg.norm(noisy[names[0]] - honest[names[0]]) > 0.1
    assert noisy[names[1]].tobytes() == honest[names[1]].tobytes()


def test_crafted_update_is_no_longer_than_the_server_lets_through() -> None:
    federation = writers("outer.max_update_norm=0.75")
    plan, names = federation.plan, list(federation.training)
    row = np.full(Learner(plan).size, 100.0, dtype=np.float32)
    adversary = adversary_of(plan, always(row), names[:1])
    asked: dict[str, Any] = {name: lambda request: np.ones(len(request.model), dtype=np.float32) for name in names}
    adversary.watch(asked)
    crafted = adversary.update_of(names[0], request_for(plan))
    assert crafted is not None
    assert 0.7499 < float(np.linalg.norm(crafted.astype(np.float64))) <= 0.75
    assert adversary.update_of(names[1], request_for(plan)) is None, "it answers for poisoned ones only"


def test_adversary_asks_once_a_round_and_leaves_out_who_refuses() -> None:
    federation = writers()
    plan, names = federation.plan, list(federation.training)
    asked: list[tuple[int, str]] = []

    def client(name: str) -> Any:
        def ask(request: Any) -> Vector | None:
            asked.append((request.round, name))
            return None if name == names[1] else np.ones(len(request.model), dtype=np.float32)

        return ask

    adversary = adversary_of(plan, Poison("sign_flip", update=sign_flip()), names[:2])
    adversary.watch({name: client(name) for name in names})
    for number in (1, 2):
        for name in (names[0], names[1], names[0]):
            found = adversary.update_of(name, request_for(plan, round_number=number))
            assert (found is None) is (name == names[1])
    assert asked == [(number, name) for number in (1, 2) for name in names]


def test_adversary_without_anybody_honest_says_so() -> None:
    plan = writers().plan
    adversary = adversary_of(plan, Poison("x", update=sign_flip()), ["a"])
    adversary.watch({"a": lambda request: np.ones(len(request.model), dtype=np.float32)})
    with pytest.raises(UsageError, match="nobody is honest"):
        adversary.update_of("a", request_for(plan))


def test_lost_model_that_all_honest_clients_refuse_is_no_failure_of_the_attack() -> None:
    plan = writers().plan
    adversary = adversary_of(plan, Poison("x", update=sign_flip()), ["a"])
    own = np.ones(Learner(plan).size, dtype=np.float32)
    adversary.watch({"a": lambda request: own, "b": lambda request: None})
    assert adversary.update_of("a", request_for(plan)) is own
    assert (adversary.failure, adversary.seen) == (None, {})


def test_attack_that_fails_is_no_defence_that_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the server it is clients that refuse; the cell must not call that withstood."""

    def broken(knowledge: Knowledge) -> Rows:
        raise ZeroDivisionError("a bug of the attack")

    monkeypatch.setitem(SUITE, "broken", Poison("broken", update=broken))
    with pytest.raises(ZeroDivisionError, match="a bug of the attack"):
        run_cell(cell_request("broken", "recommended"))
