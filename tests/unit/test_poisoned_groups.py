"""Poisoned clients in secure sums: one stands for its whole group, or spoils it; then it is blamed, and named."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from poisoned_federation import adversary_of, always, cell_of, cell_request, poisoned_members, writers
from secure_federation import Falling, Link, Members, exchange_of, layout_of, names_of, off_by, request_of, secure_plan
from testudo_common.secagg.quantize import Contribution, Layout, decode, encode
from testudo_common.vectors import Vector
from testudo_server.exchange import Collected
from testudo_server.store import RunStore
from testudo_simulations import inline_backend
from testudo_simulations.attacks.adversary import Poison
from testudo_simulations.attacks.cell import run_cell
from testudo_simulations.attacks.defences import parse_defence, settings_of
from testudo_simulations.attacks.participants import amplified
from testudo_simulations.attacks.simple import sign_flip
from testudo_simulations.attacks.suite import SUITE
from testudo_simulations.inline_backend import federate_in_process
from testudo_simulations.mask_free import MaskFreeExchange

EIGHT = names_of(8)
BAD = EIGHT[2]
PLAN = secure_plan("rounds.cohort_size=8")
LAYOUT = Layout(values=6, max_norm=2.0, value_bits=12)
KEY = b"\1" * 32

# --- one vector


def signed(words: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> list[int]:
    return [int(word) for word in words.view(np.int32)]


@pytest.mark.parametrize("times", [1, 3, 4])
def test_amplified_vector_is_so_many_updates_in_one(times: int) -> None:
    update = np.array([0.25, -0.5, 0.0, 1.0, -1.0, 0.125], dtype=np.float32)
    words = amplified(LAYOUT, update, times)
    assert words.dtype == np.uint32
    expected = np.rint(update.astype(np.float64) * LAYOUT.scale * times)
    assert signed(words) == [int(value) for value in expected]
    assert max(abs(value) for value in signed(words)) <= times * LAYOUT.largest


def test_amplified_vector_stays_within_what_fits_into_a_sum() -> None:
    """Whatever an attack makes: a word past the bound would not poison the group but only break it."""
    wild = np.array([np.inf, -np.inf, np.nan, 1e30, -1e30, 2.0], dtype=np.float32)
    bound = 3 * LAYOUT.largest
    assert signed(amplified(LAYOUT, wild, 3)) == [bound, -bound, bound, bound, -bound, bound]


def test_honest_encoding_would_have_clipped_it() -> None:
    """The same group of three, two of whom add nothing: what is opened is three times as long as an honest share."""
    update = np.array([1.0, -1.0, 0.5, 0.0, 0.0, 0.0], dtype=np.float32)
    nothing = sum((encode(LAYOUT, Contribution(np.zeros(6, dtype=np.float32)), KEY) for _ in range(2)), np.uint32(0))
    honest = encode(LAYOUT, Contribution(3 * update), KEY)
    opened = [
        decode(LAYOUT, (nothing + words).astype(np.uint32), 3).mean for words in (honest, amplified(LAYOUT, update, 3))
    ]
    norms = [float(np.linalg.norm(mean)) for mean in opened]
    assert norms[0] == pytest.approx(LAYOUT.max_norm / 3, rel=0.01)
    assert norms[1] == pytest.approx(1.5, rel=0.01)
    np.testing.assert_allclose(opened[1], update, atol=1 / LAYOUT.scale)


# --- a group's mean


def collected_of(members: Members, *, masks: bool) -> Collected:
    request = request_of(members)
    if masks:
        exchange, _ = exchange_of(members)
        return exchange.group_means(request, members.names)
    link = Link(members.participants)
    return MaskFreeExchange(link, members.plan, members.keys.roster, sum_only=False).group_means(request, members.names)


@pytest.mark.parametrize("masks", [True, False], ids=["masked", "mask-free"])
def test_mean_of_a_group_is_the_crafted_update_and_the_honest_share(masks: bool) -> None:
    row: Vector = np.linspace(-2.5, 2.5, 8).astype(np.float32)  # of length 4.6, of 10 allowed
    adversary = adversary_of(PLAN, always(row), [BAD], amplification=4)
    members = poisoned_members(PLAN, EIGHT, adversary, masks=masks)
    found = collected_of(members, masks=masks)
    assert found.excluded == ()
    layout = layout_of(PLAN)
    for group in found.groups:
        assert len(group.members) == 4
        honest = [name for name in group.members if name != BAD]
        expected = 0.25 * np.sum([members.update_of(name).astype(np.float64) for name in honest], axis=0)
        if BAD in group.members:
            expected = expected + row
        assert np.abs(group.mean - expected).max() <= off_by(layout)
    assert sum(BAD in group.members for group in found.groups) == 1
    own = members.update_of(BAD)
    assert np.linalg.norm(own - row) > 1, "what it remembers is what it trained, not what it sent"


def test_garbled_sum_fails_and_is_blamed_and_the_other_group_counts() -> None:
    for masks in (True, False):
        adversary = adversary_of(PLAN, SUITE["garble"], [BAD], amplification=4)
        found = collected_of(poisoned_members(PLAN, EIGHT, adversary, masks=masks), masks=masks)
        (good,) = found.groups
        assert BAD not in good.members
        assert found.bad == 1, "a row that is known to be bad"
        (bad,) = [record for record in found.records if record.fault]
        assert BAD in bad.members
        assert bad.blamed
        assert [record.blamed for record in found.records if not record.fault] == [False]
        assert {client for client, _ in found.excluded} == set(bad.members)


@pytest.mark.parametrize("first", ["adversary", "server"])
def test_honest_updates_of_a_second_attempt_are_the_same_whoever_asked_first(first: str) -> None:
    """In the first attempt all updates have left masked, so that those of the second are trained anew."""
    plan = secure_plan("rounds.cohort_size=8", "inner.sample_rate=0.5")
    order = tuple(sorted(EIGHT, key=lambda name: (name == BAD) == (first == "server")))
    found: list[list[dict[str, Vector]]] = []
    for poisoned in ([], [BAD]):
        adversary = adversary_of(plan, SUITE["sign_flip"], poisoned)
        members = poisoned_members(plan, EIGHT, adversary)
        lost = Falling(members.participants, dict.fromkeys(EIGHT, ("SurvivorSet", False)))
        assert exchange_of(members, lost)[0].group_means(request_of(members), order).groups == ()
        updates = [{name: members.update_of(name) for name in EIGHT}]
        again = exchange_of(members)[0].group_means(request_of(members, attempt=1), order)
        assert again.excluded == ()
        found.append([*updates, {name: members.update_of(name) for name in EIGHT}])
    for attempt in (0, 1):
        for name in EIGHT:
            assert found[0][attempt][name].tobytes() == found[1][attempt][name].tobytes(), (attempt, name)
    assert found[0][0][BAD].tobytes() != found[0][1][BAD].tobytes(), "it was trained anew"


# --- runs


@pytest.mark.parametrize("attack", ["ipm", "sign_flip"])
def test_attack_in_groups_drives_the_mean_off_and_not_the_recommended_rule(attack: str) -> None:
    """One of fifteen, five groups of three: with amplification it has a fifth of the mean, and not a fifteenth."""
    more = ("data.clients=15",)
    mean = cell_of(attack, "mean+groups=3", *more, poisoned=1)
    rule = cell_of(attack, "recommended+groups=3", *more, poisoned=1)
    assert (mean.rounds, rule.rounds, mean.framed, rule.framed) == (5, 5, [], [])
    assert mean.error is not None
    assert rule.error is not None
    assert mean.error > 1.5 * rule.error
    assert mean.weight == pytest.approx(0.2)
    assert rule.weight < 0.1


NAMED_WITHIN = 20
"""Measured in some 150 runs: not asked any more from round 11 to 18 on, one of 15 in groups of 3; in the median 13."""


@pytest.mark.parametrize("coin", [0, 1])
def test_culprit_that_garbles_is_named_and_nobody_honest(monkeypatch: pytest.MonkeyPatch, coin: int) -> None:
    """Groups differ from run to run for all that: other secrets, such as roundings, come from the operating system."""
    nonces = np.random.default_rng(coin)
    exchange = partial(MaskFreeExchange, nonce=lambda: nonces.bytes(32))
    monkeypatch.setattr(inline_backend, "MaskFreeExchange", exchange)
    count = NAMED_WITHIN + 2
    settings = ("data.clients=15", f"rounds.count={count}", "inner.steps=2")
    cell = run_cell(cell_request("garble", "recommended+groups=3", *settings, poisoned=1))
    assert (cell.rounds, cell.ended, cell.framed) == (count, "", [])
    ((_, number),) = cell.named.items()
    assert 5 < number <= NAMED_WITHIN
    assert cell.weight == 0, "a group that was not opened moved nothing"


@pytest.mark.parametrize("masks", [True, False], ids=["masked", "mask-free"])
def test_rounds_over_a_garbled_group_are_kept_with_f_less_one(tmp_path: Path, masks: bool) -> None:
    start = ["data.clients=15", "rounds.count=2", "inner.steps=2"]
    plan = writers(*start).plan
    federation = writers(*start, *settings_of(parse_defence("recommended+groups=3"), plan, 1, 15))
    bad = list(federation.training)[4]
    adversary = adversary_of(federation.plan, SUITE["garble"], [bad], amplification=3)
    store = RunStore(tmp_path, durable=False)
    federate_in_process(federation, store, None, masks=masks, adversary=adversary)
    records = store.records()
    assert len(records) == 2
    for record in records:
        assert record.rule == ("caf",)
        assert record.withstood == 0, "the one that was reckoned with was caught"
        assert len(record.influence) == 4
        ((members, blamed),) = [(group.members, group.blamed) for group in record.groups if group.fault]
        assert bad in members
        assert blamed
        assert all(bad not in members for members, _ in record.influence)


def test_one_poisoned_client_has_the_weight_of_its_group_under_the_mean(tmp_path: Path) -> None:
    """And its sign flipped three times over is a group's mean turned round, which the server's check lets pass."""
    start = ["data.clients=15", "rounds.count=1", "inner.steps=2"]
    plan = writers(*start).plan
    federation = writers(*start, *settings_of(parse_defence("mean+groups=3"), plan, 1, 15))
    bad = list(federation.training)[4]
    adversary = adversary_of(federation.plan, Poison("flip", update=sign_flip()), [bad], amplification=3)
    store = RunStore(tmp_path, durable=False)
    federate_in_process(federation, store, None, masks=False, adversary=adversary)
    (record,) = store.records()
    assert not any(group.fault for group in record.groups)
    assert record.excluded == ()
    assert sum(share for members, share in record.influence if bad in members) == pytest.approx(0.2)
