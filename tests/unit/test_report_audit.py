"""The audit log in both views of a report: what it holds, how to check it, and what is said when it does not hold."""

from __future__ import annotations

import html
import re

import pytest
from report_factory import arm, audited, report, run, terminal, two_seeds, words

from testudo_simulations.report.audit import BY_RDP, NONE
from testudo_simulations.report.html import to_html
from testudo_simulations.report.summaries import summarise
from testudo_simulations.report.wording import audit_line
from testudo_simulations.results import AuditSummary, Report


def page_of(found: Report) -> str:
    """The section's text, tags away."""
    (section,) = (part for part in re.split(r"<section[^>]*>", to_html(found)) if "<h2>The audit log</h2>" in part)
    return words(html.unescape(re.sub(r"<[^>]+>", " ", section)))


def of(*audits: AuditSummary | None, setting: str = "") -> Report:
    runs = [run([arm("adapted", (0.5,))], seed=seed, setting=setting, spent=7.0) for seed in range(len(audits))]
    return report(*(one.model_copy(update={"audit": audit}) for one, audit in zip(runs, audits, strict=True)))


def test_both_views_say_what_the_log_holds_and_costs() -> None:
    shown, page = words(terminal(two_seeds())), page_of(two_seeds())
    line = (
        "Audit log 42 entries, 2 rounds closed; 8 to 10 cosigned each round, 7 of 10 have to; its replay found nothing "
        "wrong; 1 incident; 3.1 ms CPU a client and round; 42 ms a round at the server; 24 kB of log, 2 MB down, "
        "40 kB up"
    )
    assert line in shown
    for said in (
        "Entries 42, 2 rounds closed",
        "Root qvRH1vjsrdBSCmJ7R3s1mUfH6nqoT1zPvqPpQJ5jXrw=",
        "Quorum 7 of 10 witnesses; 3 colluders are found out, 3 may be absent",
        "Cosigners 8 to 10 cosigned each round, 7 of 10 have to",
        "Epsilon of an example, by RDP 7.99",
        "Epsilon of a client, by RDP –",
        BY_RDP,
        "Incidents entry 12: resumed c7",
        "Replay nothing wrong",
        "3.1 ms CPU a client and round; 42 ms a round at the server; 24 kB of log, 2 MB down, 40 kB up",
        "Each run has a log of its own",
    ):
        assert said in page


def test_page_shows_one_owners_receipts_and_how_to_check_them() -> None:
    page = page_of(of(audited()))
    assert "Receipts of c7, the client asked most often" in page
    assert "2 20 8 yes receipts/c7/round-0002.tlog-proof" in page
    assert "testudo-client audit verify audit.tlog --federation-key keys/federation.pub " in page
    assert "--federation-key keys/federation.pub --receipt receipts/c7/round-0002.tlog-proof" in page
    assert "Each run has a log of its own" not in page


def test_of_many_receipts_the_ends_are_shown() -> None:
    page = page_of(of(audited(rounds=40)))
    assert "the first 3 and the last 2 of 40" in page
    assert re.findall(r"round-(\d{4})\.tlog-proof(?! testudo)", page)[:5] == ["0001", "0002", "0003", "0039", "0040"]
    assert "round-0004" not in page
    assert "round-0006" in page_of(of(audited(rounds=6)))


def test_log_that_does_not_hold_cannot_be_missed() -> None:
    failed = audited(verified=False, checks=["ok: signatures", "FAILED: rounds: entry 17: no", "FAILED: more"])
    found = of(audited(), failed, setting="epsilon = 8")
    assert summarise(found)[0].audit == failed, "whichever seed it was"
    assert "its replay found nothing wrong; 1 incident" not in words(terminal(found))
    assert "ITS REPLAY FAILED: rounds: entry 17: no; 1 incident" in words(terminal(found))
    assert "Replay FAILED: rounds: entry 17: no" in page_of(found)
    wrong = audited()
    receipts = [wrong.receipts[0].model_copy(update={"verified": False})]
    assert "1 10 8 NO receipts/c7" in page_of(of(wrong.model_copy(update={"receipts": receipts})))


def test_run_without_a_log_says_so() -> None:
    found = of(None)
    assert page_of(found) == f"The audit log {NONE}"
    assert "Audit log none; nobody can check afterwards what the server did" in words(terminal(found))
    assert BY_RDP not in page_of(of(audited(epsilon=None)))
    mixed = report(*of(audited(), setting="epsilon = 8").runs, *of(None, setting="epsilon = 2").runs)
    assert "Without a log: At epsilon 2." in page_of(mixed)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cosigners": [10, 10]}, "10 cosigned each round, 7 of 10 have to"),
        ({"cosigners": []}, "2 rounds closed; 7 of 10 have to"),
        ({"client_cpu_seconds": None}, "wrong; 1 incident; 42 ms a round at the server"),
        ({"incidents": []}, "wrong; 3.1 ms CPU"),
    ],
)
def test_line_of_the_log(changes: dict[str, object], said: str) -> None:
    assert said in audit_line(audited(**changes))
