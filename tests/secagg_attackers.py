"""A server that lies, clients on its side, and what they make of what they see: for the tests of the 15 attacks.

An attacker here uses public messages, contexts and keys, what it draws itself, and what was revealed or stolen; each
function says which. Nothing reads an honest client's state. No tests in here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import pytest

from secure_round import Integers, SecureRound, identity_of, names_of, random_vectors, terms_of
from testudo_common.errors import Breach
from testudo_common.secagg import client, client_checks, server, shamir
from testudo_common.secagg.bindings import (
    commitments_digest,
    own_mask_key,
    pair_mask_key,
    sealing_context,
    sign_advertisement,
    survivors_digest,
    verify_advertisement,
)
from testudo_common.secagg.graph import Graph, graph_of
from testudo_common.secagg.groups import commitment_to, draw_coin, partition
from testudo_common.secagg.masking import apply_masks
from testudo_common.secagg.messages import (
    Advertisement,
    CommitmentEntry,
    CommitmentList,
    Deliveries,
    Directory,
    DirectoryEntry,
    Sealed,
    SharedKeys,
    SurvivorSet,
    UnmaskingShares,
)
from testudo_common.secagg.primitives import Agreement, channel_keys, digest, public_key, random_secret, seal, unseal
from testudo_common.secagg.terms import Terms, group_context, members_of

STEPS = ("commit", "advertise", "share_keys", "mask", "confirm", "unmask")
CHANNEL, SEALING, SURVIVORS, MASKS, SIGNATURES = "channel keys", "sealed shares", "tags", "masks", "signatures"


# Checks taken away.


def without(monkeypatch: pytest.MonkeyPatch, *rules: str) -> None:
    """Take rules out of client_checks.py, by name."""
    for rule in rules:
        monkeypatch.setattr(client_checks, rule, lambda *_: None)


def with_any_advertisement(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that lists advertisements without looking at them; it is the attacker's, so this is no check lost."""
    monkeypatch.setattr(server, "_check_advertisement", lambda *_: None)


def with_fixed_coin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions that do not change between rounds: an attacker would redraw until they fit."""
    for side in (client, server):
        monkeypatch.setattr(side, "draw_coin", lambda *_: bytes(32))


def unbound(monkeypatch: pytest.MonkeyPatch, *what: str) -> None:
    """Take the context, and whatever else names a round, out of each binding of bindings.py that is named."""
    if CHANNEL in what:
        monkeypatch.setattr(client, "channel_keys", lambda shared, _, me, peer: channel_keys(shared, b"", me, peer))
    if SEALING in what:
        monkeypatch.setattr(client, "sealing_context", lambda _, one, other: sealing_context(b"", one, other))
    if SURVIVORS in what:
        monkeypatch.setattr(client, "survivors_digest", lambda _, survivors: survivors_digest(b"", survivors))
    if SIGNATURES in what:
        sign, verify = sign_advertisement, verify_advertisement
        monkeypatch.setattr(client, "sign_advertisement", lambda key, *_, **fields: sign(key, b"", b"", **fields))
        for side in (client_checks, server):
            monkeypatch.setattr(side, "verify_advertisement", lambda key, _, __, shown: verify(key, b"", b"", shown))
    for side in (client, server) if MASKS in what else ():
        monkeypatch.setattr(side, "own_mask_key", lambda seed, _: own_mask_key(seed, b""))
        monkeypatch.setattr(side, "pair_mask_key", lambda shared, _, one, other: pair_mask_key(shared, b"", one, other))


def with_generators(monkeypatch: pytest.MonkeyPatch, generators: Mapping[str, Callable[[], bytes]]) -> None:
    """Give some clients a generator of their own instead of the operating system's, for all but polynomials."""

    def drawing(step: Callable[..., Any]) -> Callable[..., Any]:
        def drawn(terms: Terms, identity: client.Identity, *rest: Any) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(client, "random_secret", generators.get(identity.client_id, random_secret))
                return step(terms, identity, *rest)

        return drawn

    for step in ("commit", "advertise"):
        monkeypatch.setattr(client, step, drawing(getattr(client, step)))


def lasting_channel(name: str) -> Callable[[], bytes]:
    """A generator that draws the same channel secret in each round; the nonce comes before it, two secrets after."""
    draws = count()
    return lambda: digest("lasting channel", name.encode()) if next(draws) % 4 == 1 else random_secret()


# What anybody can compute.


def round_of(members: int, **changed: Any) -> SecureRound:
    """A round of one group, with terms that differ from the usual ones in ``changed``."""
    names = names_of(members)
    return SecureRound(terms_of(names, **changed), random_vectors(names))


def graph_in(terms: Terms, members: int) -> Graph:
    """The graph of a group of so many members."""
    return graph_of(members, terms.parameters.corruption, terms.parameters.dropout)


def all_but(members: int, *gone: int) -> tuple[int, ...]:
    """A survivor set."""
    return tuple(place for place in range(members) if place not in gone)


def run_through(round_: SecureRound, last: str) -> SecureRound:
    """The steps up to ``last``, in order."""
    for step in STEPS[: STEPS.index(last) + 1]:
        getattr(round_, step)()
    return round_


