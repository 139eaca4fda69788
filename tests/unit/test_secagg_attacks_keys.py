"""Attacks 3 and 11 of the threat model: keys that are not their owner's, and keys that two clients share.

Each is shown both ways: it fails; and with the check that stops it taken away, it gives the victim's vector.
"""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from secagg_attackers import (
    Impostor,
    breaches,
    impostor,
    masked_inputs,
    names_at,
    plain,
    run_through,
    surround,
    with_any_advertisement,
    with_generators,
    without,
)
from secure_round import SecureRound, identity_of, names_of, random_vectors, terms_of
from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg import client, primitives, server, shamir
from testudo_common.secagg.bindings import commitments_digest, sign_advertisement
from testudo_common.secagg.messages import CommitmentEntry, CommitmentList, Directory, Reply
from testudo_common.secagg.terms import Terms

NAMES = names_of(4)
VICTIM, *OTHERS = NAMES
VECTOR = random_vectors([VICTIM])[VICTIM]
OWN_KEY = identity_of("the server").signing_key

P = 2**255 - 19
LOW_ORDER = [  # all 32 bytes that stand for a point of order 1, 2, 4 or 8 on Curve25519 or its twist (Bernstein 2006)
    (number + high).to_bytes(32, "little")
    for high in (0, 2**255)  # a bit that X25519 does not look at (RFC 7748, section 5)
    for number in (
        *(0, 1, P - 1, P, P + 1),
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
]


# 3. Substituted, unsigned, low-order keys; a roster padded with the server's own.


@pytest.mark.parametrize("signing_key", [OWN_KEY, None], ids=["signed by the server", "unsigned"])
def test_substituted_keys_are_refused(signing_key: bytes | None) -> None:
    with pytest.raises(ProtocolError) as caught:
        surround(terms_of(NAMES), VICTIM, [impostor(name, signing_key) for name in OTHERS], VECTOR)
    assert caught.value.breach is Breach.SIGNATURE


def test_keys_signed_by_another_member_are_refused() -> None:
    swapped = [impostor(name, identity_of(other).signing_key) for name, other in zip(OTHERS, OTHERS[::-1], strict=True)]
    with pytest.raises(ProtocolError) as caught:
        surround(terms_of(NAMES), VICTIM, swapped, VECTOR)
    assert caught.value.breach is Breach.SIGNATURE


@pytest.mark.parametrize("signing_key", [OWN_KEY, None], ids=["signed by the server", "unsigned"])
def test_substituted_keys_unchecked_give_the_victims_vector(
    monkeypatch: pytest.MonkeyPatch, signing_key: bytes | None
) -> None:
    without(monkeypatch, "advertisements_are_signed")
    stolen = surround(terms_of(NAMES), VICTIM, [impostor(name, signing_key) for name in OTHERS], VECTOR)
    np.testing.assert_array_equal(stolen, VECTOR)


def of_low_order() -> list[Impostor]:
    """Signed as they should be, so that nothing but their order is wrong; who signed them knows no secret either."""
    points = zip(LOW_ORDER[::2], LOW_ORDER[1::2], strict=True)
    return [
        impostor(name, identity_of(name).signing_key, low_order=both)
        for name, both in zip(OTHERS, points, strict=False)
    ]


def test_keys_of_low_order_are_refused() -> None:
    with pytest.raises(ProtocolError) as caught:
        surround(terms_of(NAMES), VICTIM, of_low_order(), VECTOR)
    assert caught.value.breach is Breach.KEY


def test_keys_of_low_order_unchecked_let_anybody_on_the_line_read(monkeypatch: pytest.MonkeyPatch) -> None:
    agree = primitives.Agreement.with_peer

    def agree_on_anything(agreement: primitives.Agreement, peer: bytes) -> bytes:
        return bytes(32) if peer in LOW_ORDER else agree(agreement, peer)  # what X25519 gives there

    monkeypatch.setattr(primitives.Agreement, "with_peer", agree_on_anything)
    np.testing.assert_array_equal(surround(terms_of(NAMES), VICTIM, of_low_order(), VECTOR), VECTOR)


def padding() -> list[Impostor]:
    return [impostor(name, identity_of(name).signing_key) for name in ("sybil-1", "sybil-2", "sybil-3")]


@pytest.mark.parametrize("rule", ["nothing", "all_are_on_the_roster", "advertisements_are_signed"])
def test_a_cohort_padded_with_the_servers_own_names_is_refused(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """By the list of commitments, before a nonce is revealed, and by the directory again."""
    if rule != "nothing":
        without(monkeypatch, rule)
    with pytest.raises(ProtocolError) as caught:
        surround(terms_of([VICTIM]), VICTIM, padding(), VECTOR)
    assert caught.value.breach is Breach.NOT_ON_ROSTER


def test_a_padded_cohort_unchecked_gives_the_victims_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "all_are_on_the_roster", "advertisements_are_signed")
    terms = terms_of([VICTIM], group_size=3)
    np.testing.assert_array_equal(surround(terms, VICTIM, padding(), VECTOR), VECTOR)


@pytest.mark.parametrize("rule", ["nothing", "own_advertisement_is_listed"])
def test_a_server_that_answers_for_the_client_is_refused(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """Either by the client's memory of what it said, or by its own signature."""
    if rule != "nothing":
        without(monkeypatch, rule)
    round_ = run_through(SecureRound(terms_of(NAMES), random_vectors(NAMES)), "advertise")
    entries = list(round_.given[VICTIM].entries)
    own = impostor(VICTIM, OWN_KEY).advertise(round_.terms, commitments_digest(round_.cohort.commitments))
    entries[0] = replace(entries[0], advertisement=replace(own, nonce=entries[0].advertisement.nonce))
    round_.given = {VICTIM: Directory(tuple(entries))}
    round_.share_keys()
    assert breaches(round_) == {VICTIM: Breach.KEY if rule == "nothing" else Breach.SIGNATURE}


LIAR, *HONEST = names_of(9)
Fields = dict[str, bytes]


def advertising(monkeypatch: pytest.MonkeyPatch, change: Callable[[Fields], Fields], **terms: Any) -> SecureRound:
    """Of nine in two groups the first signs and advertises something else than it drew. Run up to what the server says.

    Args:
        monkeypatch: Pytest's.
        change: What it drew -> what it advertises instead.
        terms: What differs from the usual ones.
    """
    advertise = client.advertise

    def lie(terms: Terms, identity: client.Identity, state: client.Committed, message: CommitmentList) -> Any:
        following, reply = advertise(terms, identity, state, message)
        if identity.client_id != LIAR:
            return following, reply
        fields = {name: getattr(reply.message, name) for name in ("channel_key", "mask_key", "seed_digest", "nonce")}
        key, listed = identity.signing_key, commitments_digest(message.entries)
        signed = sign_advertisement(key, terms.round_context, listed, **fields | change(fields))
        return replace(following, advertisement=signed), Reply(signed)

    monkeypatch.setattr(client, "advertise", lie)
    names = [LIAR, *HONEST]
    return run_through(SecureRound(terms_of(names, group_size=4, **terms), random_vectors(names)), "advertise")


def finish(round_: SecureRound) -> SecureRound:
    for step in ("share_keys", "mask", "confirm", "unmask"):
        getattr(round_, step)()
    return round_


def _always(changed: Fields, _own: Fields) -> Fields:
    return changed


BAD_ADVERTISEMENTS: dict[str, Callable[[Fields], Fields]] = {
    f"{field} {key.hex()}": partial(_always, {field: key}) for field in ("channel_key", "mask_key") for key in LOW_ORDER
} | {
    "one key for both": lambda own: {"mask_key": own["channel_key"]},
    "a key as digest of the seed": lambda own: {"seed_digest": own["mask_key"]},
}


@pytest.mark.parametrize("change", BAD_ADVERTISEMENTS.values(), ids=BAD_ADVERTISEMENTS)
def test_the_server_names_who_advertises_bad_keys(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Fields], Fields]
) -> None:
    """And goes on with all others, where the plan lets it."""
    round_ = finish(advertising(monkeypatch, change))
    assert [(fault.client_id, fault.breach) for fault in round_.faults] == [(LIAR, Breach.KEY)]  # type: ignore[attr-defined]
    assert not round_.refused
    assert {name for found in round_.sums for name in found.survivors} == set(HONEST)  # type: ignore[union-attr]


