"""Each message of secagg-1.json that must be refused is refused, for the reason that its name says.

The genuine messages of the same round are taken, so that nothing but the fault can be the reason.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_round import identity_of, other_terms
from testudo_common.errors import PeerError, ProtocolError
from testudo_common.secagg import client, server, shamir
from testudo_common.secagg.messages import MESSAGES
from vectors.make_secagg import VECTORS, main
from vectors.secagg_rounds import STEPS, Trace, first_round

KNOWN: dict[str, Any] = json.loads(VECTORS.read_text(encoding="ascii"))
REFUSED: list[dict[str, Any]] = KNOWN["refused"]
GENUINE: dict[str, Any] = KNOWN["rounds"][0]["messages"]
TOLD = ("CommitmentList", "Directory", "Deliveries", "SurvivorSet", "Confirmations")
SAID = dict(
    zip(
        STEPS,
        ("Commitment", "Advertisement", "SharedKeys", "MaskedInput", "Confirmation", "UnmaskingShares"),
        strict=True,
    )
)


@lru_cache
def first() -> Trace:
    return first_round()


def genuine(kind: str, who: str) -> bytes:
    """A message of the first round, to or from ``who``."""
    known = GENUINE[kind]
    return bytes.fromhex(known if isinstance(known, str) else known[who])


def bytes_of(case: dict[str, Any]) -> bytes:
    changed = bytes.fromhex(case["bytes"])
    if "front" not in case:
        return changed
    message = genuine(case["kind"], case["client"])
    assert case["front"] + case["back"] <= len(message)
    return message[: case["front"]] + changed + message[len(message) - case["back"] :]


def refused(to: str) -> Any:
    cases = [case for case in REFUSED if case["to"] == to]
    assert cases
    return pytest.mark.parametrize("case", cases, ids=lambda case: f"{case.get('after', case['kind'])}, {case['name']}")


def client_step(after: str, who: str, data: bytes) -> None:
    """``who``, whose last step in the first round was ``after``, is told ``data``."""
    trace = first()
    vector = trace.run.vectors[who].copy()
    state = trace.states[after][who]
    try:
        client.step(trace.run.terms, identity_of(who), state, MESSAGES.decode(data), vector)
    except ProtocolError:
        assert np.array_equal(vector, trace.run.vectors[who]), "refused, and yet masked"
        raise


def server_step(kind: str, who: str, data: bytes) -> tuple[PeerError, ...]:
    """What the first round's server says when ``who`` sends ``data`` and all others what they sent."""
    trace, changed = first(), {kind: {who: MESSAGES.decode(data)}}
    terms, names = trace.run.terms, trace.run.clients
    terms = other_terms(terms, parameters=replace(terms.parameters, min_cohort=3))

    def replies(step: str) -> dict[str, Any]:
        return {name: trace.said(step, name) for name in names} | changed.get(SAID[step], {})

    state, _ = server.begin(terms, replies("commit"))
    (group, *_), _, faults = server.gather(terms, state, replies("advertise"))
    if kind == "Advertisement":
        return faults
    masking, _, faults = server.share(terms, group, replies("share_keys"))
    if kind == "SharedKeys":
        return faults
    for name in names:
        masking = server.accept(masking, name, trace.sent["mask"][name].vector)
    confirming, _ = server.close_masking(terms, masking)
    unmasking, _ = server.confirm(terms, confirming, replies("confirm"))
    opened = server.open_sum(terms, unmasking, replies("unmask"))
    assert np.array_equal(opened.total, trace.run.plain_sum(names))
    return opened.faults


@refused("decoder")
def test_not_decoded(case: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        MESSAGES.decode(bytes_of(case))
    assert caught.value.breach == case["breach"]


@refused("client")
def test_refused_by_the_client(case: dict[str, Any]) -> None:
    data = bytes_of(case)
    MESSAGES.decode(data)
    with pytest.raises(ProtocolError) as caught:
        client_step(case["after"], case["client"], data)
    assert caught.value.breach == case["breach"]
    assert getattr(caught.value, "client_id", None) == case.get("named")


@refused("server")
def test_refused_by_the_server(case: dict[str, Any]) -> None:
    (fault,) = server_step(case["kind"], case["client"], bytes_of(case))
    assert (fault.client_id, fault.breach) == (case["client"], case["breach"])


@refused("share")
def test_not_a_share(case: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        shamir.share_from_bytes(bytes_of(case))
    assert caught.value.breach == case["breach"]


@pytest.mark.parametrize(("after", "kind"), list(zip(STEPS, TOLD, strict=False)))
def test_the_genuine_message_is_taken(after: str, kind: str) -> None:
    """Else what is refused above could be refused for anything."""
    client_step(after, "bo", genuine(kind, "bo"))


@pytest.mark.parametrize("kind", ["Advertisement", "SharedKeys", "UnmaskingShares"])
def test_the_genuine_message_is_taken_by_the_server(kind: str) -> None:
    assert server_step(kind, "bo", genuine(kind, "bo")) == ()


def test_each_stands_once_and_is_tried() -> None:
    assert {case["to"] for case in REFUSED} == {"decoder", "client", "server", "share"}
    places = [(case["to"], case.get("after")) for case in REFUSED]
    for told in ([case["name"] for case in REFUSED], [bytes_of(case) for case in REFUSED]):
        assert max(Counter(zip(places, told, strict=True)).values()) == 1


def test_a_stale_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "known.json"
    assert main(["--check"], path) == 1
    assert "known.json is not what the code makes now" in capsys.readouterr().out
    assert main([], path) == 0
    assert main(["--check"], path) == 0
    assert path.read_bytes() == VECTORS.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"malformed", b"signature", 1))
    assert main(["--check"], path) == 1
