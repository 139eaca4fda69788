"""What a matrix says, worked out by hand on made-up cells: what holds, where a defence breaks, table and heat map."""

from __future__ import annotations

import io
import math
from xml.etree import ElementTree

import pytest
from rich.console import Console

from matrix_cases import clean_cell, made_cell, made_matrix
from testudo_simulations.attacks.matrix import BACKDOOR_LIMIT, Matrix, breakdown_of, summary_of
from testudo_simulations.attacks.views import heat_map, in_words, legend, print_matrix

SVG = "{http://www.w3.org/2000/svg}"


def holds(matrix: Matrix, attack: str, defence: str = "caf", poisoned: int = 2) -> bool:
    found = summary_of(matrix, attack, defence, poisoned)
    assert found is not None
    return found.holds


# --- summaries


def test_summary_is_over_seeds() -> None:
    matrix = made_matrix(
        clean_cell(0.80),
        clean_cell(0.90, seed=1),
        made_cell("ipm", "caf", 0.70, error=0.2, named={"a": 4}),
        made_cell("ipm", "caf", 0.90, error=0.4, named={"a": 6, "b": 11}, seed=1),
    )
    found = summary_of(matrix, "ipm", "caf", 2)
    assert found is not None
    assert (found.score, found.spread, found.clean) == (pytest.approx(0.8), pytest.approx(0.1), pytest.approx(0.85))
    assert found.error == pytest.approx(0.3)
    assert found.backdoor is None
    assert not found.holds, "5 points under"
    assert (found.named, found.rounds_to_name) == (0.75, 6.0), "three of four; 4, 6 and 11"


def test_what_was_not_run_has_no_summary() -> None:
    matrix = made_matrix(clean_cell(0.8), made_cell("ipm", "caf", 0.8), made_cell("ipm", "mean+unshared_head", 0.8))
    assert summary_of(matrix, "alie", "caf", 2) is None
    assert summary_of(matrix, "ipm", "caf", 1) is None
    assert summary_of(matrix, "ipm", "median", 2) is None
    assert summary_of(matrix, "ipm", "mean+unshared_head", 2) is None, "its clean run is another one"


def test_defence_is_held_against_the_clean_run_of_its_own_head_and_tasks() -> None:
    matrix = made_matrix(
        clean_cell(0.70),
        clean_cell(0.90, "mean+unshared_head"),
        made_cell("ipm", "caf", 0.69),
        made_cell("ipm", "caf+unshared_head", 0.69),
    )
    assert holds(matrix, "ipm", "caf")
    assert not holds(matrix, "ipm", "caf+unshared_head")


@pytest.mark.parametrize(("score", "expected"), [(0.78, True), (0.7701, True), (0.7699, False), (math.nan, False)])
def test_accuracy_holds_down_to_three_points_under_the_clean_run(score: float, expected: bool) -> None:
    assert holds(made_matrix(clean_cell(0.80), made_cell("ipm", "caf", score)), "ipm") is expected


@pytest.mark.parametrize(("score", "expected"), [(1.0, True), (2.19, True), (2.21, False), (math.nan, False)])
def test_error_holds_up_to_a_tenth_over_the_clean_run(score: float, expected: bool) -> None:
    matrix = made_matrix(clean_cell(2.0), made_cell("ipm", "caf", score), higher_is_better=False)
    assert holds(matrix, "ipm") is expected


def test_rounds_that_ended_early_do_not_hold() -> None:
    matrix = made_matrix(clean_cell(0.8), made_cell("ipm", "caf", 0.8, ended="round 3 brought 2 usable updates"))
    assert not holds(matrix, "ipm")


@pytest.mark.parametrize(("success", "expected"), [(0.0, True), (0.199, True), (BACKDOOR_LIMIT, False), (1.0, False)])
def test_backdoor_is_stopped_under_a_fifth(success: float, expected: bool) -> None:
    matrix = made_matrix(clean_cell(0.8), made_cell("backdoor", "caf", 0.8, backdoor=success))
    assert holds(matrix, "backdoor") is expected


def test_backdoor_success_counts_against_backdoors_only() -> None:
    """With nobody poisoned the trigger is tried too: to have something to compare with."""
    matrix = made_matrix(
        clean_cell(0.8), made_cell("none", "caf", 0.8, backdoor=0.9), made_cell("backdoor_scaled", "caf", 0.8)
    )
    assert holds(matrix, "none")
    assert not holds(matrix, "backdoor_scaled"), "nobody knows whether it was stopped"


def test_backdoor_that_ruins_the_model_does_not_hold() -> None:
    matrix = made_matrix(clean_cell(0.8), made_cell("backdoor", "caf", 0.2, backdoor=0.0))
    assert not holds(matrix, "backdoor")


