"""Secure aggregation written a second time: its building blocks and its messages, from their description.

Plain Python and ``cryptography``, no numpy, nothing of ``testudo_common``. Slow and short on purpose: AES in counter
mode is made of single blocks, HKDF of HMACs, Shamir's scheme of whole numbers. No test in here.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import struct
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PROTOCOL = b"testudo-secagg-1"
PRIME = 65537
Json = dict[str, Any]
unhex = bytes.fromhex


def digest(label: str, *parts: bytes) -> bytes:
    return hashlib.sha256(PROTOCOL + b"".join(struct.pack(">Q", len(p)) + p for p in (label.encode(), *parts))).digest()


def number(value: int) -> bytes:
    return struct.pack(">Q", value)


def derive(secret: bytes, label: str, *parts: bytes, length: int = 32) -> bytes:
    pseudorandom, info = hmac.new(PROTOCOL, secret, hashlib.sha256).digest(), digest(label, *parts)
    key, block = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.new(pseudorandom, block + info + bytes((counter,)), hashlib.sha256).digest()
        key += block
    return key[:length]


def public_key(secret: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def agree(secret: bytes, peer: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(peer))


def sign(key: bytes, label: str, *parts: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(key).sign(digest(label, *parts))


def verification_key(signing_key: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(signing_key).public_key().public_bytes_raw()


def tag(key: bytes, label: str, *parts: bytes) -> bytes:
    return hmac.new(key, digest(label, *parts), hashlib.sha256).digest()[:16]


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    return AESGCM(key).encrypt(bytes(12), plaintext, associated)


def channel_keys(shared: bytes, context: bytes, low: int, high: int) -> Json:
    keys = derive(shared, "channel", context, number(low), number(high), length=96).hex()
    return {"low_to_high": keys[:64], "high_to_low": keys[64:128], "confirming": keys[128:]}


def stream(key: bytes, start: int, count: int) -> bytes:
    """Bytes of AES in counter mode, whose blocks are the counters 0, 1, 2, ... enciphered one by one."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    first = start // 16
    counters = b"".join(block.to_bytes(16, "big") for block in range(first, (start + count) // 16 + 1))
    return encryptor.update(counters)[start - 16 * first :][:count]


def mask_words(key: bytes, count: int, start: int = 0) -> list[int]:
    return list(struct.unpack(f"<{count}I", stream(key, 4 * start, 4 * count)))


def own_mask_key(seed: bytes, context: bytes) -> bytes:
    return derive(seed, "own mask", context)


def pair_mask_key(shared: bytes, context: bytes, low: int, high: int) -> bytes:
    return derive(shared, "pair mask", context, number(low), number(high))


def deal(secret: bytes, coefficients: list[list[int]], point: int) -> bytes:
    """The share of a holder: 16 polynomials, each with a limb as its constant term."""
    share = []
    for place, limb in enumerate(struct.unpack(">16H", secret)):
        terms = (row[place] * pow(point, power, PRIME) for power, row in enumerate(coefficients, start=1))
        share.append((limb + sum(terms)) % PRIME)
    return struct.pack(">16I", *share)


def recover(shares: Mapping[int, bytes]) -> bytes:
    """The secret, from point -> share: Lagrange's formula at 0."""
    limbs = [0] * 16
    for point, share in shares.items():
        weight = 1
        for other in shares:
            if other != point:
                weight = weight * other * pow(other - point, -1, PRIME) % PRIME
        limbs = [(limb + weight * part) % PRIME for limb, part in zip(limbs, struct.unpack(">16I", share), strict=True)]
    return struct.pack(">16H", *limbs)


def partition(coin: bytes, clients: Iterable[str], group_size: int) -> list[list[str]]:
    order = sorted(clients, key=lambda client: digest("place", coin, client.encode()))
    count = max(1, len(order) // group_size)
    bounds = [len(order) * group // count for group in range(count + 1)]
    return [order[bounds[group] : bounds[group + 1]] for group in range(count)]


def graph(members: int, corruption: float, dropout: float) -> tuple[int, int]:
    """Degree and threshold, in whole numbers: no logarithm and no rounding."""
    corrupt, dropped = (math.ceil(members * Fraction(str(share))) for share in (corruption, dropout))
    corrupt = max(1, corrupt)
    least = (members + corrupt) // 2 + 1  # against corrupt members alone
    if members <= 64:
        spared = math.floor(members * Fraction(str(dropout)))
        threshold = max(members - max(1, spared), least)
        assert threshold <= members - spared
        return members - 1, threshold

    def exceeds(bits: int, marked: int, drawn: int, at_least: int) -> bool:
        """Whether members * P(at least so many marked ones among the drawn) > 2^-bits."""
        ways = sum(
            math.comb(marked, hit) * math.comb(members - 1 - marked, drawn - hit)
            for hit in range(at_least, min(marked, drawn) + 1)
        )
        return members * ways << bits > math.comb(members - 1, drawn)

    gone = corrupt + dropped
    for degree in range(2, members - 1, 2):
        falls_apart = math.comb(members - degree, gone - degree) if degree <= gone else 0
        if members * members * falls_apart << 39 > math.comb(members, gone):
            continue
        lost = next(y for y in range(degree + 1) if not exceeds(20, dropped, degree, y + 1))
        threshold = degree - lost
        enough = 2 * threshold - degree - 1
        if enough > 0 and not exceeds(40, corrupt, degree, enough):
            return degree, threshold
    assert least <= members - dropped
    return members - 1, least


def neighbours(members: int, degree: int, place: int) -> list[int]:
    if degree == members - 1:
        return [other for other in range(members) if other != place]
    return sorted((place + step) % members for step in range(-(degree // 2), degree // 2 + 1) if step)


def largest_and_scale(layout: Json) -> tuple[int, float]:
    largest = 2 ** (layout["value_bits"] - 1) - 1
    return largest, largest / layout["max_norm"]


def quantise(layout: Json, given: Json) -> list[int]:
    update, weight = given["update"], given["weight"]
    largest, scale = largest_and_scale(layout)
    norm = math.sqrt(sum(value * value for value in update))
    factor = scale * weight * (1.0 if norm <= layout["max_norm"] else layout["max_norm"] / norm)
    steps = struct.unpack(f"<{len(update)}H", stream(unhex(given["rounding_key"]), 0, 2 * len(update)))
    words, most = [], largest * weight * 65536
    for value, step in zip(update, steps, strict=True):
        fine = min(max(value * (factor * 65536), -most), most)
        words.append((int(fine) + step) // 65536 % 2**32)
    return words + ([weight] if layout["max_weight"] > 1 else []) + given["counts"]


def opened(layout: Json, total: list[int], survivors: int) -> Json:
    _, scale = largest_and_scale(layout)
    values = layout["values"]
    weight = total[values] if layout["max_weight"] > 1 else survivors
    signed = [word - 2**32 if word >= 2**31 else word for word in total[:values]]
    mean = [struct.unpack("<f", struct.pack("<f", word * (1.0 / (scale * weight))))[0] for word in signed]
    return {"mean": mean, "weight": weight, "counts": total[len(total) - len(layout["count_bounds"]) :]}


# Messages: a byte of version, one of kind, and the fields.

KINDS = (
    *("Commitment", "CommitmentList", "Advertisement", "Directory", "SharedKeys", "Deliveries", "SurvivorSet"),
    *("MaskedInput", "Confirmation", "Confirmations", "UnmaskingShares"),
)
ADVERTISED = ("channel_key", "mask_key", "seed_digest", "nonce", "signature")


def many(items: Iterable[bytes]) -> bytes:
    listed = list(items)
    return struct.pack(">I", len(listed)) + b"".join(listed)


def name_and(client: str, what: bytes) -> bytes:
    return struct.pack(">I", len(client.encode())) + client.encode() + what


def positions(places: Iterable[int]) -> bytes:
    return many(struct.pack(">H", place) for place in places)


def advertised(shown: Json) -> bytes:
    return b"".join(unhex(shown[field]) for field in ADVERTISED)


def at_positions(items: Iterable[Json], field: str) -> bytes:
    return many(struct.pack(">H", item["position"]) + unhex(item[field]) for item in items)


def body(kind: str, fields: Json) -> bytes:
    match kind:
        case "Commitment":
            found = unhex(fields["commitment"])
        case "CommitmentList":
            found = many(name_and(entry["client_id"], unhex(entry["commitment"])) for entry in fields["entries"])
        case "Advertisement":
            found = advertised(fields)
        case "Directory":
            entries = ((entry["client_id"], advertised(entry["advertisement"])) for entry in fields["entries"])
            found = many(name_and(*entry) for entry in entries)
        case "SharedKeys":
            found = at_positions(fields["ciphertexts"], "ciphertext")
        case "Deliveries":
            found = positions(fields["sharers"]) + at_positions(fields["ciphertexts"], "ciphertext")
        case "SurvivorSet":
            found = positions(fields["survivors"])
        case "MaskedInput":
            found = b""
        case "Confirmation" | "Confirmations":
            found = at_positions(fields["tags"], "tag")
        case "UnmaskingShares":
            found = at_positions(fields["shares"], "share")
    return found


def message(kind: str, **fields: Any) -> bytes:
    return bytes((1, 1 + KINDS.index(kind))) + body(kind, fields)
