"""Attacks 4 and 8 of the threat model: what was said elsewhere is said again, and clients that were told two things.

Each is shown both ways: it fails; and with the bindings that stop it taken away, it gives the victim's vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from secagg_attackers import (
    CHANNEL,
    MASKS,
    SEALING,
    SIGNATURES,
    SURVIVORS,
    Loot,
    breaches,
    lasting_channel,
    masked_inputs,
    names_at,
    plain,
    replayed,
    run_through,
    secret_of,
    surround,
    unbound,
    with_any_advertisement,
    with_fixed_coin,
    with_generators,
    without,
)
from secure_round import Integers, SecureRound, names_of, other_terms, random_vectors, terms_of
from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg import client, server
from testudo_common.secagg.messages import Deliveries, Sealed, SharedKeys
from testudo_common.secagg.quantize import Contribution, Layout, decode, encode
from testudo_common.secagg.terms import Terms

NAMES = names_of(4)
VICTIM, *OTHERS = NAMES
VECTORS = random_vectors(NAMES)
TERMS = terms_of(NAMES)

ELSEWHERE: dict[str, dict[str, Any]] = {
    "another round": {"round_number": 2},
    "another attempt": {"attempt": 1},
    "another federation": {"federation": "other"},
    "another roster": {"roster_digest": b"s" * 32},
    "another plan": {"plan_digest": b"q" * 32},
    "another model": {"model_digest": b"n" * 32},
}
elsewhere = pytest.mark.parametrize("changed", ELSEWHERE.values(), ids=ELSEWHERE)

FRESH = "fresh channel keys"


def take_away(monkeypatch: pytest.MonkeyPatch, *layers: str) -> None:
    """FRESH: clients keep their channel keys over rounds. Others: see ``unbound``."""
    if FRESH in layers:
        with_generators(monkeypatch, {name: lasting_channel(name) for name in NAMES})
    unbound(monkeypatch, *layers)


@elsewhere
def test_a_context_names_everything(changed: dict[str, Any]) -> None:
    assert other_terms(TERMS, **changed).round_context != TERMS.round_context
    assert other_terms(TERMS).round_context == TERMS.round_context


# 4. Advertisements.


def replay_advertisements(old: Terms, new: Terms) -> Integers:
    """To the victim everybody else is who they were in the old round, of which secrets have leaked since."""
    round_ = run_through(SecureRound(old, VECTORS), "advertise")
    stolen = [round_.states[name] for name in OTHERS]
    impostors = [replayed(state) for state in stolen if isinstance(state, client.Advertised)]
    return surround(new, VICTIM, impostors, VECTORS[VICTIM])


@pytest.mark.parametrize("changed", [{}, *ELSEWHERE.values()], ids=["another list of commitments", *ELSEWHERE])
def test_a_replayed_advertisement_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        replay_advertisements(other_terms(TERMS, **changed), TERMS)
    assert caught.value.breach is Breach.SIGNATURE


@elsewhere
def test_replayed_advertisements_that_name_no_round_give_the_victims_vector(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    unbound(monkeypatch, SIGNATURES)
    stolen = replay_advertisements(other_terms(TERMS, **changed), TERMS)
    np.testing.assert_array_equal(stolen, VECTORS[VICTIM])


# 4. Ciphertexts.


def replay_ciphertexts(old: SecureRound, new: SecureRound) -> tuple[str, Integers]:
    """The victim survives the old round, and drops out of the new one; the shares asked for there are the old ones."""
    run_through(old, "share_keys")
    name, *others = names_at(old.groups[0])
    shared = old.sent[name].message
    assert isinstance(shared, SharedKeys)
    sealed = {item.position: item.ciphertext for item in shared.ciphertexts}
    old.mask()
    masked, state = masked_inputs(old)[name], old.groups[0]
    old.confirm()
    old.unmask()
    loot = Loot().take_revealed(old, state, dict.fromkeys(old.clients, (0, 1, 2, 3)))
    run_through(new, "share_keys")
    for place, other in enumerate(others, 1):
        given = new.given[other]
        swapped = (Sealed(0, sealed[place]), *given.ciphertexts[1:])
        new.given[other] = Deliveries(given.sharers, swapped)
    for step in ("mask", "confirm", "unmask"):
        getattr(new, step)([name])
        for refusal in new.refused.values():
            raise refusal
    loot.take_revealed(new, state, dict.fromkeys(others, (1, 2, 3)))
    return name, plain(masked, state, 0, secret_of(loot.seeds[0], 3), secret_of(loot.mask_keys[0], 3))


@elsewhere
@pytest.mark.parametrize("layer", ["all", FRESH, CHANNEL, SEALING])
def test_a_replayed_ciphertext_is_refused_by_each_layer(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], layer: str
) -> None:
    """A channel key of this round's, a derived key of this context's, a seal of this context's: each is enough."""
    with_fixed_coin(monkeypatch)
    if layer != "all":
        take_away(monkeypatch, *{FRESH, CHANNEL, SEALING} - {layer})
    with pytest.raises(ProtocolError) as caught:
        replay_ciphertexts(SecureRound(other_terms(TERMS, **changed), VECTORS), SecureRound(TERMS, VECTORS))
    assert caught.value.breach is Breach.SHARE


