"""Whole rounds of secure aggregation with known randomness, and every value in them. Decides nothing about the file."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from secure_round import SecureRound, identity_of, terms_of
from testudo_common.secagg import bindings, client, groups, primitives, quantize, shamir
from testudo_common.secagg.graph import graph_of
from testudo_common.secagg.messages import MESSAGES, Reply
from testudo_common.secagg.server import Sharing, Sum
from testudo_common.secagg.terms import Member, Terms

STEPS = ("commit", "advertise", "share_keys", "mask", "confirm", "unmask")


def expand(name: str, count: int) -> bytes:
    """``count`` bytes that look random, and are those of ``name``."""
    return hashlib.shake_256(f"testudo vectors {name}".encode()).digest(count)


class Stream:
    """Stands in for the operating system: the n-th draw is made from a name and n, and is written down."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.draws: list[bytes] = []

    def __call__(self, count: int = 32) -> bytes:
        self.draws.append(expand(f"{self._name} {len(self.draws)}", count))
        return self.draws[-1]


@contextmanager
def randomness_from(stream: Callable[..., bytes]) -> Iterator[None]:
    """All that the protocol draws comes from ``stream``; what would still ask the operating system fails."""
    refused = AssertionError("randomness that the vectors do not control")
    with (
        patch.object(client, "random_secret", stream),
        patch.object(shamir, "os_random", SimpleNamespace(token_bytes=stream)),
        patch.object(secrets, "token_bytes", side_effect=refused),
    ):
        yield


@dataclass
class Trace:
    """One round, and what it looked like after each step: step -> client -> state, reply or message for the next."""

    name: str
    run: SecureRound
    contributions: dict[str, quantize.Contribution]
    silent_from: dict[str, str]
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: dict[str, dict[str, Reply]] = field(default_factory=dict)
    given: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: tuple[Sharing, ...] = ()
    sharers: tuple[tuple[int, ...], ...] = ()
    drawn_for_shares: dict[str, bytes] = field(default_factory=dict)

    def said(self, step: str, who: str) -> Any:
        """The message that ``who`` sent in ``step``."""
        return self.sent[step][who].message


def run_round(name: str, terms: Terms, silent_from: Mapping[str, str]) -> Trace:
    """A round in which everything goes well but for those who fall silent."""
    layout, roster = terms.parameters.layout, terms.roster
    contributions = {who: _contribution(name, who, layout) for who in roster}
    encoded = {who: quantize.encode(layout, contributions[who], _rounding_key(name, who)) for who in roster}
    run, stream, gone = SecureRound(terms, encoded), Stream(name), set()
    trace = Trace(name, run, contributions, dict(silent_from))
    with randomness_from(stream):
        for step in STEPS:
            gone |= {who for who, since in silent_from.items() if since == step}
            before = len(stream.draws)
            getattr(run, step)(gone)
            trace.states[step], trace.sent[step], trace.given[step] = dict(run.states), dict(run.sent), dict(run.given)
            if step == "advertise":
                trace.groups = tuple(run.groups)
            if step == "share_keys":
                trace.drawn_for_shares = dict(zip(run.sent, stream.draws[before:], strict=True))
                trace.sharers = tuple(group.sharers for group in run.groups)
    assert not run.refused
    assert not run.faults
    for opened in run.sums:
        assert isinstance(opened, Sum)
        assert np.array_equal(opened.total, run.plain_sum(opened.survivors))
    return trace


def first_round() -> Trace:
    """A group of four; nobody drops out. One might: three are the least cohort, group and threshold."""
    terms = terms_of(["ada", "bo", "cleo", "dan"], size=8, min_cohort=4, max_left_out=0.25)
    return run_round("one group of four", terms, {})


def second_round() -> Trace:
    """A group of six, the least that can lose one before masking and one before unmasking; weights and counts."""
    layout = quantize.Layout(6, 1.5, 20, max_weight=3, count_bounds=(200, 7))
    names = ["ada", "bo", "cleo", "dan", "eve", "finn"]
    numbered = {"round_number": 7, "attempt": 2, "federation": "vectors"}
    terms = terms_of(names, layout=layout, min_cohort=6, dropout=0.34, max_left_out=0.0, **numbered)
    return run_round("one group of six with dropouts", terms, {"dan": "mask", "bo": "unmask"})


