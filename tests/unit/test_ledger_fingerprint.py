"""A data set's name: of its records, whatever their order; nobody without the key can compute it."""

from __future__ import annotations

import hmac
import os
import stat
import struct
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import make_examples
from testudo_client.ledger.fingerprint import fingerprint_key, fingerprint_of
from testudo_common.errors import DataError, LedgerError
from testudo_common.learning.tasks import Examples

KEY = bytes(range(32))
EXAMPLES = make_examples(12)


def test_it_is_the_documented_formula() -> None:
    """By hand, with struct."""
    examples = Examples(np.array([[1.5, -2.0], [0.0, 3.0]], dtype=np.float32), np.array([1, 0], dtype=np.int64))
    records = [struct.pack("<ffq", 1.5, -2.0, 1), struct.pack("<ffq", 0.0, 3.0, 0)]
    said = (
        b"testudo-fingerprint-1" + sha256(b"<i8 2 2").digest() + b"".join(sorted(sha256(r).digest() for r in records))
    )
    assert fingerprint_of(examples, KEY) == hmac.new(KEY, said, "sha256").hexdigest()


@given(st.permutations(range(12)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    assert fingerprint_of(EXAMPLES.take(np.array(order)), KEY) == fingerprint_of(EXAMPLES, KEY)


def changed(what: str) -> Examples:
    inputs, targets = EXAMPLES.inputs.copy(), EXAMPLES.targets.copy()
    match what:
        case "one value":
            inputs[3, 1] = np.nextafter(inputs[3, 1], np.float32(9))
        case "one label":
            targets[3] = 1 - targets[3]
        case "two labels exchanged":
            first, second = int(np.flatnonzero(targets == 0)[0]), int(np.flatnonzero(targets == 1)[0])
            targets[[first, second]] = targets[[second, first]]
        case "two columns exchanged":
            inputs = inputs[:, [1, 0, 2]]
        case "one row less":
            inputs, targets = inputs[1:], targets[1:]
        case "one row twice":
            inputs, targets = inputs[[0, *range(12)]], targets[[0, *range(12)]]
        case "another shape":
            inputs = inputs.reshape(12, 3, 1)
        case "numbers for classes":
            return Examples(inputs, targets.astype(np.float32))
    return Examples(inputs, targets)


@pytest.mark.parametrize(
    "what",
    ["one value", "one label", "two labels exchanged", "two columns exchanged", "one row less", "one row twice",
     "another shape", "numbers for classes"],
)  # fmt: skip
def test_other_data_has_another_name(what: str) -> None:
    assert fingerprint_of(changed(what), KEY) != fingerprint_of(EXAMPLES, KEY)
    assert fingerprint_of(changed("nothing"), KEY) == fingerprint_of(EXAMPLES, KEY)


def test_another_key_gives_another_name() -> None:
    assert fingerprint_of(EXAMPLES, KEY[::-1]) != fingerprint_of(EXAMPLES, KEY)


def test_zero_has_one_sign() -> None:
    negative = Examples(np.full((2, 1), -0.0, dtype=np.float32), np.zeros(2, dtype=np.int64))
    assert fingerprint_of(negative, KEY) == fingerprint_of(Examples(-negative.inputs, negative.targets), KEY)


def test_no_rows_have_a_name_too() -> None:
    assert fingerprint_of(EXAMPLES.take(slice(0, 0)), KEY) != fingerprint_of(EXAMPLES, KEY)


@pytest.mark.parametrize("key", [b"", b"secret", KEY[:15]])
def test_a_key_that_can_be_guessed_is_refused(key: bytes) -> None:
    with pytest.raises(LedgerError, match="too short"):
        fingerprint_of(EXAMPLES, key)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_is_refused(value: float) -> None:
    inputs = EXAMPLES.inputs.copy()
    inputs[0, 0] = value
    with pytest.raises(DataError, match="finite"):
        fingerprint_of(Examples(inputs, EXAMPLES.targets), KEY)


def test_the_key_is_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "fingerprint.key"
    key = fingerprint_key(path)
    assert len(key) == 32
    assert fingerprint_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [found.name for found in path.parent.iterdir()] == ["fingerprint.key"]
    assert fingerprint_key(tmp_path / "other.key") != key


@pytest.mark.parametrize("fault", ["readable", "short", "long", "folder"])
def test_a_key_that_is_none_is_refused(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "fingerprint.key"
    match fault:
        case "folder":
            path.mkdir()
        case _:
            path.write_bytes(os.urandom({"short": 31, "long": 33}.get(fault, 32)))
            path.chmod(0o644 if fault == "readable" else 0o600)
    with pytest.raises(LedgerError):
        fingerprint_key(path)