def breaches(round_: SecureRound) -> dict[str, Breach]:
    """Client id -> for what it refused."""
    return {name: error.breach for name, error in round_.refused.items()}


def names_at(state: Any) -> list[str]:
    """Client ids of a group by position."""
    return [member.client_id for member in state.members]


def masked_inputs(round_: SecureRound) -> dict[str, Integers]:
    """What the server received in the step just done."""
    return {name: reply.vector.copy() for name, reply in round_.sent.items() if reply.vector is not None}


def draw_groups(
    terms: Terms, commitments: tuple[CommitmentEntry, ...], directory: Directory
) -> tuple[server.Sharing, ...]:
    """The groups that follow from a directory."""
    nonces = ((entry.client_id, entry.advertisement.nonce) for entry in directory.entries)
    coin = draw_coin(terms.round_context, commitments_digest(commitments), nonces)
    entries = {entry.client_id: entry for entry in directory.entries}
    groups = [members_of(entries, group) for group in partition(coin, entries, terms.parameters.group_size)]
    return tuple(
        server.Sharing(group_context(terms.round_context, index, members), members)
        for index, members in enumerate(groups)
    )


def redirect(round_: SecureRound, directory: Directory) -> None:
    """Show everybody in ``directory`` that one instead of the honest one."""
    round_.groups = list(draw_groups(round_.terms, round_.cohort.commitments, directory))
    round_.given = {entry.client_id: directory for entry in directory.entries}


def alone_with(groups: Iterable[server.Sharing], victim: str, friends: Collection[str]) -> bool:
    """Whether all others in the victim's group are friends of the server."""
    group = next(names for names in map(names_at, groups) if victim in names)
    return set(group) <= {victim, *friends}


def isolated(round_: SecureRound, victim: str, friends: Collection[str]) -> Integers:
    """From an open sum: what is left of it without the friends' vectors, which they tell."""
    opened = next(found for found in round_.sums if isinstance(found, server.Sum) and victim in found.survivors)
    left = set(opened.survivors) - {victim, *friends}
    assert not left, f"{sorted(left)} still hide {victim}"
    return opened.total - round_.plain_sum(set(opened.survivors) - {victim})


def plain(
    masked: Integers,
    state: Any,
    position: int,
    seed: bytes,
    mask_keys: Mapping[int, bytes] | bytes,
    near: Collection[int] | None = None,
) -> Integers:
    """A masked input without its masks.

    Args:
        masked: By the member at ``position``.
        state: The group's, at the server.
        position: Of the victim.
        seed: The victim's, b.
        mask_keys: The victim's secret mask key, or those of its neighbours by their position.
        near: The positions of its neighbours; None: all others.
    """
    shared = {}
    for place in set(range(len(state.members))) - {position} if near is None else near:
        if isinstance(mask_keys, bytes):
            shared[place] = Agreement(mask_keys).with_peer(state.members[place].mask_key)
        else:
            shared[place] = Agreement(mask_keys[place]).with_peer(state.members[position].mask_key)
    keys = {place: pair_mask_key(secret, state.context, position, place) for place, secret in shared.items()}
    vector = masked.copy()
    apply_masks(
        vector,
        added=[key for place, key in keys.items() if place < position],
        subtracted=[own_mask_key(seed, state.context), *(key for place, key in keys.items() if place > position)],
    )
    return vector


# Shares.


@dataclass
class Loot:
    """Shares in the attacker's hands: owner's position -> holder's position -> share."""

    seeds: dict[int, dict[int, bytes]] = field(default_factory=dict)
    mask_keys: dict[int, dict[int, bytes]] = field(default_factory=dict)

    def take_revealed(self, round_: SecureRound, state: Any, views: Mapping[str, tuple[int, ...]]) -> Loot:
        """The shares of the step just done; ``views`` says which survivors each client was shown."""
        places = {name: place for place, name in enumerate(names_at(state))}
        for name, reply in round_.sent.items():
            assert isinstance(reply.message, UnmaskingShares)
            for item in reply.message.shares:
                kind = self.seeds if item.position in views[name] else self.mask_keys
                kind.setdefault(item.position, {})[places[name]] = item.share
        return self

    def take_held(self, friend: client.ClientState) -> Loot:
        """What a friend of the server holds of its neighbours: both kinds."""
        assert isinstance(friend, client.Masked | client.Confirmed)
        for held in friend.held:
            self.seeds.setdefault(held.position, {})[friend.position] = held.seed_share
            self.mask_keys.setdefault(held.position, {})[friend.position] = held.mask_key_share
        return self


