"""Known answers of secure aggregation: each is computed a second time, by code that shares nothing with ours.

second_secagg.py and second_round.py are that code. Where a piece of tests/vectors/secagg-1.json says what goes in and
what comes out, all that comes out must be what is computed from what goes in.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from second_round import Round, plus
from second_secagg import (
    KINDS,
    PRIME,
    PROTOCOL,
    Json,
    agree,
    channel_keys,
    deal,
    derive,
    digest,
    graph,
    mask_words,
    message,
    neighbours,
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

FOLDER = Path(__file__).resolve().parents[1] / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "secagg-1.json").read_text(encoding="ascii"))


@lru_cache
def round_again(index: int) -> Json:
    return Round(VECTORS["rounds"][index]).again()


ROUNDS = range(len(VECTORS["rounds"]))
PIECES = [(index, piece) for index in ROUNDS for piece in VECTORS["rounds"][index]]


@pytest.mark.parametrize(("index", "piece"), PIECES)
def test_round(index: int, piece: str) -> None:
    """Piece by piece, so that a difference is seen where it begins."""
    assert round_again(index)[piece] == VECTORS["rounds"][index][piece]


@pytest.mark.parametrize("index", ROUNDS)
def test_the_sum_is_the_survivors_own(index: int) -> None:
    """And no masked vector shows what it hides."""
    given = VECTORS["rounds"][index]
    assert round_again(index).keys() == given.keys()
    for group in given["groups"]:
        total = [0] * len(group["total"])
        for place in group["survivors"]:
            vector = given["clients"][group["members"][place]]["vector"]
            total = plus(total, vector, 1)
            assert not set(group["masked"][str(place)]) & set(vector)
        assert total == group["total"]


def parts_of(case: Json) -> list[bytes]:
    return [unhex(part) for part in case["parts"]]


def digest_again(case: Json) -> Json:
    return {"digest": digest(case["label"], *parts_of(case)).hex()}


def derive_again(case: Json) -> Json:
    return {"key": derive(unhex(case["secret"]), case["label"], *parts_of(case), length=case["length"]).hex()}


def agreement_again(case: Json) -> Json:
    secret = unhex(case["secret"])
    return {"public_key": public_key(secret).hex(), "shared": agree(secret, unhex(case["peer"])).hex()}


def signature_again(case: Json) -> Json:
    key = unhex(case["signing_key"])
    signature = sign(key, case["label"], *parts_of(case))
    verifying = Ed25519PublicKey.from_public_bytes(unhex(case["verification_key"]))
    verifying.verify(unhex(case["signature"]), digest(case["label"], *parts_of(case)))
    return {"verification_key": verification_key(key).hex(), "signature": signature.hex()}


def channel_keys_again(case: Json) -> Json:
    return channel_keys(unhex(case["shared"]), unhex(case["context"]), case["low"], case["high"])


def sealed_again(case: Json) -> Json:
    return {"sealed": seal(unhex(case["key"]), unhex(case["plaintext"]), unhex(case["associated"])).hex()}


def tag_again(case: Json) -> Json:
    return {"tag": tag(unhex(case["key"]), case["label"], *parts_of(case)).hex()}


def masks_again(case: Json) -> Json:
    secret, context = unhex(case["secret"]), unhex(case["context"])
    pair = case["kind"] == "pair mask"
    key = pair_mask_key(secret, context, *case["positions"]) if pair else own_mask_key(secret, context)
    return {"key": key.hex(), "first_words": mask_words(key, 16), "words_from_65536": mask_words(key, 8, 65536)}


def quantised_again(case: Json) -> Json:
    return {"vector": quantise(case["layout"], case)}


def shamir_again(case: Json) -> Json:
    """The shares; and any threshold of them must give the secret back."""
    shares = []
    for secret, coefficients in zip(case["secrets"], case["coefficients"], strict=True):
        dealt = {point: deal(unhex(secret), coefficients, point) for point in case["points"]}
        for chosen in combinations(dealt, case["threshold"]):
            assert recover({point: dealt[point] for point in chosen}).hex() == secret
        shares.append([share.hex() for share in dealt.values()])
    return {"shares": shares}


def field_elements_again(case: Json) -> Json:
    """Each word modulo the prime; the last of 2^32 is drawn again, from the next draw."""
    first, *more = (struct.unpack(f"<{len(draw) // 8}I", unhex(draw)) for draw in case["drawn"])
    spare = [word for draw in more for word in draw]
    words = [word if word < 2**32 // PRIME * PRIME else None for word in first]
    accepted = (word for word in spare if word < 2**32 // PRIME * PRIME)
    return {"elements": [next(accepted) % PRIME if word is None else word % PRIME for word in words]}


def graphs_again(case: Json) -> Json:
    degree, threshold = graph(case["members"], case["corruption"], case["dropout"])
    shown = {place: neighbours(case["members"], degree, int(place)) for place in case["neighbours"]}
    return {"degree": degree, "threshold": threshold, "neighbours": shown}


def partitions_again(case: Json) -> Json:
    return {"groups": partition(unhex(case["coin"]), case["clients"], case["group_size"])}


# name -> what computes it, and what it computes it from
PRIMITIVES = {
    "digest": (digest_again, {"label", "parts"}),
    "derive": (derive_again, {"secret", "label", "parts", "length"}),
    "agreement": (agreement_again, {"secret", "peer"}),
    "signature": (signature_again, {"signing_key", "label", "parts"}),
    "channel_keys": (channel_keys_again, {"shared", "context", "low", "high"}),
    "sealed": (sealed_again, {"key", "plaintext", "associated"}),
    "tag": (tag_again, {"key", "label", "parts"}),
    "masks": (masks_again, {"kind", "secret", "context", "positions"}),
    "quantised": (quantised_again, {"name", "layout", "update", "weight", "counts", "rounding_key"}),
    "shamir": (shamir_again, {"name", "secrets", "threshold", "points", "coefficients"}),
    "field_elements": (field_elements_again, {"drawn"}),
    "graphs": (graphs_again, {"members", "corruption", "dropout"}),
    "partitions": (partitions_again, {"coin", "clients", "group_size"}),
}


@pytest.mark.parametrize("name", sorted(PRIMITIVES.keys() | VECTORS["primitives"].keys()))
def test_primitive(name: str) -> None:
    again, inputs = PRIMITIVES[name]
    cases = VECTORS["primitives"][name]
    for case in cases if isinstance(cases, list) else [cases]:
        assert {key: case[key] for key in inputs} | again(case) == case


@pytest.mark.parametrize("case", VECTORS["messages"], ids=lambda case: case["kind"])
def test_message(case: Json) -> None:
    assert message(case["kind"], **case["fields"]).hex() == case["bytes"]


def test_there_is_a_message_of_each_kind() -> None:
    assert [case["kind"] for case in VECTORS["messages"]] == list(KINDS)
    assert VECTORS["protocol"] == PROTOCOL.decode()


def test_the_file_is_what_the_code_makes() -> None:
    """In a process of its own, as a person would run it."""
    ran = subprocess.run(
        [sys.executable, FOLDER / "make_secagg.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["second_secagg.py", "second_round.py"])
def test_the_second_implementation_knows_nothing_of_ours(name: str) -> None:
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    assert not re.search(r"^\s*(?:from|import) +(?:testudo|numpy|secure_round|vectors)", text, re.MULTILINE)