def test_breakdown_is_the_least_number_at_which_an_attack_that_is_no_backdoor_breaks_it() -> None:
    matrix = made_matrix(
        clean_cell(0.8),
        *(made_cell("ipm", "caf", score, poisoned=count) for count, score in ((4, 0.1), (1, 0.8), (3, 0.5), (2, 0.79))),
        *(made_cell("alie", "median", 0.8, poisoned=count) for count in (1, 2)),
        *(made_cell("backdoor", "median", 0.8, poisoned=count, backdoor=1.0) for count in (1, 2)),
        made_cell("none", "krum", 0.6, poisoned=2),
    )
    assert breakdown_of(matrix, "caf") == 3
    assert breakdown_of(matrix, "median") is None
    assert breakdown_of(matrix, "krum") == 2, "a rule that costs so much with no attack is broken as well"


# --- as people read it

SEEDS = made_matrix(
    clean_cell(0.80),
    clean_cell(0.84, seed=1),
    *(made_cell("none", "mean", score, seed=seed) for seed, score in enumerate((0.80, 0.84))),
    *(made_cell("ipm", "mean", score, seed=seed) for seed, score in enumerate((0.02, 0.06))),
    *(made_cell("backdoor", "mean", 0.8, seed=seed, backdoor=1.0) for seed in (0, 1)),
    *(made_cell("none", "caf+groups=3", 0.81, seed=seed) for seed in (0, 1)),
    *(made_cell("ipm", "caf+groups=3", math.nan, seed=seed) for seed in (0, 1)),
    *(
        made_cell("garble", "caf+groups=3", 0.81, seed=seed, named={"a": 12}, outvoted=["a"], unlike=["b"])
        for seed in (0, 1)
    ),
    *(made_cell("none", "mean", 0.82, poisoned=1, seed=seed) for seed in (0, 1)),
    *(made_cell("garble", "caf+groups=3", 0.81, poisoned=1, seed=seed, framed=["x"]) for seed in (0, 1)),
)


def words_of(matrix: Matrix, attack: str, defence: str, *, backdoor: bool = False) -> str:
    found = summary_of(matrix, attack, defence, 2)
    assert found is not None
    return in_words(matrix, found, backdoor=backdoor)


def test_words_of_a_cell() -> None:
    assert words_of(SEEDS, "ipm", "mean") == "4.0 ±2.0"
    assert words_of(SEEDS, "ipm", "caf+groups=3") == "lost"
    assert words_of(SEEDS, "backdoor", "mean", backdoor=True) == "80.0 ±0.0 / 100"
    once = made_matrix(clean_cell(1.0), made_cell("ipm", "caf", 0.12345), higher_is_better=False)
    assert words_of(once, "ipm", "caf") == "0.123", "one seed has no range, and an error is no percentage"


def test_table_has_each_defence_and_attack_and_marks_what_broke() -> None:
    buffer = io.StringIO()
    print_matrix(SEEDS, Console(file=buffer, width=220, no_color=True))
    text = buffer.getvalue()
    text = " ".join(text.split())
    assert "made-up: 2 of 10 clients poisoned; accuracy after adaptation, %" in text
    assert "made-up: 1 of 10 clients poisoned" in text
    for name in ("no", "attack", "ipm", "backdoor", "garble", "mean", "caf+groups=3"):
        assert name in text
    assert "4.0 ±2.0 !" in text
    assert "81.0 ±0.0 !" not in text
    named = "2 x garble against caf+groups=3: strikes named 50 % of the poisoned, in the median before round 12"
    assert f"{named}; listed as outvoted: 50 % of the poisoned, 12 % of the honest." in text
    assert "Honest clients named by strikes: 2." in text


def test_legend_says_seeds_and_where_each_defence_breaks() -> None:
    text = legend(SEEDS)
    assert "Seeds 0, 1: mean, ± half of the range" in text
    assert "at most 3 points under" in text
    assert "(82.0 with the first defence's head and tasks)" in text
    assert "mean: 2; caf+groups=3: 2" in text
    assert "! from 20." in text
    regression = made_matrix(clean_cell(2.0), made_cell("ipm", "caf", 1.0), higher_is_better=False)
    assert "at most a tenth over" in legend(regression)
    assert "caf: none of these" in legend(regression)


@pytest.mark.parametrize("higher_is_better", [True, False], ids=["accuracy", "error"])
def test_heat_map_is_an_image_with_every_defence_and_attack(higher_is_better: bool) -> None:
    matrix = SEEDS.model_copy(update={"higher_is_better": higher_is_better, "name": "a < b & c"})
    drawn = heat_map(matrix)
    root = ElementTree.fromstring(drawn)
    assert root.tag == f"{SVG}svg"
    written = "".join(text for text in root.itertext() if text)
    for name in ("no", "attack", "ipm", "backdoor", "garble", "mean", "caf+groups=3", "lost", "2 of 10", "a < b & c"):
        assert name in written, name
    assert heat_map(matrix) == drawn, "the same bytes each time"


def test_heat_map_of_a_single_cell_is_drawn() -> None:
    ElementTree.fromstring(heat_map(made_matrix(clean_cell(0.8), made_cell("ipm", "caf", 0.1))))
