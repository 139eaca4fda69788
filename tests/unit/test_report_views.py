"""The report in the terminal and as a page: same numbers, hostile names, nothing loaded, same bytes."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from report_factory import (
    arm,
    hostile,
    page_of_two_seeds,
    report,
    run,
    terminal,
    two_seeds,
    with_noisy_scores,
    with_scores,
    words,
)

from page_outline import check_page, outline
from testudo_common.markup import printable
from testudo_simulations.report.headlines import headline
from testudo_simulations.report.html import to_html, write_html
from testudo_simulations.report.summaries import summarise
from testudo_simulations.results import (
    Report,
)


def test_both_views_show_the_same_hand_computed_numbers() -> None:
    shown, page = words(terminal(two_seeds())), words(page_of_two_seeds())
    # adapted 76.0 with 0.02 / sqrt(2) = 0.0141; scratch (0.55 + 0.57) / 2; five shots (0.67 + 0.69) / 2
    for number in ("76.0 ± 1.4", "56.0 ± 1.4", "70.6", "81.4", "50 %"):
        assert number in shown
        assert number in page
    assert "68.0±1.4" in shown
    assert "68.0 ± 1.4" in page
    for sentence in (one.text for one in headline(summarise(two_seeds())[0]).findings):
        assert sentence in shown
        assert sentence in page


def test_terminal_names_privacy_exclusions_and_cost() -> None:
    shown = words(terminal(two_seeds()))
    assert "unit: one example of one client; epsilon 7.99 of 8 spent at delta 1e-5; accountant PRV" in shown
    assert "noise multiplier 1.25" in shown
    assert "100 steps a client" in shown
    assert "c7 (too few rows)" in shown
    assert "c7 (no reply; 2 rounds)" in shown
    assert "20 s CPU (training 12 s), 10 s wall; 4 MB down, 2 MB up; 500 MB RAM (2 runs)" in shown


def test_terminal_says_who_saw_what() -> None:
    shown = words(terminal(two_seeds()))
    assert (
        "Secure sums 6 groups opened, 2 lost; at least 5 clients in a sum; barred after strikes: c7; "
        "4 ms CPU a client and round; 9 ms a round at the server; 1.25 times the plain bytes up, 1.25 times down"
    ) in shown


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_terminal_keeps_to_80_columns_and_to_the_encoding(encoding: str) -> None:
    long = arm("local_knn", (0.5,), label="a very long label " * 5)
    found = report(*two_seeds().runs, run([long, arm("adapted", (0.5,))], client="k" * 200), title="T" * 200)
    assert max(map(len, terminal(found, encoding=encoding).splitlines())) <= 80


def test_best_is_bold() -> None:
    page = page_of_two_seeds()
    assert re.findall(r"<strong>([^<]*)</strong>", page) == [
        "adapted",
        "76.0 ± 1.4",
        "68.0 ± 1.4",
        "76.0 ± 1.4",
    ]


def test_an_empty_report_says_so() -> None:
    assert "No run was finished" in terminal(report())
    assert "No run was finished" in to_html(report())


# --- the page ---


@pytest.mark.parametrize("found", [two_seeds(), hostile()], ids=["plain", "hostile"])
def test_the_page_loads_nothing_runs_nothing_and_is_well_formed(found: Report) -> None:
    page = to_html(found)
    check_page(page)
    assert page.count("<svg ") == 4
    assert '<html lang="en">' in page


def test_hostile_names_are_shown_escaped_and_without_control_characters() -> None:
    page, shown = to_html(hostile()), terminal(hostile())
    assert "&lt;script&gt;alert(" in page
    for text in (page, shown):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "[bold]" in shown


def test_printable_keeps_letters_of_all_scripts() -> None:
    assert printable("Zoë 東京 é") == "Zoë 東京 é"
    assert printable("a\x00b\u200b") == "a\ufffdb\ufffd"


def test_the_privacy_section_says_what_is_not_covered_and_does_not_claim_what_was_not_done() -> None:
    private, plain = page_of_two_seeds(), to_html(two_seeds(spent=None))
    for said in (
        "one example of one client",
        "What is not covered",
        "No smaller epsilon is claimed",
        "charged as a run of its own at the same epsilon",
        "7.99",
        "1e-5",
        "PRV",
    ):
        assert said in private
    assert "No run of this report was differentially private" in plain
    assert "protects one example" not in plain


def in_mode(mode: str) -> Report:
    found = run([arm("adapted", (0.5,)), arm("meta", (0.4,))])
    return report(found.model_copy(update={"secure": found.secure.model_copy(update={"mode": mode})}))


def test_the_page_says_what_the_server_saw() -> None:
    secure, plain, mask_free = (read(to_html(in_mode(mode))) for mode in ("secure", "plain", "mask-free"))
    for page in (secure, plain, mask_free):
        assert "What the server saw" in page
    promise = "the server learns sums over groups of clients and no single client's update"
    assert promise in secure
    assert "3 groups opened, 1 lost; at least 5 clients in a sum; barred after strikes: c7" in secure
    assert promise not in plain
    assert "none; the server saw every client's update" in plain
    assert "groups opened" not in plain
    assert "simulated without masks: the same sums, no secrecy, and not their cost" in mask_free
    assert "the server saw every client's update" not in secure


def read(page: str) -> str:
    """The text as a browser shows it."""
    return words(html.unescape(re.sub(r"<[^>]*>", " ", page)))


def rows_of(page: str, caption: str) -> list[list[str]]:
    """The cells of the table of that caption, as they are read."""
    (table,) = [part for part in re.findall(r"<table.*?</table>", page, re.DOTALL) if caption in read(part)]
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    return [[read(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def test_the_page_has_the_scores_that_training_clients_counted() -> None:
    found = with_scores(run([arm("adapted", (0.5,)), arm("meta", (0.4,))], seed=3))
    rows = rows_of(to_html(report(found)), "Training clients' own scores, summed securely, before → after adaptation")
    assert rows == [
        ["Round", "accuracy, %", "ECE"],
        ["2", "50.0 → 75.0", "0.250 → 0.125"],
        ["4", "– → 80.0", "– → –"],
    ]


def test_the_page_says_the_noise_on_scores_and_what_is_not_reported() -> None:
    page = to_html(report(with_noisy_scores(run([arm("adapted", (0.5,)), arm("meta", (0.4,))], seed=3))))
    rows = rows_of(page, "Training clients' own scores, summed securely, before → after adaptation")
    assert rows == [
        ["Round", "accuracy, %", "Not reported"],
        ["2", "50.0 ± 3.1 → 75.0 ± 3.1", "1 class, 3 bins → 2 classes, 3 bins, 1 score"],
        ["4", "– → –", "7 scores"],
    ]
    assert "These scores carry noise" in read(page)
    assert "too few examples" in read(page)
    exact = read(to_html(report(with_scores(run([arm("adapted", (0.5,)), arm("meta", (0.4,))], seed=3)))))
    assert "These scores carry noise" not in exact
    assert "Not reported" not in exact


def test_the_page_has_no_scores_where_none_were_counted() -> None:
    assert "Training clients" not in page_of_two_seeds()


def test_adapting_without_privacy_is_drawn_hollow_and_said() -> None:
    arms = [arm("adapted", (0.6,), shots=5), arm("adapted", (0.7,), private=True)]
    hollow = "fill: #ffffff; stroke: #0072b2"
    private, plain = to_html(report(run(arms, spent=7.0))), to_html(report(run(arms)))
    assert hollow in private
    assert "At epsilon 8: no DP in adapting to 5. Hollow: no DP." in private
    assert hollow not in plain
    assert "no DP in adapting" not in plain


def test_same_report_same_bytes_whatever_the_persons_matplotlib_settings(tmp_path: Path) -> None:
    import matplotlib as mpl

    write_html(two_seeds(), tmp_path / "one.html")
    with mpl.rc_context({"font.size": 30.0, "axes.facecolor": "black", "svg.fonttype": "path"}):
        write_html(two_seeds(), tmp_path / "two.html")
        assert mpl.rcParams["font.size"] == 30.0
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    write_html(report(run([arm("adapted", (0.5,))])), tmp_path / "three.html")
    assert (tmp_path / "one.html").read_bytes() != (tmp_path / "three.html").read_bytes()


def test_settings_with_other_metrics_get_figures_of_their_own() -> None:
    rmse = run([arm("adapted", (0.3, 0.4), metric="rmse"), arm("meta", (0.5, 0.2), metric="rmse")], metric="rmse")
    page = to_html(report(*two_seeds().runs, rmse))
    assert page.count("<svg ") == 4 + 3  # the second has no few-shot curve
    assert len(outline(page).ids) == len(set(outline(page).ids))
