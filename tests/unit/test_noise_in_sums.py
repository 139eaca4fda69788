"""Client-level noise in the real protocol: that enough of it is in every sum that opens, and who refuses which sum."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from helpers import make_examples, make_plan
from secure_federation import (
    SECURE,
    Answer,
    Falling,
    Link,
    Members,
    exchange_of,
    kind_of,
    layout_of,
    names_of,
    request_of,
)
from testudo_client.participant import Participant
from testudo_common.errors import PlanError
from testudo_common.plan import FederationPlan
from testudo_common.privacy.planned import planned_client_noise, update_noise_multiplier
from testudo_common.secagg.quantize import Contribution, encode
from testudo_common.secagg.terms import Parameters
from testudo_common.secure_terms import attempt_of, terms_of
from testudo_common.vectors import Vector, clip_to_norm
from testudo_common.wire import Message, Refusal, RefusalReason, TrainRequest
from testudo_server import secure_exchange
from testudo_server.exchange import Collected
from testudo_simulations.mask_free import MaskFreeExchange, MaskFreeParticipant

TEN = names_of(10)
COLLUDER = TEN[3]
SIZE = 4001
"""Coordinates: a variance of so many is known to 2 %."""


def noisy_plan(*settings: str) -> FederationPlan:
    """Ten clients in one group, of whom two may drop out and one may collude."""
    tables = SECURE | {
        "model": {"name": "linear", "inputs": [SIZE - 1], "outputs": 1},
        "inner": {"steps": 2, "learning_rate": 1e-3, "sample_rate": 1.0},
        "rounds": {"count": 4, "cohort_size": 10, "min_replies": 3},
        "outer": {"max_update_norm": 2.0},
        "secure_aggregation": {"mode": "secure", "group_size": 10, "min_group": 3, "dropout": 0.2, "corruption": 0.1},
        "client_privacy": {"noise_multiplier": 1.5},
    }
    return make_plan(*settings, tables=tables)


PLAN = noisy_plan()
ADAPTIVE = noisy_plan('client_privacy.clipping="adaptive"', "client_privacy.count_noise=3.0")


class Colluding(Participant):
    """Tells the server which noise it added, which comes to the same as adding none."""

    def _encoded(self, terms: Any, members: int, counts: npt.NDArray[np.int64]) -> Any:
        update, _ = super()._encoded(terms, members, counts)
        layout = terms.parameters.layout
        given = np.zeros(len(layout.count_bounds), dtype=np.int64) if layout.count_bounds else None
        return update, encode(layout, Contribution(update, 1, given), bytes(32))


def wide_examples(place: int) -> Any:
    return make_examples(4, regression=True, inputs=SIZE - 1, seed=place)


def members_of(plan: FederationPlan = PLAN, **more: Any) -> Members:
    return Members(plan, TEN, examples=wide_examples, **more)


ELSEWHERE = np.full(SIZE, 1e-4, dtype=np.float32)
"""Another model: the same one would be trained to the same update, which goes into one sum only."""


def asking(members: Members, clip: float | None = None, model: Vector | None = None, **more: Any) -> TrainRequest:
    return replace(request_of(members, model, **more), clip=clip)


def dropping(members: Members, names: tuple[str, ...], step: str = "Deliveries") -> Link:
    return Falling(members.participants, dict.fromkeys(names, (step, False)))


def noise_of(members: Members, found: Collected, clip: float = 2.0) -> npt.NDArray[np.float64]:
    """What is in the opened sum besides the survivors' clipped updates, over S."""
    (group,) = found.groups
    updates = [clip_to_norm(members.update_of(name), clip).astype(np.float64) for name in group.members]
    noise: npt.NDArray[np.float64] = group.mean.astype(np.float64) * len(group.members) - np.sum(updates, axis=0)
    return noise / clip


def with_allowed_losses(plan: FederationPlan = PLAN, clip: float | None = None) -> npt.NDArray[np.float64]:
    """The noise of the honest survivors when as many dropped out and collude as the plan says: 7 of 10 are left."""
    members = members_of(plan, kinds={COLLUDER: Colluding})
    exchange, _ = exchange_of(members, dropping(members, TEN[:2]))
    found = exchange.group_means(asking(members, clip), TEN)
    assert found.groups[0].members == TEN[2:]
    return noise_of(members, found, clip or 2.0)


def is_enough(noise: npt.NDArray[np.float64], multiplier: float) -> bool:
    """Whether a deviation of ``multiplier`` or more explains it, but with probability 1e-6."""
    return float(np.sum((noise / multiplier) ** 2)) >= stats.chi2.ppf(1e-6, len(noise))


