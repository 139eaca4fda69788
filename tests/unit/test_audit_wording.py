"""The entries of an audit log in words: one line each, with what a person looks for."""

from __future__ import annotations

import pytest

from audit_logs import EXAMPLE_PRIVATE, SCORED, SECURE, TIME, AuditLogBuilder, audited_plan, digest_of, full_log
from testudo_common.audit.entries import Evaluation, GroupRejected, IncidentKind, Reason, RoundOpened, decode_entry
from testudo_common.audit.wording import counted, printable, told

PLAN = audited_plan(*EXAMPLE_PRIVATE, *SCORED, tables=SECURE)
DIGITS = PLAN.digest[:16]


def last(log: AuditLogBuilder) -> str:
    return told(decode_entry(log.entries[-1]))


def test_every_kind_of_entry_is_one_line_of_its_own() -> None:
    log = full_log(PLAN, 10)
    lines = {decode_entry(entry).type: told(decode_entry(entry)) for entry in log.entries}
    assert len(lines) == len(set(lines.values())) == 13
    assert all(line.isprintable() and line for line in lines.values())
    model = digest_of("model", 4)[:16]
    assert lines["charter"].startswith(f"plan small {DIGITS} of shops; 7 witnesses have to cosign; code ")
    assert lines["enrolment"] == "10 members of the federation"
    assert lines["plan_approved"] == "owner-09 approves the plan (decision 2)"
    assert lines["owner_withdrawn"] == "owner-09 takes no further part (decision 1); updates in rounds: 2"
    assert lines["groups_drawn"].startswith("round 4.0: 2 groups of 4, 4; coin ")
    assert lines["update_received"].startswith("round 4.0: of owner-09, commitment ")
    assert lines["updates_rejected"] == "round 4.0: 0 clients not in it"
    spent = "one example: epsilon 13.98 at delta 1e-05 after 16 steps"
    assert lines["round_closed"] == f"round 4.0: model {model}, 8 updates in 2 rows by mean; {spent}"
    assert lines["evaluation"] == "round 4: before and after adaptation: accuracy 0.5 -> 0.75"
    assert lines["leakage_drill"].startswith("passed; report ")
    assert lines["model_released"].endswith("after round 3 to the pilot shops")
    assert lines["incident"] == "round_failed: too few replied"


def test_what_is_not_always_there() -> None:
    log = AuditLogBuilder(PLAN)
    log.open(barred=("owner-07",), cohort=log.owners[:6])
    opened = decode_entry(log.entries[-1])
    assert isinstance(opened, RoundOpened)
    assert last(log).endswith("6 clients asked; 1 barred")
    assert told(opened.model_copy(update={"clip": 0.25})).endswith("; 1 barred; clipped to 0.25")
    log.reject({"owner-00": Reason.REFUSED, "owner-01": Reason.NO_REPLY, "owner-02": Reason.NO_REPLY})
    assert last(log) == "round 1.0: 3 clients not in it: 2 no_reply, 1 refused"
    log.reject({}, groups=(GroupRejected(members=("owner-00",), reason="too_few"),))
    assert last(log) == "round 1.0: 0 clients not in it; 1 group not opened"
    log.drill(passed=False)
    assert last(log).startswith("FAILED; report ")
    log.incident(IncidentKind.RESUMED, "")
    assert last(log) == "resumed"


def test_many_scores_are_cut_and_none_are_said_to_be_none() -> None:
    names = dict.fromkeys("abcde", 0.5)
    scores = Evaluation(time=TIME, round=2, metrics={"before": names, "after": names})
    assert told(scores) == "round 2: before and after adaptation: a 0.5 -> 0.5, b 0.5 -> 0.5, c 0.5 -> 0.5, and 2 more"
    assert told(scores.model_copy(update={"metrics": {}})) == "round 2: no scores"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb\tc", "a?b?c"),
        ("\x1b[31mred", "?[31mred"),
        ("right\u202eto left", "right?to left"),
        ("naïve", "naïve"),
    ],
)
def test_nothing_moves_the_cursor(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_counts() -> None:
    assert [counted(n, "round") for n in (0, 1, 2)] == ["0 rounds", "1 round", "2 rounds"]
    assert [counted(n, "entry", "entries") for n in (1, 3)] == ["1 entry", "3 entries"]