def third_round() -> Trace:
    """Nine clients: one left out, one that never shares its keys; and two names that UTF-16 would sort otherwise."""
    names = ["ada", "bo", "cleo", "dan", "eve", "finn", "Zo\u00eb", "\uff5a", "\U0001d4b5"]
    terms = terms_of(names, size=6, group_size=4, min_cohort=8, attempt=1, max_left_out=0.25)
    return run_round("two groups of nine clients", terms, {"eve": "advertise", "finn": "share_keys"})


def _rounding_key(name: str, who: str) -> bytes:
    return expand(f"{name} rounding {who}", 32)


def _contribution(name: str, who: str, layout: quantize.Layout) -> quantize.Contribution:
    """An update of 32nds, whose squares and their sum no machine rounds; some are longer than ``max_norm``."""
    drawn = np.frombuffer(expand(f"{name} update {who}", layout.values), dtype=np.int8)
    weight = 1 + expand(f"{name} weight {who}", 1)[0] % layout.max_weight
    counts = [expand(f"{name} count {who} {k}", 1)[0] % (most + 1) for k, most in enumerate(layout.count_bounds)]
    update = (drawn // 4 / 32).astype(np.float32)
    return quantize.Contribution(update, weight, np.array(counts, dtype=np.int64) if counts else None)


def round_of(trace: Trace, *, whole: bool) -> dict[str, Any]:
    """All that is known of a round; shares and messages are there only as digests unless it is to be ``whole``."""
    terms, listed, directory = trace.run.terms, trace.given["commit"]["ada"], trace.given["advertise"]["ada"]
    commitments = bindings.commitments_digest(listed.entries)
    nonces = [(entry.client_id, entry.advertisement.nonce) for entry in directory.entries]
    coin = groups.draw_coin(terms.round_context, commitments, nonces)
    named = ("federation", "roster_digest", "plan_digest", "round_number", "attempt", "model_digest", "parameters")
    return {
        "name": trace.name,
        "terms": {name: getattr(terms, name) for name in named},
        "silent_from": trace.silent_from,
        "round_context": terms.round_context,
        "clients": {who: _client(trace, who) for who in trace.run.clients},
        "commitments_digest": commitments,
        "coin": coin,
        "places": {who: primitives.digest("place", coin, who.encode()) for who, _ in nonces},
        "groups": [_group(trace, index, whole) for index in range(len(trace.groups))],
        "messages" if whole else "messages_sha256": _messages(trace, whole),
    }


def _client(trace: Trace, who: str) -> dict[str, Any]:
    contribution = trace.contributions[who]
    known = {
        "signing_key": identity_of(who).signing_key,
        "verification_key": trace.run.terms.roster[who],
        "nonce": trace.states["commit"][who].nonce,
        "commitment": trace.said("commit", who).commitment,
    }
    if who in trace.sent["advertise"]:
        state, shown = trace.states["advertise"][who], trace.said("advertise", who)
        known |= {name: getattr(state, name) for name in ("channel_secret", "mask_secret", "seed")}
        known |= {name: getattr(shown, name) for name in ("channel_key", "mask_key", "seed_digest", "signature")}
    return known | {
        "update": contribution.update,
        "weight": contribution.weight,
        "counts": [] if contribution.counts is None else contribution.counts,
        "rounding_key": _rounding_key(trace.name, who),
        "vector": trace.run.vectors[who],
    }


def _group(trace: Trace, index: int, whole: bool) -> dict[str, Any]:
    group, opened = trace.groups[index], trace.run.sums[index]
    assert isinstance(opened, Sum)
    parameters, names = trace.run.terms.parameters, [member.client_id for member in group.members]
    graph = graph_of(len(names), parameters.corruption, parameters.dropout)
    survivors = [place for place, name in enumerate(names) if name in opened.survivors]
    pairs = [(low, high) for low in range(len(names)) for high in graph.neighbours(low) if low < high]
    dealt = {place: _dealt(trace, group, place) for place in trace.sharers[index]}
    return {
        "members": names,
        "context": group.context,
        "degree": graph.degree,
        "threshold": graph.threshold,
        "pairs": {f"{low}-{high}": _pair(trace, group.context, group.members, low, high) for low, high in pairs},
        "sharers": trace.sharers[index],
        "dealt": dealt if whole else {place: _without_shares(of) for place, of in dealt.items()},
        "masked": {place: trace.sent["mask"][names[place]].vector for place in survivors},
        "survivors": survivors,
        "survivors_digest": bindings.survivors_digest(group.context, tuple(survivors)),
        "tags": {
            f"{place}-{item.position}": item.tag
            for place in survivors
            if names[place] in trace.sent["confirm"]
            for item in trace.said("confirm", names[place]).tags
        },
        "revealed": {
            place: {
                item.position: _kind_of(dealt[item.position], place, item.share)
                for item in trace.said("unmask", names[place]).shares
            }
            for place in survivors
            if names[place] in trace.sent["unmask"]
        },
        "total": opened.total,
        "opened": quantize.decode(parameters.layout, opened.total, len(survivors)),
    }


def _pair(trace: Trace, context: bytes, members: Sequence[Member], low: int, high: int) -> dict[str, bytes]:
    state, peer = trace.states["advertise"][members[low].client_id], members[high]
    channel = primitives.Agreement(state.channel_secret).with_peer(peer.channel_key)
    masks = primitives.Agreement(state.mask_secret).with_peer(peer.mask_key)
    keys = primitives.channel_keys(channel, context, low, high)
    return {
        "channel_shared": channel,
        "low_to_high": keys.sending,
        "high_to_low": keys.receiving,
        "confirming": keys.confirming,
        "mask_shared": masks,
        "pair_mask_key": bindings.pair_mask_key(masks, context, low, high),
    }


def _dealt(trace: Trace, group: Sharing, owner: int) -> dict[str, Any]:
    name = group.members[owner].client_id
    own = trace.states["share_keys"][name]
    words = np.frombuffer(trace.drawn_for_shares[name], dtype="<u4").astype(np.int64)
    assert words.max() < (1 << 32) - 1, "a word that is drawn again; give the round another name"
    coefficients = (words % shamir.PRIME).reshape(-1, 2, shamir.LIMBS)  # [t - 1, secrets, 16]
    held = {
        item.position: opened_shares(trace, group, owner, item.position)
        for item in trace.said("share_keys", name).ciphertexts
    }
    seed_shares = {place: shares[0] for place, shares in held.items()} | {owner: own.own_seed_share}
    return {
        "own_mask_key": bindings.own_mask_key(own.seed, group.context),
        "seed_coefficients": coefficients[:, 0],
        "mask_key_coefficients": coefficients[:, 1],
        "seed_shares": dict(sorted(seed_shares.items())),
        "mask_key_shares": {place: shares[1] for place, shares in held.items()},
    }


def opened_shares(trace: Trace, group: Sharing, owner: int, holder: int) -> tuple[bytes, bytes]:
    """The shares that ``owner`` sealed for ``holder``, opened as it would."""
    sent = trace.said("share_keys", group.members[owner].client_id).ciphertexts
    ciphertext = next(item.ciphertext for item in sent if item.position == holder)
    secret = trace.states["advertise"][group.members[holder].client_id].channel_secret
    shared = primitives.Agreement(secret).with_peer(group.members[owner].channel_key)
    key = primitives.channel_keys(shared, group.context, holder, owner).receiving
    both = primitives.unseal(key, ciphertext, bindings.sealing_context(group.context, owner, holder))
    return both[: shamir.SHARE_BYTES], both[shamir.SHARE_BYTES :]


def _without_shares(dealt: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in dealt.items() if not name.endswith("_shares")}


def _kind_of(dealt: Mapping[str, Any], holder: int, share: bytes) -> str:
    """Which share of an owner's was revealed; exactly one can be it."""
    (kind,) = (kind for kind in ("seed", "mask_key") if dealt[f"{kind}_shares"].get(holder) == share)
    return kind


def _messages(trace: Trace, whole: bool) -> dict[str, Any]:
    """Kind -> client -> bytes, or kind -> digest of all; what goes to everybody stands once."""
    found: dict[str, dict[str, bytes]] = {}
    for step in STEPS:
        for who, reply in trace.sent[step].items():
            found.setdefault(type(reply.message).__name__, {})[who] = MESSAGES.encode(reply.message)
        for who, message in trace.given[step].items() if step != STEPS[-1] else ():
            found.setdefault(type(message).__name__, {})[who] = MESSAGES.encode(message)
    once: dict[str, Any] = {kind: dict(sorted(sent.items())) for kind, sent in found.items()}
    for kind in ("CommitmentList", "Directory"):
        (once[kind],) = set(found[kind].values())
    if whole:
        return once
    joined = {kind: b"".join(sent.values()) if isinstance(sent, dict) else sent for kind, sent in once.items()}
    return {kind: hashlib.sha256(sent).digest() for kind, sent in joined.items()}