def test_honest_survivors_alone_carry_all_of_the_noise() -> None:
    noise = with_allowed_losses()
    assert is_enough(noise, 1.5)
    assert not is_enough(noise, 1.5 * 1.1), "a tenth more would be seen: the test is sharp"
    assert stats.kstest(noise / noise.std(), "norm").pvalue > 1e-3


def test_shares_for_all_members_would_not_be_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: each client adds its part of what all ten would carry."""

    def of_all(self: Parameters, members: int) -> Any:
        return None if self.noise is None else self.noise.times(1 / math.sqrt(members))

    monkeypatch.setattr(Parameters, "noise_share", of_all)
    assert not is_enough(with_allowed_losses(), 1.5)


def test_noise_is_for_the_longest_vector_that_rounding_makes() -> None:
    """With few bits a rounded vector is longer than S by much."""
    plan = noisy_plan("secure_aggregation.value_bits=8")
    noise, longer = with_allowed_losses(plan), 1 + math.sqrt(SIZE) / 127
    assert is_enough(noise, 1.5 * longer)
    assert longer > 1.4


def test_adaptive_noise_follows_the_clip_of_the_round() -> None:
    multiplier = update_noise_multiplier(ADAPTIVE)
    assert multiplier is not None
    assert multiplier > 1.5
    assert is_enough(with_allowed_losses(ADAPTIVE, 0.25), multiplier)
    assert not is_enough(with_allowed_losses(ADAPTIVE, 0.25), multiplier * 1.1)


def test_every_attempt_has_noise_of_its_own() -> None:
    members = members_of()
    exchange, _ = exchange_of(members)
    one = noise_of(members, exchange.group_means(asking(members), TEN))
    other = noise_of(members, exchange.group_means(asking(members, None, ELSEWHERE, round_number=2), TEN))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


# --- who refuses


@pytest.mark.parametrize("step", ["Directory", "Deliveries"])
def test_one_dropout_more_costs_the_sum(step: str) -> None:
    members = members_of()
    exchange, _ = exchange_of(members, dropping(members, TEN[:3], step))
    found = exchange.group_means(asking(members), TEN)
    assert found.groups == ()
    (record,) = found.records
    assert (record.fault, record.blamed) == ("too_few", False)


def test_dropouts_after_masking_take_no_noise_with_them() -> None:
    members = members_of(kinds={COLLUDER: Colluding})
    exchange, _ = exchange_of(members, dropping(members, TEN[:2], "SurvivorSet"))
    found = exchange.group_means(asking(members), TEN)
    assert found.groups[0].members == TEN
    assert is_enough(noise_of(members, found), 1.5 * math.sqrt(9 / 7) * 0.98)


FIVE = names_of(5)
STRICT = noisy_plan("rounds.cohort_size=5", "secure_aggregation.group_size=5", "secure_aggregation.dropout=0.0")
"""Nobody may drop out, though four of five shares open any mask."""


def one_drops_out_at_a_greedy_server(monkeypatch: pytest.MonkeyPatch) -> tuple[Members, Collected]:
    """The server opens what it can, and does not care for noise."""
    share = terms_of(STRICT, KEYS.roster, attempt_of(request_of(MEMBERS)), SIZE).parameters.noise_share(5)
    decode = secure_exchange.decode

    def careless(*given: Any) -> Any:
        terms = terms_of(*given)
        return replace(terms, parameters=replace(terms.parameters, noise=None))

    def decoded(layout: Any, total: Any, survivors: int, _share: Any) -> Any:
        return decode(layout, total, survivors, share)

    monkeypatch.setattr(secure_exchange, "terms_of", careless)
    monkeypatch.setattr(secure_exchange, "decode", decoded)
    members = Members(STRICT, FIVE, examples=wide_examples, kinds={FIVE[3]: Colluding})
    exchange, _ = exchange_of(members, dropping(members, FIVE[:1]))
    return members, exchange.group_means(request_of(members), FIVE)


MEMBERS = Members(STRICT, FIVE, examples=wide_examples)
KEYS = MEMBERS.keys


def test_clients_confirm_no_survivors_too_few_for_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = one_drops_out_at_a_greedy_server(monkeypatch)
    assert found.groups == ()
    assert {reason for name, reason in found.excluded if name in FIVE[1:]} == {"refused: too_few"}


def test_without_that_check_a_sum_opens_with_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: shares are reckoned as ever, and survivors are not looked at."""
    least = Parameters.least_survivors

    def lenient(self: Parameters, members: int) -> int:
        reckoning = sys._getframe(1).f_code.co_name == "honest_survivors"
        return least(self, members) if reckoning else self.min_group

    monkeypatch.setattr(Parameters, "least_survivors", lenient)
    members, found = one_drops_out_at_a_greedy_server(monkeypatch)
    assert found.groups[0].members == FIVE[1:]
    noise = noise_of(members, found)
    assert not is_enough(noise, 1.5)
    assert is_enough(noise, 1.5 * math.sqrt(3 / 4))


