"""States and messages: they come back from their bytes whole, show no secret, and need no slow import."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recorded_round import STEPS, Record, recorded
from secure_round import identity_of
from testudo_common.errors import ProtocolError
from testudo_common.secagg import client
from testudo_common.secagg.client import CLIENT_STATES
from testudo_common.secagg.messages import MESSAGES, Deliveries, Reply
from testudo_common.secagg.server import SERVER_STATES

RECORD = recorded(6)
VICTIM = RECORD.name(2)


def values_in(value: Any) -> Iterator[tuple[str, str, Any]]:
    """(kind, field, value) of all fields, those inside other records too."""
    if isinstance(value, tuple | list):
        for item in value:
            yield from values_in(item)
    elif is_dataclass(value):
        for item in fields(value):
            inside = getattr(value, item.name)
            yield type(value).__name__, item.name, inside
            yield from values_in(inside)


PUBLIC = {
    "context", "commitment", "channel_key", "mask_key", "seed_digest", "signature", "ciphertext", "tag",
}  # fmt: skip


def secrets_in(value: Any) -> Iterator[bytes]:
    """All bytes and arrays but those that are known to be public; a nonce is, once it is advertised."""
    for kind, name, inside in values_in(value):
        if name in PUBLIC or (kind, name) == ("Advertisement", "nonce"):
            continue
        if isinstance(inside, bytes | bytearray):
            yield bytes(inside)
        elif isinstance(inside, np.ndarray):
            yield inside.tobytes()


def shows(text: str, secret: bytes) -> bool:
    """Whether ``text`` holds the beginning of ``secret``, as anything that it could be printed as."""
    start = secret[:8]
    words = np.frombuffer(secret, dtype="<u4")[:3]
    return any(
        form in text
        for form in (
            start.hex(), start.hex().upper(), repr(start)[2:-1], ", ".join(map(str, start)),
            ", ".join(map(str, words)), " ".join(map(str, words)),
        )
    )  # fmt: skip


def everything(record: Record) -> Iterator[Any]:
    """Every state, message and reply of a round, and the sum."""
    for name in STEPS:
        found = record.steps[name]
        yield from (*found.states.values(), *found.told.values(), *found.replies.values())
        yield from found.messages().values()
        if found.server_state:
            yield found.server()
    yield from (*record.last_states.values(), record.round.sums[0], identity_of(VICTIM))


def test_no_secret_is_printed() -> None:
    seen = set()
    for value in everything(RECORD):
        text = repr(value) + str(value)
        for secret in secrets_in(value):
            assert not shows(text, secret), type(value).__name__
        seen |= {
            name
            for _, name, inside in values_in(value)
            if isinstance(inside, bytes | bytearray | np.ndarray) and name not in PUBLIC
        }
    assert seen == {
        "nonce", "channel_secret", "mask_secret", "seed", "receiving", "confirming", "own_seed_share", "seed_share",
        "mask_key_share", "share", "vector", "total", "signing_key",
    }  # fmt: skip


def test_no_secret_is_in_an_error() -> None:
    """Neither of those that a client raises over a message of another step, nor of the one that it cannot open."""
    for name in STEPS[1:]:
        state, told = RECORD.steps[name].states[VICTIM], RECORD.steps[name].told[VICTIM]
        messages = [RECORD.steps[other].told[VICTIM] for other in STEPS[1:] if other != name]
        if isinstance(told, Deliveries):
            messages.append(
                replace(told, ciphertexts=tuple(replace(item, ciphertext=bytes(144)) for item in told.ciphertexts))
            )
        for message in messages:
            with pytest.raises(ProtocolError) as caught:
                client.step(RECORD.terms, identity_of(VICTIM), state, message, RECORD.vectors[VICTIM].copy())
            assert not [secret for secret in secrets_in(state) if shows(repr(caught.value) + str(caught.value), secret)]


def test_what_is_shown_is_found() -> None:
    """Otherwise the test above could pass by looking for the wrong things."""
    secret = bytes(range(100, 132))
    for text in (f"{secret!r}", f"key={secret.hex()}", f"{list(secret)}", f"{np.frombuffer(secret, dtype='<u4')}"):
        assert shows(text, secret)


def same(one: Any, other: Any) -> bool:
    """Equal in every field, those too that take no part in ``==``."""
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if is_dataclass(one):
        names = [item.name for item in fields(one)]
        return type(one) is type(other) and all(same(getattr(one, name), getattr(other, name)) for name in names)
    return type(one) is type(other) and one == other


def test_states_and_messages_come_back_with_their_secrets() -> None:
    kinds = set()
    for value in everything(RECORD):
        for catalogue in (CLIENT_STATES, SERVER_STATES, MESSAGES):
            if type(value) in catalogue.kinds.values():
                assert same(catalogue.decode(catalogue.encode(value)), value)
                kinds.add(type(value))
    assert kinds == {*CLIENT_STATES.kinds.values(), *SERVER_STATES.kinds.values(), *MESSAGES.kinds.values()}


def test_secrets_take_no_part_in_comparisons() -> None:
    """So that no comparison is made that takes a different time for a different secret."""
    state = RECORD.steps["share_keys"].states[VICTIM]
    assert state == replace(state, seed=bytes(32))  # type: ignore[call-arg]


def test_clients_draw_secrets_of_their_own() -> None:
    secrets = [
        secret for name in STEPS[1:3] for state in RECORD.steps[name].states.values() for secret in secrets_in(state)
    ]
    assert len(secrets) == 6 * (1 + 3)
    assert len(set(secrets)) == len(secrets)


def test_the_sum_is_right() -> None:
    """The record that all these tests start from is that of a round that works."""
    [found] = RECORD.round.sums
    np.testing.assert_array_equal(found.total, RECORD.round.plain_sum(RECORD.vectors))  # type: ignore[union-attr]
    assert found.survivors == tuple(RECORD.vectors)  # type: ignore[union-attr]


def test_a_reply_has_a_vector_only_where_a_vector_is_due() -> None:
    for name in STEPS:
        replies: list[Reply] = list(RECORD.steps[name].replies.values())
        assert all((reply.vector is not None) == (name == "mask") for reply in replies)


# What is imported.


def test_nothing_but_cryptography_and_numpy_is_imported() -> None:
    """Neither torch nor flwr nor pydantic nor rfc8785: key exchange must not wait seconds for its imports."""
    root = Path(client.__file__).parent
    modules = [f"testudo_common.secagg.{path.stem}" for path in sorted(root.glob("*.py")) if path.stem != "__init__"]
    assert len(modules) > 10
    code = f"""
import sys
before = set(sys.modules)
import {", ".join(modules)}
tops = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(tops - set(sys.stdlib_module_names)))
"""
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(root.parents[1])},
    )
    assert set(found.stdout.split()) <= {"testudo_common", "numpy", "cryptography", "_openssl", "_cffi_backend"}
