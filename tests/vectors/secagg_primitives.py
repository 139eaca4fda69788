"""The building blocks of secure aggregation, each by what goes in and what comes out, and one message of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from testudo_common.secagg import bindings, groups, primitives, quantize, shamir
from testudo_common.secagg.graph import graph_of
from testudo_common.secagg.masking import apply_masks
from testudo_common.secagg.messages import (
    Advertisement,
    Commitment,
    CommitmentEntry,
    CommitmentList,
    Confirmation,
    Confirmations,
    ConfirmationTag,
    Deliveries,
    Directory,
    DirectoryEntry,
    MaskedInput,
    RevealedShare,
    Sealed,
    SharedKeys,
    SurvivorSet,
    UnmaskingShares,
)
from testudo_common.secagg.quantize import Layout
from vectors.secagg_rounds import expand, randomness_from

# name, layout, update, weight, counts
QUANTISED: tuple[tuple[str, Layout, list[float], int, list[int]], ...] = (
    ("short of the norm", Layout(6, 1.0, 16), [0.5, -0.5, 0.25, -0.015625, 0.0, -0.0], 1, []),
    ("clipped to the norm", Layout(4, 1.0, 16), [3.0, -4.0, 0.0, 0.75], 1, []),
    ("at the largest", Layout(1, 1.0, 16), [1.0], 1, []),
    ("at the least", Layout(1, 1.0, 16), [-1.0], 1, []),
    ("far beyond", Layout(2, 0.5, 8), [-(2.0**100), 1.0], 1, []),
    ("too small to see", Layout(3, 1.0, 16), [2.0**-149, -(2.0**-149), 2.0**-16], 1, []),
    ("two bits", Layout(4, 2.0, 2), [0.25, -0.25, 1.0, -1.0], 1, []),
    ("24 bits", Layout(3, 0.75, 24), [0.125, -0.625, 0.015625], 1, []),
    ("weighted", Layout(4, 1.0, 16, 8), [0.5, -0.25, 0.125, 0.0], 5, []),
    ("weighted, clipped, with counts", Layout(3, 1.0, 16, 8, (10, 1000)), [-2.0, 2.0, 1.0], 8, [10, 0]),
    ("counts alone", Layout(2, 1.0, 16, 1, (5,)), [0.25, -0.25], 1, [3]),
)
DRAWN = np.frombuffer(expand("coefficients", 4 * 2 * 2 * 16), "<u4").reshape(2, 2, 16) % shamir.PRIME
# name, secrets, points, coefficients [secrets][t - 1][16]
SHARED: tuple[tuple[str, list[bytes], list[int], list[Any]], ...] = (
    ("threshold of one", [bytes(range(32))], [1, 65536], [[]]),
    ("an element of 17 bits", [bytes(32)], [1, 2, 65536], [[[65536, 1, 32768] + 13 * [0]]]),
    ("all bits set", [b"\xff" * 32], [3, 1, 2], [[16 * [65536], 16 * [65535]]]),
    ("two secrets", [expand("shared one", 32), expand("shared other", 32)], [1, 3, 4, 6], DRAWN.tolist()),
)
# members, corruption, dropout
GRAPHS = (
    *((3, 0.05, 0.05), (4, 0.05, 0.05), (7, 0.05, 0.05), (7, 0.4, 0.1), (64, 0.1, 0.1)),
    *((6, 0.05, 0.34), (8, 0.1, 0.2), (8, 0.49, 0.2), (10, 0.1, 0.4), (10, 0.0, 0.49), (30, 0.1, 0.1), (64, 0.2, 0.0)),
    *((65, 0.05, 0.05), (80, 0.05, 0.05), (80, 0.1, 0.1), (100, 0.1, 0.1), (300, 0.1, 0.1), (80, 0.0, 0.0)),
    *((70, 0.3, 0.2), (81, 0.1, 0.0), (65, 0.3, 0.33)),
)
PARTITIONED = (([f"c{number}" for number in range(11)], 3), (["a", "\uff5a", "\U0001d4b5"], 4))


def primitives_of() -> dict[str, Any]:
    """Each building block for itself."""
    key = {name: expand(name, 32) for name in ("signing", "one", "other", "context", "secret", "aes", "tag", "coin")}
    context, eight = key["context"], primitives.number(1 << 40)
    digested = (("", ()), ("seed", ()), ("seed", (b"",)), ("seed", (b"ab", b"c")), ("seed", (b"a", b"bc")))
    derived = (("own mask", (context,), 32), ("channel", (context, eight), 96), ("x", (b"",), 5))
    sealed = ((b"", b""), (expand("plaintext", 128), context))
    return {
        "digest": [
            {"label": label, "parts": parts, "digest": primitives.digest(label, *parts)}
            for label, parts in (*digested, ("Zo\u00eb", (context, bytes(100), eight)))
        ],
        "derive": [
            {"secret": key["secret"], "label": label, "parts": parts, "length": length}
            | {"key": primitives.derive(key["secret"], label, *parts, length=length)}
            for label, parts, length in derived
        ],
        "agreement": _agreement(key["one"], key["other"]),
        "signature": _signature(key["signing"], "advertisement", context, b"", b"last"),
        "channel_keys": [_channel(key["secret"], context, low, high) for low, high in ((0, 1), (2, 300))],
        "sealed": [
            {"key": key["aes"], "plaintext": text, "associated": bound}
            | {"sealed": primitives.seal(key["aes"], text, bound)}
            for text, bound in sealed
        ],
        "tag": {"key": key["tag"], "label": "confirmation", "parts": (context, eight)}
        | {"tag": primitives.tag(key["tag"], "confirmation", context, eight)},
        "masks": [_mask("own mask", key), _mask("pair mask", key)],
        "quantised": [_quantised(*case) for case in QUANTISED],
        "shamir": [_shared(*case) for case in SHARED],
        "field_elements": _field_elements(),
        "graphs": [_graph(*case) for case in GRAPHS],
        "partitions": [
            {"coin": key["coin"], "clients": names, "group_size": size}
            | {"groups": groups.partition(key["coin"], names, size)}
            for names, size in PARTITIONED
        ],
    }


def _agreement(secret: bytes, other: bytes) -> dict[str, bytes]:
    peer = primitives.public_key(other)
    shared = primitives.Agreement(secret).with_peer(peer)
    return {"secret": secret, "public_key": primitives.public_key(secret), "peer": peer, "shared": shared}


def _signature(key: bytes, label: str, *parts: bytes) -> dict[str, Any]:
    signed = {"label": label, "parts": parts, "signature": primitives.sign(key, label, *parts)}
    return {"signing_key": key, "verification_key": primitives.verification_key(key)} | signed


def _channel(shared: bytes, context: bytes, low: int, high: int) -> dict[str, Any]:
    keys, back = (primitives.channel_keys(shared, context, *pair) for pair in ((low, high), (high, low)))
    assert (keys.sending, keys.receiving, keys.confirming) == (back.receiving, back.sending, back.confirming)
    found = {"low_to_high": keys.sending, "high_to_low": keys.receiving, "confirming": keys.confirming}
    return {"shared": shared, "context": context, "low": low, "high": high} | found


def _mask(kind: str, key: Mapping[str, bytes]) -> dict[str, Any]:
    """A mask's key, and its words from the first and from one far behind."""
    secret, context, far = key["secret"], key["context"], 1 << 16
    pair = kind == "pair mask"
    mask_key = bindings.pair_mask_key(secret, context, 9, 4) if pair else bindings.own_mask_key(secret, context)
    words = np.zeros(far + 8, dtype=np.uint32)
    apply_masks(words, [mask_key], [])
    return {
        "kind": kind,
        "secret": secret,
        "context": context,
        "positions": [4, 9] if pair else [],
        "key": mask_key,
        "first_words": words[:16],
        "words_from_65536": words[far:],
    }