def secret_of(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """A secret from a threshold of its shares."""
    assert len(shares) >= threshold, f"{len(shares)} shares, and {threshold} are needed"
    holders = sorted(shares)[:threshold]
    limbs = np.stack([[shamir.share_from_bytes(shares[holder]) for holder in holders]])
    secret = shamir.recover(np.array([holders]) + 1, limbs)[0]
    assert secret is not None
    return secret


def show(round_: SecureRound, views: Mapping[str, tuple[int, ...]]) -> None:
    """Show each client a survivor set of its own."""
    round_.given = {name: SurvivorSet(view) for name, view in views.items()}


class LyingRound(SecureRound):
    """A round in which some clients say something else than they should, to an honest server.

    Args:
        lies: Client id -> (message it should send -> message that it sends, or None for none).
    """

    def __init__(self, *args: Any, lies: Mapping[str, Callable[[Any], Any]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lies = dict(lies)

    def _messages(self) -> dict[str, Any]:
        said = {name: self.lies.get(name, lambda it: it)(message) for name, message in super()._messages().items()}
        return {name: message for name, message in said.items() if message is not None}


# A server that plays everybody else.


@dataclass(frozen=True)
class Impostor:
    """A client that the server puts beside its victim.

    Attributes:
        client_id: Its name; real or made up.
        channel_key: That the victim is told.
        mask_key: That the victim is told.
        nonce: That the victim is told.
        agree: The victim's channel key -> what the victim takes to be secret between the two.
        advertise: (terms, digest of the list of commitments) -> what the victim is shown.
    """

    client_id: str
    channel_key: bytes
    mask_key: bytes
    nonce: bytes
    agree: Callable[[bytes], bytes]
    advertise: Callable[[Terms, bytes], Advertisement]


def impostor(name: str, signing_key: bytes | None = None, *, low_order: tuple[bytes, bytes] | None = None) -> Impostor:
    """An impostor with keys of the server's own, or with public ones of low order, to which nobody has a secret.

    Args:
        name: Client id.
        signing_key: Ed25519; None: the advertisement carries no signature.
        low_order: 32 bytes each that stand for the channel key and the mask key.
    """
    secret, nonce = random_secret(), random_secret()
    channel_key, mask_key = low_order or (public_key(secret), public_key(random_secret()))
    seed_digest = random_secret()

    def advertise(terms: Terms, listed: bytes) -> Advertisement:
        if signing_key is None:
            return Advertisement(channel_key, mask_key, seed_digest, nonce, bytes(64))
        return sign_advertisement(
            signing_key,
            terms.round_context,
            listed,
            channel_key=channel_key,
            mask_key=mask_key,
            seed_digest=seed_digest,
            nonce=nonce,
        )

    agree = Agreement(secret).with_peer if low_order is None else lambda _: bytes(32)
    return Impostor(name, channel_key, mask_key, nonce, agree, advertise)


def replayed(stolen: client.Advertised) -> Impostor:
    """An impostor that shows what a client signed in another round, whose secrets leaked afterwards."""
    shown = stolen.advertisement
    agree = Agreement(stolen.channel_secret).with_peer
    return Impostor(stolen.client_id, shown.channel_key, shown.mask_key, shown.nonce, agree, lambda *_: shown)


def surround(terms: Terms, victim: str, impostors: Collection[Impostor], vector: Integers) -> Integers:
    """Play a round in which everybody but ``victim`` is the server; gives the vector that it masked.

    Raises:
        ProtocolError: The victim refused a step.
    """
    identity, played = identity_of(victim), {one.client_id: one for one in impostors}
    state: Any
    state, reply = client.commit(terms, identity)
    committed = {name: commitment_to(one.nonce, terms.round_context, name) for name, one in played.items()}
    committed[victim] = reply.message.commitment  # type: ignore[union-attr]
    commitments = tuple(CommitmentEntry(name, committed[name]) for name in sorted(committed))
    state, reply = client.step(terms, identity, state, CommitmentList(commitments))
    own_channel_key = reply.message.channel_key  # type: ignore[union-attr]
    listed = commitments_digest(commitments)
    advertised: dict[str, Any] = {name: one.advertise(terms, listed) for name, one in played.items()}
    advertised[victim] = reply.message
    directory = Directory(tuple(DirectoryEntry(name, advertised[name]) for name in sorted(advertised)))
    (group,) = draw_groups(terms, commitments, directory)
    position = names_at(group).index(victim)
    state, reply = client.step(terms, identity, state, directory)
    assert isinstance(reply.message, SharedKeys)
    loot, given = Loot({position: {}}, {position: {}}), []
    for item in reply.message.ciphertexts:
        place = item.position
        shared = played[names_at(group)[place]].agree(own_channel_key)
        keys = channel_keys(shared, group.context, place, position)
        both = unseal(keys.receiving, item.ciphertext, sealing_context(group.context, position, place))
        loot.seeds[position][place], loot.mask_keys[position][place] = both[:64], both[64:]
        given.append(Sealed(place, seal(keys.sending, bytes(128), sealing_context(group.context, place, position))))
    threshold = graph_in(terms, len(group.members)).threshold
    seed, mask_key = (secret_of(kind[position], threshold) for kind in (loot.seeds, loot.mask_keys))
    deliveries = Deliveries(tuple(range(len(group.members))), tuple(given))
    _, reply = client.step(terms, identity, state, deliveries, vector.copy())
    assert reply.vector is not None
    return plain(reply.vector, group, position, seed, mask_key)