def test_server_that_sends_one_client_another_clip_gets_no_sum() -> None:
    members = members_of(ADAPTIVE)

    def two_clips(client: str, message: Message, answer: Answer) -> Message | None:
        if kind_of(message) == "TrainRequest" and client == TEN[0]:
            assert isinstance(message, TrainRequest)
            return members.participants[client].answer(replace(message, clip=0.5))
        return answer()

    exchange, _ = exchange_of(members, two_clips)
    assert exchange.group_means(asking(members, 1.0), TEN).groups == ()


def test_that_server_would_get_one_with_the_same_clip() -> None:
    members = members_of(ADAPTIVE)
    exchange, _ = exchange_of(members)
    assert len(exchange.group_means(asking(members, 1.0), TEN).groups) == 1


@pytest.mark.parametrize("clip", [None, 2.0001, 1e300], ids=["missing", "over the plan's", "far over"])
def test_clip_that_an_adaptive_plan_does_not_allow(clip: float | None) -> None:
    members = members_of(ADAPTIVE)
    reply = members.participants[TEN[0]].answer(asking(members, clip))
    assert isinstance(reply, Refusal)
    assert reply.reason is RefusalReason.OTHER_PLAN


@pytest.mark.parametrize("plan", [PLAN, noisy_plan("client_privacy.noise_multiplier=none")], ids=["fixed", "no noise"])
def test_clip_where_the_plan_states_it(plan: FederationPlan) -> None:
    members = members_of(plan)
    reply = members.participants[TEN[0]].answer(asking(members, 1.0))
    assert isinstance(reply, Refusal)
    assert reply.reason is RefusalReason.OTHER_PLAN


def test_plan_whose_noise_no_client_could_draw() -> None:
    with pytest.raises(PlanError, match=r"deviation of .* steps, over 131072.*Lower secure_aggregation.value_bits"):
        noisy_plan("secure_aggregation.value_bits=24")


def test_value_bits_that_are_not_stated_leave_room_for_the_noise() -> None:
    bits = {
        noise: layout_of(noisy_plan(f"client_privacy.noise_multiplier={noise}")).value_bits
        for noise in (1, 10, 100, 1000)
    }
    assert bits == {1: 16, 10: 15, 100: 12, 1000: 8}  # the smallest group allowed has three honest survivors


def test_planned_noise_is_split_between_updates_and_count() -> None:
    total, update = planned_client_noise(ADAPTIVE), update_noise_multiplier(ADAPTIVE)
    assert total == 1.5
    assert update is not None
    assert update**-2 + (2 * 3.0) ** -2 == pytest.approx(1.5**-2)


# --- counts under adaptive clipping


def test_unclipped_are_counted_with_noise() -> None:
    """Seven of ten are shorter than S."""
    members = members_of(ADAPTIVE)
    exchange, _ = exchange_of(members)
    exchange.group_means(asking(members, 2.0), TEN)
    norms = sorted(float(np.linalg.norm(members.update_of(name).astype(np.float64))) for name in TEN)
    clip = (norms[6] + norms[7]) / 2
    found = exchange.group_means(asking(members, clip, ELSEWHERE, round_number=2), TEN)
    assert found.counts.shape == (1,)
    # shares of 6 / sqrt(7) from ten clients
    assert abs(int(found.counts[0]) - 2 * 7) < 6 * 6.0 * math.sqrt(10 / 7)


def test_count_of_the_clipped_has_its_share_of_the_noise() -> None:
    parameters = terms_of(
        ADAPTIVE, members_of().keys.roster, attempt_of(asking(members_of(ADAPTIVE), 1.0)), SIZE
    ).parameters
    assert parameters.layout.count_bounds == (2,)
    assert parameters.noise is not None
    (steps,), (deviation,) = parameters.layout.count_steps, parameters.noise.counts
    assert deviation / steps == pytest.approx(2 * 3.0)
    share = parameters.noise_share(10)
    assert share is not None
    assert share.counts[0] >= 4


# --- without masks


def test_mask_free_simulation_has_the_same_noise() -> None:
    members = members_of(kinds=dict.fromkeys(TEN, MaskFreeParticipant))
    exchange = MaskFreeExchange(dropping(members, TEN[:2], "TrainRequest"), PLAN, members.keys.roster, sum_only=False)
    noise = noise_of(members, exchange.group_means(asking(members), TEN))
    assert is_enough(noise, 1.5 * math.sqrt(8 / 7))
    assert not is_enough(noise, 1.5 * math.sqrt(8 / 7) * 1.1)
    few = MaskFreeExchange(dropping(members, TEN[:3], "TrainRequest"), PLAN, members.keys.roster)
    assert few.group_means(asking(members, None, ELSEWHERE, round_number=2), TEN).groups == ()
