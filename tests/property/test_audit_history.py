"""The replay of an audit log: any single change to a valid log is found, or is one of a short list of harmless ones.

Harmless to the replay, that is: each changes the root, so that whoever kept a checkpoint or a receipt finds it. What is
in these lists could deceive whoever has nothing but a log that was signed anew over changed entries.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import fields
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_logs import EXAMPLE_PRIVATE, SCORED, SECURE, AuditLogBuilder, audited_plan, full_log
from testudo_common.audit.history import History, begin_history, extend
from testudo_common.errors import AuditError

PLANS = {
    "plain": audited_plan(),
    "secure and private": audited_plan(*EXAMPLE_PRIVATE, *SCORED, tables=SECURE),
}
LOGS = pytest.mark.parametrize("name", PLANS)

OMISSIONS = {
    "incident": "may stand anywhere, or not at all",
    "leakage_drill": "may stand anywhere, or not at all",
    "model_released": "nothing follows from it",
    "evaluation": "nothing follows from it",
    "updates_rejected": "where nothing came of the attempt",
    "owner_withdrawn": "the server can leave a statement out; its owner misses it, and does not train",
    "plan_approved": "where the owner was not asked before it approved again; it misses its statement",
    "update_received": "where it is in no round; its owner misses it",
    "round_opened": "where nothing came of it, and the plan has no account that it is charged to",
    "groups_drawn": "where nothing came of them",
}
REPETITIONS = ("incident", "leakage_drill", "model_released")
"""What may be said twice."""
FIELDS = {
    "time": "the server's clock",
    "charter.code": "what the server says of itself",
    "charter.environment": "what the server says of itself",
    "charter.bundle": "what the server says of itself",
    "charter.training": "in a plan without an account",
    "charter.scores": "in a plan without an account",
    "charter.sum": "in a plan without an account",
    "incident.kind": "free",
    "incident.round": "free",
    "incident.note": "free",
    "leakage_drill.report": "free",
    "leakage_drill.passed": "free",
    "model_released.to": "free",
    "evaluation.metrics": "noisy, and nothing follows from it",
    "evaluation.noise": "nothing follows from it",
    "updates_rejected.clients": "why, and not who",
    "round_opened.cohort": "one more or less that was asked in vain, where no account changes; it knows itself",
    "round_opened.barred": "whom strikes had named, the server says",
    "round_opened.model_digest": "of the first round: the owners make that model themselves",
    "groups_drawn.groups": "a whole group less, of an attempt that nothing came of",
    "round_closed.model_digest": "of the last round: nothing has followed yet",
    "round_closed.survivors": "in another order",
}


@cache
def states(name: str) -> tuple[AuditLogBuilder, tuple[History, ...]]:
    """A full log of a plan, and its history after each entry."""
    log = full_log(PLANS[name], 10)
    found = [begin_history(log.federation_public, log.plan.digest)]
    for entry in log.entries:
        found.append(extend(found[-1], (entry,)))
    return log, tuple(found)


def accepted(name: str, index: int, tail: list[bytes]) -> History | None:
    """The history of a log whose first ``index`` entries are the valid ones; None if it breaks a rule."""
    before = states(name)[1][index]
    try:
        return extend.__wrapped__(before, tuple(tail))
    except AuditError as error:
        assert error.index is not None and error.index >= index
        return None


def kind_of(entry: bytes) -> str:
    return str(json.loads(entry)["type"])


def client_of(entry: bytes) -> str:
    return str(json.loads(entry)["statement"]["client"])


def established(history: History) -> dict[str, Any]:
    """What a log says, but not where it says so."""
    found: dict[str, Any] = {each.name: getattr(history, each.name) for each in fields(history)}
    for name in ("root", "frontier", "size", "charter", "plan", "watch", "received", "places", "last_opened"):
        del found[name]
    for name in ("opened", "groups", "closed"):
        found[name] = found[name] and found[name][1]
    found["contributions"] = {
        client: tuple(sorted((statement.round, statement.attempt, statement.commitment) for _, statement in each))
        for client, each in found["contributions"].items()
    }
    found["released"] = len(found["released"])
    return found


@LOGS
def test_entry_that_is_left_out_is_found(name: str) -> None:
    log, _ = states(name)
    unfound = set()
    for index, entry in enumerate(log.entries[:-1]):  # without the last it is a shorter log, and as valid
        if accepted(name, index, log.entries[index + 1 :]) is None:
            continue
        kind = kind_of(entry)
        assert kind in OMISSIONS, f"entry {index}"
        unfound.add(kind)
        later = [json.loads(each) for each in log.entries[index + 1 :]]
        said = json.loads(entry)
        if kind == "update_received":
            statement = said["statement"]
            closed = [e for e in later if e["type"] == "round_closed" and e["round"] == statement["round"]]
            assert not any([statement["client"]] in e["survivors"] for e in closed)
        if kind == "plan_approved":
            client = said["statement"]["client"]
            asked = [e for e in later if e["type"] == "round_opened" and client in e["cohort"]]
            assert not asked or said["statement"]["number"] == 2
        if kind in ("round_opened", "groups_drawn"):
            of_it = [e["statement"] for e in later if e["type"] == "update_received"]
            assert (said["round"], said["attempt"]) not in {(s["round"], s["attempt"]) for s in of_it}
        if kind == "round_opened":
            assert not log.plan.private
    assert unfound >= {"incident", "leakage_drill", "owner_withdrawn", "updates_rejected"}


@LOGS
def test_entry_that_is_repeated_is_found(name: str) -> None:
    log, found = states(name)
    for index, entry in enumerate(log.entries):
        for place in {index + 1, min(index + 3, len(log.entries)), len(log.entries)}:
            after = accepted(name, place, [entry, *log.entries[place:]])
            if kind_of(entry) not in REPETITIONS:
                assert after is None, f"entry {index} again at {place}"
            elif after is not None:
                assert {**established(after), "released": 1} == {**established(found[-1]), "released": 1}


@LOGS
def test_entries_in_another_order_are_found_or_say_the_same(name: str) -> None:
    log, found = states(name)
    refused = 0
    for index, (one, other) in enumerate(pairwise(log.entries)):
        after = accepted(name, index, [other, one, *log.entries[index + 2 :]])
        refused += after is None
        assert after is None or established(after) == established(found[-1]), f"entries {index} and {index + 1}"
    assert refused > 10


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to each value in an entry that is no object or list, and to each list."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        yield path
        for place, inner in enumerate(value):
            yield from leaves(inner, (*path, place))
    else:
        yield path


def changed(value: Any) -> list[Any]:
    """Other values of the same kind."""
    match value:
        case bool():
            return [not value]
        case int() | float():
            return [value + 1, value * 1.01, max(0, value - 1)]
        case None:
            return [1, "ab" * 32]
        case str() if value.endswith("Z"):
            return ["2026-03-01T12:00:01Z"]
        case str():
            return ["0" * 64, "owner-09", value + "a", value[::-1]]
        case list():
            return [value[1:], value[::-1], [*value, *value[:1]], [*value, "owner-09"]]
        case _:
            raise AssertionError(value)


def mutants(entry: bytes) -> Iterator[tuple[str, bytes]]:
    """Entries in which one value is another, each with the field that it is in."""
    said = json.loads(entry)
    for path in leaves(said):
        held: Any = said
        for key in path:
            held = held[key]
        for value in changed(held):
            if value == held:
                continue
            other = deepcopy(said)
            inner: Any = other
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            yield path[0] if path[0] == "time" else f"{said['type']}.{path[0]}", rfc8785.dumps(other)


@LOGS
def test_value_that_is_changed_is_found(name: str) -> None:
    log, _ = states(name)
    tried = refused = 0
    for index, entry in enumerate(log.entries):
        for field, mutant in mutants(entry):
            tried += 1
            if accepted(name, index, [mutant, *log.entries[index + 1 :]]) is None:
                refused += 1
                continue
            assert field in FIELDS, f"entry {index}: {field}"
            if field == "round_opened.model_digest":
                assert json.loads(entry)["round"] == 1
            if field == "round_closed.model_digest":
                assert json.loads(entry)["round"] == 4
            if field == "round_closed.survivors":
                said, before = (json.loads(each)["survivors"] for each in (mutant, entry))
                assert sorted(map(sorted, said)) == sorted(map(sorted, before)), "everybody asked is accounted for"
            if log.plan.private:
                assert (
                    not field.startswith("charter.")
                    or field in ("charter.code", "charter.environment")
                    or (field in ("charter.bundle", "charter.sum"))
                )
    assert refused > 0.7 * tried > 100


@given(data=st.data())
@settings(max_examples=30, deadline=None)
@LOGS
def test_batches_do_not_matter(name: str, data: st.DataObject) -> None:
    log, found = states(name)
    history, at = found[0], 0
    while at < len(log.entries):
        step = data.draw(st.integers(1, 20))
        history = extend(history, tuple(log.entries[at : at + step]))
        at = min(at + step, len(log.entries))
        assert history == found[at]
        assert established(history) == established(found[at])
        assert history.root == log.root(at)


@LOGS
def test_same_history_is_computed_once(name: str) -> None:
    """However it came about: in a simulation a thousand owners follow one log."""
    log, found = states(name)
    one = extend(begin_history(log.federation_public, log.plan.digest), tuple(log.entries[:15]))
    other = extend(found[10], tuple(log.entries[10:15]))
    assert one == other == found[15] and one is not other
    assert one != found[14] and one != begin_history(log.federation_public, log.plan.digest)
    more = tuple(log.entries[15:])
    assert extend(one, more) is extend(other, more)


@LOGS
def test_history_stays_as_it_was(name: str) -> None:
    """Whether the entries that follow are good or bad: it is shared by many."""
    log, found = states(name)
    for index in range(0, len(log.entries), 5):
        before = found[index]
        said = deepcopy({each.name: getattr(before, each.name) for each in fields(before) if each.name != "watch"})
        accepted(name, index, log.entries[index:])
        accepted(name, index, [*log.entries[index:], log.entries[0]])
        now = {each.name: getattr(before, each.name) for each in fields(before) if each.name != "watch"}
        del said["frontier"], now["frontier"]
        assert now == said
        assert before.frontier.root() == before.root
