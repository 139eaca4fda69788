"""A whole round of secure aggregation, made a second time from what its clients knew and drew. No test in here.

For groups in which everybody is everybody's neighbour. All that is computed is named as in secagg-1.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from second_secagg import (
    ADVERTISED,
    KINDS,
    Json,
    agree,
    channel_keys,
    deal,
    digest,
    graph,
    mask_words,
    message,
    number,
    opened,
    own_mask_key,
    pair_mask_key,
    partition,
    public_key,
    quantise,
    recover,
    seal,
    sign,
    tag,
    unhex,
    verification_key,
)

STEPS = ("commit", "advertise", "share_keys", "mask", "confirm", "unmask")


class Round:
    """One round of the file, made again from what its clients knew and drew."""

    def __init__(self, given: Json) -> None:
        self.given = given
        self.terms: Json = given["terms"]
        self.parameters: Json = self.terms["parameters"]
        self.layout: Json = self.parameters["layout"]
        self.context = self._round_context()
        self.messages: dict[str, Any] = {kind: {} for kind in KINDS}
        self.clients: Json = {who: self._client(who) for who in given["clients"]}
        committed = sorted(self._answering(self.clients, "commit"))
        self.cohort = sorted(self._answering(committed, "advertise"))
        assert len(self.cohort) >= self.parameters["min_cohort"]
        assert len(committed) - len(self.cohort) <= self.parameters["max_left_out"] * len(committed)
        pairs = [(who.encode(), unhex(self.clients[who]["commitment"])) for who in committed]
        self.listed = digest("commitments", *(part for pair in pairs for part in pair))
        entries = [{"client_id": who, "commitment": self.clients[who]["commitment"]} for who in committed]
        self._say("Commitment", {who: message("Commitment", **self.clients[who]) for who in committed})
        self.messages["CommitmentList"] = message("CommitmentList", entries=entries).hex()
        for who in self.cohort:
            self._advertise(who)
        shown = [{"client_id": who, "advertisement": self.clients[who]} for who in self.cohort]
        self.messages["Directory"] = message("Directory", entries=shown).hex()
        nonces = [part for who in self.cohort for part in (who.encode(), unhex(self.clients[who]["nonce"]))]
        self.coin = digest("public coin", self.context, self.listed, *nonces)
        groups = partition(self.coin, self.cohort, self.parameters["group_size"])
        self.groups = [self._group(index, members) for index, members in enumerate(groups)]

    def again(self) -> Json:
        """All that stands in the file, computed."""
        inputs = {name: self.given[name] for name in ("name", "terms", "silent_from")}
        return inputs | {
            "round_context": self.context.hex(),
            "clients": self.clients,
            "commitments_digest": self.listed.hex(),
            "coin": self.coin.hex(),
            "places": {who: digest("place", self.coin, who.encode()).hex() for who in self.cohort},
            "groups": self.groups,
            **({"messages": self.messages} if "messages" in self.given else {"messages_sha256": self._hashes()}),
        }

    def _answering(self, clients: Iterable[str], step: str) -> list[str]:
        silent = self.given["silent_from"]
        return [who for who in clients if who not in silent or STEPS.index(step) < STEPS.index(silent[who])]

    def _say(self, kind: str, said: Mapping[str, bytes]) -> None:
        self.messages[kind] |= {who: data.hex() for who, data in said.items()}

    def _hashes(self) -> Json:
        found = {}
        for kind, said in self.messages.items():
            joined = said if isinstance(said, str) else "".join(said[who] for who in sorted(said))
            found[kind] = hashlib.sha256(unhex(joined)).hexdigest()
        return found

    def _round_context(self) -> bytes:
        terms = self.terms
        named = (terms["federation"].encode(), unhex(terms["roster_digest"]), unhex(terms["plan_digest"]))
        attempt = (number(terms["round_number"]), number(terms["attempt"]), unhex(terms["model_digest"]))
        return digest("round context", *named, *attempt)

    def _client(self, who: str) -> Json:
        """What a client has before the first message: only secrets and values are read from the file."""
        given = self.given["clients"][who]
        drawn = ("signing_key", "nonce", "channel_secret", "mask_secret", "seed", "rounding_key")
        known = {name: given[name] for name in (*drawn, "update", "weight", "counts") if name in given}
        commitment = digest("nonce commitment", self.context, who.encode(), unhex(given["nonce"]))
        return known | {
            "verification_key": verification_key(unhex(given["signing_key"])).hex(),
            "commitment": commitment.hex(),
            "vector": quantise(self.layout, given),
        }

    def _advertise(self, who: str) -> None:
        own = self.clients[who]
        own["channel_key"] = public_key(unhex(own["channel_secret"])).hex()
        own["mask_key"] = public_key(unhex(own["mask_secret"])).hex()
        own["seed_digest"] = digest("seed", unhex(own["seed"])).hex()
        fields = [unhex(own[name]) for name in ADVERTISED[:-1]]
        own["signature"] = sign(unhex(own["signing_key"]), "advertisement", self.context, self.listed, *fields).hex()
        self._say("Advertisement", {who: message("Advertisement", **own)})

    def _group(self, index: int, members: list[str]) -> Json:
        """All steps of one group in which everybody is everybody's neighbour."""
        of = [self.clients[who] for who in members]
        size, everybody = self.layout["values"], range(len(members))
        degree, threshold = graph(len(members), self.parameters["corruption"], self.parameters["dropout"])
        assert degree == len(members) - 1
        keys = ("channel_key", "mask_key", "seed_digest")
        named = [
            p for who, own in zip(members, of, strict=True) for p in (who.encode(), *(unhex(own[k]) for k in keys))
        ]
        context = digest("group context", self.context, number(index), *named)
        here = {step: [p for p in everybody if self._answering([members[p]], step)] for step in STEPS}
        sharers, survivors = here["share_keys"], here["mask"]
        assert len(survivors) >= self.parameters["min_group"]
        pairs = {f"{low}-{high}": self._pair(context, of, low, high) for low, high in combinations(everybody, 2)}
        dealt = {place: self._dealt(index, context, of, place) for place in sharers}
        self._pass_ciphertexts_on(members, context, pairs, dealt)
        masked = {place: self._masked(of, place, pairs, dealt) for place in survivors}
        self._say("MaskedInput", {members[place]: message("MaskedInput") for place in survivors})
        self._say("SurvivorSet", {members[place]: message("SurvivorSet", survivors=survivors) for place in survivors})
        shown = digest("survivors", context, *(number(place) for place in survivors))
        tags = self._confirm(members, here, pairs, shown)
        revealed = {
            holder: {owner: "seed" if owner in survivors else "mask_key" for owner in sharers}
            for holder in here["unmask"]
        }
        assert set(revealed) <= set(survivors), "else it would reveal no share of its own"
        for holder, kinds in revealed.items():
            shares = [{"position": p, "share": dealt[p][f"{kind}_shares"][str(holder)]} for p, kind in kinds.items()]
            self._say("UnmaskingShares", {members[holder]: message("UnmaskingShares", shares=shares)})
        total = self._open(context, of, (masked, dealt, revealed), threshold)
        assert len(total) == size + (self.layout["max_weight"] > 1) + len(self.layout["count_bounds"])
        if "messages" not in self.given:
            left = ("own_mask_key", "seed_coefficients", "mask_key_coefficients")
            dealt = {place: {name: items[name] for name in left} for place, items in dealt.items()}
        return {
            "members": members,
            "context": context.hex(),
            "degree": degree,
            "threshold": threshold,
            "pairs": pairs,
            "sharers": sharers,
            "dealt": _by_text(dealt),
            "masked": _by_text(masked),
            "survivors": survivors,
            "survivors_digest": shown.hex(),
            "tags": tags,
            "revealed": _by_text({holder: _by_text(kinds) for holder, kinds in revealed.items()}),
            "total": total,
            "opened": opened(self.layout, total, len(survivors)),
        }

    @staticmethod
    def _pair(context: bytes, of: list[Json], low: int, high: int) -> Json:
        channel = agree(unhex(of[low]["channel_secret"]), unhex(of[high]["channel_key"]))
        masks = agree(unhex(of[high]["mask_secret"]), unhex(of[low]["mask_key"]))
        return channel_keys(channel, context, low, high) | {
            "channel_shared": channel.hex(),
            "mask_shared": masks.hex(),
            "pair_mask_key": pair_mask_key(masks, context, low, high).hex(),
        }

    def _dealt(self, index: int, context: bytes, of: list[Json], owner: int) -> Json:
        """A member's shares, from the coefficients that the file says it drew."""
        drawn = self.given["groups"][index]["dealt"][str(owner)]
        found: Json = {"own_mask_key": own_mask_key(unhex(of[owner]["seed"]), context).hex()}
        for kind, secret in (("seed", of[owner]["seed"]), ("mask_key", of[owner]["mask_secret"])):
            coefficients = found[f"{kind}_coefficients"] = drawn[f"{kind}_coefficients"]
            holders = [place for place in range(len(of)) if place != owner or kind == "seed"]
            found[f"{kind}_shares"] = {str(p): deal(unhex(secret), coefficients, p + 1).hex() for p in holders}
        return found

    def _pass_ciphertexts_on(self, members: list[str], context: bytes, pairs: Json, dealt: dict[int, Json]) -> None:
        def sealed(sender: int, receiver: int) -> str:
            pair, way = _pair_of(pairs, sender, receiver), "low_to_high" if sender < receiver else "high_to_low"
            shares = (dealt[sender][f"{kind}_shares"][str(receiver)] for kind in ("seed", "mask_key"))
            associated = digest("shares", context, number(sender), number(receiver))
            return seal(unhex(pair[way]), unhex("".join(shares)), associated).hex()

        for me in dealt:
            sent = [{"position": p, "ciphertext": sealed(me, p)} for p in range(len(members)) if p != me]
            given = [{"position": p, "ciphertext": sealed(p, me)} for p in dealt if p != me]
            self._say("SharedKeys", {members[me]: message("SharedKeys", ciphertexts=sent)})
            delivered = message("Deliveries", sharers=list(dealt), ciphertexts=given)
            self._say("Deliveries", {members[me]: delivered})

    @staticmethod
    def _masked(of: list[Json], me: int, pairs: Json, dealt: dict[int, Json]) -> list[int]:
        words: list[int] = of[me]["vector"]
        words = plus(words, mask_words(unhex(dealt[me]["own_mask_key"]), len(words)), 1)
        for other in dealt:
            if other != me:
                key = unhex(_pair_of(pairs, me, other)["pair_mask_key"])
                words = plus(words, mask_words(key, len(words)), 1 if me < other else -1)
        return words

    def _confirm(self, members: list[str], here: dict[str, list[int]], pairs: Json, shown: bytes) -> Json:
        def tag_of(sender: int, receiver: int) -> str:
            key = unhex(_pair_of(pairs, sender, receiver)["confirming"])
            return tag(key, "confirmation", shown, number(sender), number(receiver)).hex()

        tags: Json = {}
        for me in here["confirm"]:
            sent = {place: tag_of(me, place) for place in here["mask"] if place != me}
            tags |= {f"{me}-{place}": item for place, item in sent.items()}
            said = [{"position": place, "tag": item} for place, item in sent.items()]
            given = [{"position": place, "tag": tag_of(place, me)} for place in here["confirm"] if place != me]
            self._say("Confirmation", {members[me]: message("Confirmation", tags=said)})
            self._say("Confirmations", {members[me]: message("Confirmations", tags=given)})
        return tags

    @staticmethod
    def _open(context: bytes, of: list[Json], known: tuple[Any, Any, Any], threshold: int) -> list[int]:
        """The sum, as a server finds it: from masked vectors, public keys and revealed shares alone."""
        masked, dealt, revealed = known
        total = [0] * len(next(iter(masked.values())))
        for words in masked.values():
            total = plus(total, words, 1)
        for owner in dealt:
            kind = "seed" if owner in masked else "mask_key"
            assert all(kinds[owner] == kind for kinds in revealed.values())
            # The last holders: our own code takes the first ones, and any must do.
            holders = list(revealed)[-threshold:]
            assert len(holders) == threshold
            secret = recover({holder + 1: unhex(dealt[owner][f"{kind}_shares"][str(holder)]) for holder in holders})
            if owner in masked:
                assert digest("seed", secret).hex() == of[owner]["seed_digest"]
                total = plus(total, mask_words(own_mask_key(secret, context), len(total)), -1)
                continue
            assert public_key(secret).hex() == of[owner]["mask_key"]
            for near in masked:
                shared = agree(secret, unhex(of[near]["mask_key"]))
                key = pair_mask_key(shared, context, min(near, owner), max(near, owner))
                total = plus(total, mask_words(key, len(total)), -1 if near < owner else 1)
        return total


def plus(words: list[int], others: list[int], sign: int) -> list[int]:
    return [(word + sign * other) % 2**32 for word, other in zip(words, others, strict=True)]


def _pair_of(pairs: Json, one: int, other: int) -> Json:
    return pairs[f"{min(one, other)}-{max(one, other)}"]  # type: ignore[no-any-return]


def _by_text(items: Mapping[int, Any]) -> Json:
    return {str(place): item for place, item in items.items()}