def _quantised(name: str, layout: Layout, update: list[float], weight: int, counts: list[int]) -> dict[str, Any]:
    key = expand(f"rounding {name}", 32)
    values = np.array(update, dtype=np.float32)
    contribution = quantize.Contribution(values, weight, np.array(counts, dtype=np.int64) if counts else None)
    given = {"update": values, "weight": weight, "counts": counts, "rounding_key": key}
    return {"name": name, "layout": layout} | given | {"vector": quantize.encode(layout, contribution, key)}


def _shared(name: str, owned: list[bytes], points: list[int], coefficients: list[Any]) -> dict[str, Any]:
    threshold = 1 + len(coefficients[0])
    drawn = np.array(coefficients, dtype="<u4").reshape(len(owned), threshold - 1, 16).transpose(1, 0, 2).tobytes()
    with randomness_from(lambda _count: drawn):
        dealt = shamir.split(tuple(owned), threshold, points)
    shares = [[shamir.share_to_bytes(share) for share in row] for row in dealt]
    given = {"secrets": owned, "threshold": threshold, "points": points, "coefficients": coefficients}
    return {"name": name} | given | {"shares": shares}


def _field_elements() -> dict[str, Any]:
    """Words as elements of the field; the one that would make some likelier is replaced by the next that is drawn."""
    words = bytes.fromhex("00000000 ffff0000 00000100 01000100 feffffff ffffffff")
    draws = [words, b"\xff\xff\xff\xff", b"\7\0\0\0"]
    stream = iter(draws)
    with randomness_from(lambda _count: next(stream)):
        return {"drawn": draws, "elements": shamir.uniform((1, 6))[0]}


def _graph(members: int, corruption: float, dropout: float) -> dict[str, Any]:
    graph = graph_of(members, corruption, dropout)
    shown = {place: graph.neighbours(place) for place in ((0, 1, 39, 79) if members == 80 else ())}
    given = {"members": members, "corruption": corruption, "dropout": dropout}
    return given | {"degree": graph.degree, "threshold": graph.threshold, "neighbours": shown}


def samples() -> list[Any]:
    """One message of each kind, filled with what shows where a field begins and ends."""

    def filled(count: int, start: int) -> bytes:
        return bytes((start + place) % 256 for place in range(count))

    shown = Advertisement(filled(32, 0), filled(32, 32), filled(32, 64), filled(32, 96), filled(64, 128))
    other = Advertisement(filled(32, 1), filled(32, 33), filled(32, 65), filled(32, 97), filled(64, 129))
    sealed = (Sealed(1, filled(144, 7)), Sealed(300, filled(144, 9)))
    tags = (ConfirmationTag(0, filled(16, 1)), ConfirmationTag(65535, filled(16, 2)))
    return [
        Commitment(filled(32, 5)),
        CommitmentList((CommitmentEntry("ada", filled(32, 1)), CommitmentEntry("\uff5a", filled(32, 2)))),
        shown,
        Directory((DirectoryEntry("Zo\u00eb", shown), DirectoryEntry("ada", other))),
        SharedKeys(sealed),
        Deliveries((0, 1, 2, 300), sealed[1:]),
        SurvivorSet((0, 2, 3)),
        MaskedInput(),
        Confirmation(tags),
        Confirmations(()),
        UnmaskingShares((RevealedShare(2, filled(64, 3)), RevealedShare(258, filled(64, 4)))),
    ]