@pytest.mark.parametrize("least", [{"max_left_out": 0.0}, {"min_cohort": 9}], ids=["nobody left out", "a least cohort"])
def test_where_all_are_needed_bad_keys_are_named_all_the_same(
    monkeypatch: pytest.MonkeyPatch, least: dict[str, Any]
) -> None:
    """Else one client could have a round begun again until there are no attempts left."""
    with pytest.raises(ProtocolError) as caught:
        advertising(monkeypatch, BAD_ADVERTISEMENTS["one key for both"], **least)
    assert caught.value.breach in {Breach.LEFT_OUT, Breach.TOO_FEW}
    assert [(peer.client_id, peer.breach) for peer in caught.value.peers] == [(LIAR, Breach.KEY)]


@pytest.mark.parametrize("field", ["channel_key", "mask_key"])
def test_a_key_of_low_order_unchecked_ends_its_own_group_only(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """Without ``check_public_key`` at the server each of its neighbours refuses, for itself."""
    monkeypatch.setattr(server, "check_public_key", lambda _: None)
    round_ = advertising(monkeypatch, lambda _: {field: LOW_ORDER[1]})
    own, other = sorted((set(names_at(group)) for group in round_.groups), key=lambda group: LIAR not in group)
    finish(round_)
    assert {name for name, breach in breaches(round_).items() if breach is Breach.KEY} == own - {LIAR}
    (opened,) = (found for found in round_.sums if not isinstance(found, ProtocolError))
    assert set(opened.survivors) == other
    np.testing.assert_array_equal(opened.total, round_.plain_sum(other))


@pytest.mark.parametrize("how", ["one key for both", "a key as digest of the seed"])
def test_one_value_in_two_fields_is_refused_by_clients_too(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    with_any_advertisement(monkeypatch)
    round_ = advertising(monkeypatch, BAD_ADVERTISEMENTS[how])
    round_.share_keys()
    assert breaches(round_) == dict.fromkeys([LIAR, *HONEST], Breach.KEY)


# 11. Two clients forked from one process.


def secrets_of_a_client() -> list[bytes]:
    """Nonce, channel secret, mask secret, seed, and a share: what one client draws in a round."""
    terms, identity = terms_of(NAMES), identity_of(VICTIM)
    committed, reply = client.commit(terms, identity)
    own = CommitmentEntry(VICTIM, reply.message.commitment)  # type: ignore[union-attr]
    listed = CommitmentList((own, *(CommitmentEntry(name, bytes(32)) for name in OTHERS)))
    state, _ = client.advertise(terms, identity, committed, listed)
    share = shamir.share_to_bytes(shamir.split((bytes(32),), 2, [1, 2])[0, 0])
    return [committed.nonce, state.channel_secret, state.mask_secret, state.seed, share]


def in_a_fork(draw: Callable[[], list[bytes]]) -> list[bytes]:
    """What ``draw`` gives in a child process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, b"".join(draw()))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return [data[0:32], data[32:64], data[64:96], data[96:128], data[128:]]


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@needs_fork
def test_forked_clients_differ_in_every_secret() -> None:
    drawn = [in_a_fork(secrets_of_a_client), in_a_fork(secrets_of_a_client), secrets_of_a_client()]
    for kind in zip(*drawn, strict=True):
        assert len(set(kind)) == 3
        assert all(kind)


@needs_fork
def test_forked_clients_share_every_secret_of_a_generator_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a seeded generator instead of the operating system's, in primitives.py and shamir.py."""
    monkeypatch.setattr(secrets, "token_bytes", random.Random(7).randbytes)
    drawn = [in_a_fork(secrets_of_a_client), in_a_fork(secrets_of_a_client), secrets_of_a_client()]
    for kind in zip(*drawn, strict=True):
        assert len(set(kind)) == 1
        assert all(kind)


def with_a_twin(monkeypatch: pytest.MonkeyPatch) -> tuple[SecureRound, str]:
    """The last client draws what the victim draws, as if forked with a generator of its own."""
    twin = NAMES[-1]
    victims, twins = random.Random(7), random.Random(7)
    with_generators(monkeypatch, {VICTIM: lambda: victims.randbytes(32), twin: lambda: twins.randbytes(32)})
    return SecureRound(terms_of(NAMES), random_vectors(NAMES)), twin


def test_the_server_names_a_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    round_, twin = with_a_twin(monkeypatch)
    (found,) = round_.run()
    assert [(fault.client_id, fault.breach) for fault in round_.faults] == [(twin, Breach.KEY)]  # type: ignore[attr-defined]
    assert not isinstance(found, ProtocolError)
    assert twin not in found.survivors


def test_a_twin_is_refused_by_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    with_any_advertisement(monkeypatch)
    round_, _ = with_a_twin(monkeypatch)
    run_through(round_, "share_keys")
    assert breaches(round_) == dict.fromkeys(NAMES, Breach.KEY)


def test_a_twin_unchecked_opens_its_brothers_vector_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``keys_are_distinct``: two secrets of its own are all that it needs, at any threshold."""
    with_any_advertisement(monkeypatch)
    without(monkeypatch, "keys_are_distinct")
    round_, twin = with_a_twin(monkeypatch)
    run_through(round_, "share_keys")
    knows = round_.states[twin]
    assert isinstance(knows, client.Shared)
    round_.mask()
    state = round_.groups[0]
    position = names_at(state).index(VICTIM)
    stolen = plain(masked_inputs(round_)[VICTIM], state, position, knows.seed, knows.mask_secret)
    np.testing.assert_array_equal(stolen, round_.vectors[VICTIM])