@elsewhere
def test_replayed_ciphertexts_without_all_layers_give_the_victims_vector(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    with_fixed_coin(monkeypatch)
    take_away(monkeypatch, FRESH, CHANNEL, SEALING)
    old = SecureRound(other_terms(TERMS, **changed), VECTORS)
    victim, stolen = replay_ciphertexts(old, SecureRound(TERMS, random_vectors(NAMES, seed=1)))
    np.testing.assert_array_equal(stolen, VECTORS[victim])


@pytest.mark.parametrize("layers", [(), (CHANNEL, SEALING)], ids=["all layers", "no context anywhere"])
def test_a_ciphertext_from_another_group_is_refused(monkeypatch: pytest.MonkeyPatch, layers: tuple[str, ...]) -> None:
    """By construction, even without any context: members of two groups share no key."""
    unbound(monkeypatch, *layers)
    names = names_of(8)
    round_ = run_through(SecureRound(terms_of(names, group_size=4), random_vectors(names)), "share_keys")
    here, there = (names_at(group)[1] for group in round_.groups)
    round_.given = {here: Deliveries((0, 1, 2, 3), round_.given[there].ciphertexts)}
    round_.mask()
    assert breaches(round_) == {here: Breach.SHARE}


# 4. Confirmations.


def replay_confirmations(old: SecureRound, new: SecureRound) -> SecureRound:
    """Nobody of the new round confirms anything to anybody; the tags that each client is given are the old round's."""
    run_through(old, "confirm")
    run_through(new, "confirm")
    new.given = old.given
    new.unmask()
    return new


@elsewhere
@pytest.mark.parametrize("layer", ["all", FRESH, CHANNEL, SURVIVORS])
def test_a_replayed_confirmation_confirms_nothing(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], layer: str
) -> None:
    with_fixed_coin(monkeypatch)
    if layer != "all":
        take_away(monkeypatch, *{FRESH, CHANNEL, SURVIVORS} - {layer})
    old = SecureRound(other_terms(TERMS, **changed), VECTORS)
    new = replay_confirmations(old, SecureRound(TERMS, VECTORS))
    assert breaches(new) == dict.fromkeys(NAMES, Breach.CONFIRMATION)
    assert not new.sent


@elsewhere
def test_replayed_confirmations_without_all_layers_make_everybody_reveal(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    """What a client then reveals unconfirmed is in test_different_survivors_unconfirmed_isolate_the_victim."""
    with_fixed_coin(monkeypatch)
    take_away(monkeypatch, FRESH, CHANNEL, SURVIVORS)
    old = SecureRound(other_terms(TERMS, **changed), VECTORS)
    new = replay_confirmations(old, SecureRound(TERMS, VECTORS))
    assert not new.refused
    assert sorted(new.sent) == NAMES


# 8. Two clients given different models.

SIZE = 1 << 19  # a correlation of 0.01 is 7 standard deviations off
LAYOUT = Layout(SIZE, 1.0, 16)
BEFORE_MASKING = ("nonces_open_their_commitments", "advertisements_are_signed")


def crafted_for_all_but_one(monkeypatch: pytest.MonkeyPatch, layout: Layout, *rules: str) -> SecureRound:
    """The server's model makes everybody's update zero but the victim's, which got an honest one (Pasquini 2022)."""
    with_fixed_coin(monkeypatch)
    with_any_advertisement(monkeypatch)
    without(monkeypatch, *rules)
    terms = terms_of(NAMES, layout=layout)
    honest = other_terms(terms, model_digest=b"n" * 32)
    update = np.random.default_rng(0).normal(size=layout.values).astype(np.float32)
    vectors = {name: np.zeros(layout.size, dtype=np.uint32) for name in NAMES}
    vectors[VICTIM] = encode(layout, Contribution(update / np.linalg.norm(update)), bytes(32))
    return SecureRound(terms, vectors, terms_seen_by={VICTIM: honest})


@pytest.mark.parametrize(
    ("rules", "breach"),
    [((), Breach.COMMITMENT), (BEFORE_MASKING[:1], Breach.SIGNATURE), (BEFORE_MASKING, Breach.SHARE)],
)
def test_two_models_are_refused_before_masking(
    monkeypatch: pytest.MonkeyPatch, rules: tuple[str, ...], breach: Breach
) -> None:
    """Three layers: commitments, signatures and sealed shares all name the model."""
    round_ = crafted_for_all_but_one(monkeypatch, Layout(8, 1.0, 16), *rules)
    run_through(round_, "mask")
    assert breaches(round_) == dict.fromkeys(NAMES, breach)
    assert not masked_inputs(round_)


def test_two_models_without_these_layers_open_to_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """With masks still bound to the model, all that is left of the victim is uniform."""
    unbound(monkeypatch, CHANNEL, SEALING, SURVIVORS)
    round_ = crafted_for_all_but_one(monkeypatch, LAYOUT, *BEFORE_MASKING)
    (found,) = round_.run()
    assert isinstance(found, server.Sum)
    noise, truth = (vector.view(np.int32).astype(np.float64) for vector in (found.total, round_.vectors[VICTIM]))
    assert abs(np.corrcoef(noise, truth)[0, 1]) < 0.01
    np.testing.assert_allclose(np.histogram(noise, 16, (-(2.0**31), 2.0**31))[0], SIZE / 16, rtol=0.05)
    with pytest.raises(ProtocolError) as caught:
        decode(LAYOUT, found.total, len(NAMES))
    assert caught.value.breach is Breach.RANGE


def test_two_models_with_masks_that_name_none_give_the_victims_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    unbound(monkeypatch, CHANNEL, SEALING, SURVIVORS, MASKS)
    round_ = crafted_for_all_but_one(monkeypatch, LAYOUT, *BEFORE_MASKING)
    (found,) = round_.run()
    assert isinstance(found, server.Sum)
    np.testing.assert_array_equal(found.total, round_.vectors[VICTIM])
