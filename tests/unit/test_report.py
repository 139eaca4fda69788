"""What the report says: means and spreads against numbers done by hand, and honest words."""

from __future__ import annotations

import math

import pytest
from report_factory import (
    arm,
    report,
    run,
    terminal,
    two_seeds,
    words,
)

from testudo_common.reporting.shown import epsilon, size
from testudo_simulations.report.comparisons import before_after, best_baseline, compare
from testudo_simulations.report.headlines import headline
from testudo_simulations.report.summaries import rows_by_shots, summarise, without_privacy
from testudo_simulations.report.wording import open_adaptation, place, secure_line
from testudo_simulations.results import Report, SecureSummary


def test_means_and_spreads_are_over_seeds_and_percentiles_over_pooled_clients() -> None:
    (setting,) = summarise(two_seeds())
    adapted = setting.find("adapted", None)
    assert adapted is not None
    # runs: (0.70 + 0.80) / 2 = 0.75 and 0.77; their mean 0.76, their standard deviation 0.02 / sqrt(2)
    assert adapted.score.mean == pytest.approx(0.76)
    assert adapted.score.std == pytest.approx(0.02 / math.sqrt(2))
    assert adapted.score.runs == 2
    # pooled and sorted: 0.70, 0.72, 0.80, 0.82; position of p10 is 0.3, of p50 1.5, of p90 2.7
    assert adapted.percentiles == pytest.approx((0.706, 0.76, 0.814))
    assert adapted.clients == 4
    assert adapted.share_hurt == pytest.approx(0.5)


def test_one_seed_has_no_spread() -> None:
    (setting,) = summarise(report(run([arm("adapted", (0.5, 0.7))])))
    assert setting.arms[0].score.mean == pytest.approx(0.6)
    assert setting.arms[0].score.std is None
    assert "±" not in terminal(report(run([arm("adapted", (0.5, 0.7))])))


def test_settings_keep_the_order_of_their_first_appearance_and_are_not_mixed() -> None:
    found = summarise(
        report(
            *(
                run([arm("adapted", (value,))], setting=setting)
                for setting, value in (("b", 0.1), ("a", 0.2), ("b", 0.3))
            )
        )
    )
    assert [(setting.setting, setting.arms[0].score.mean) for setting in found] == [
        ("b", pytest.approx(0.2)),
        ("a", pytest.approx(0.2)),
    ]
    assert [setting.arms[0].score.runs for setting in found] == [2, 1]


def test_costs_add_up_memory_does_not_and_the_largest_epsilon_counts() -> None:
    arms = [arm("adapted", (0.5,))]
    (setting,) = summarise(report(run(arms, spent=7.0), run(arms, seed=1, spent=7.5), run(arms, seed=2, spent=6.0)))
    assert (setting.cost.cpu_seconds, setting.cost.bytes_down) == (30.0, 6_000_000)
    assert setting.cost.peak_memory_bytes == 500_000_000
    assert setting.privacy.epsilon == 7.5
    assert [(one.client, one.times) for one in setting.refused] == [("c7", 3)]


def test_a_client_that_diverged_is_not_averaged_away() -> None:
    arms = [arm("adapted", (0.5, math.nan)), arm("scratch", (0.1, 0.1))]
    (setting,) = summarise(report(run(arms)))
    assert math.isnan(setting.arms[0].score.mean)
    assert compare(*setting.arms, higher_is_better=True).verdict == "worse"
    assert "diverged" in headline(setting).findings[0].text
    assert "nan" not in words(terminal(report(run(arms)))).split()


def test_infinity_in_one_of_two_runs_is_not_averaged_away() -> None:
    (setting,) = summarise(report(run([arm("adapted", (0.5,))]), run([arm("adapted", (math.inf,))], seed=1)))
    assert math.isnan(setting.arms[0].score.mean)
    assert setting.arms[0].score.std is None


def test_an_arm_that_is_private_at_one_support_size_only_keeps_one_row() -> None:
    arms = [arm("meta", (0.5,), shots=0), arm("adapted", (0.6,), shots=5), arm("adapted", (0.7,), private=True)]
    (setting,) = summarise(report(run(arms, spent=7.0)))
    rows = rows_by_shots(setting)
    assert [[None if one is None else one.score.mean for one in row] for row in rows] == [
        [0.5, None, None],
        [None, 0.6, 0.7],
    ]
    assert without_privacy(setting) == (5,)
    assert open_adaptation([setting]) == "At epsilon 8: no DP in adapting to 5."
    assert open_adaptation(summarise(report(run(arms)))) == ""


def test_two_arms_of_one_name_at_one_size_are_two_rows() -> None:
    arms = [arm("adapted", (0.6,)), arm("adapted", (0.7,), private=True), arm("adapted", (0.4,), shots=5)]
    (setting,) = summarise(report(run(arms, spent=7.0)))
    assert [[one and one.score.mean for one in row] for row in rows_by_shots(setting)] == [[0.4, 0.6], [None, 0.7]]


@pytest.mark.parametrize(("metric", "hurt"), [("accuracy", [True, False, False]), ("rmse", [False, False, True])])
def test_hurt_clients_follow_the_direction_of_the_metric(metric: str, hurt: list[bool]) -> None:
    arms = [arm("meta", (0.5, 0.6, 0.6), metric=metric), arm("adapted", (0.4, 0.6, 0.7), metric=metric)]
    (setting,) = summarise(report(run(arms, metric=metric)))
    assert [pair.hurt for pair in before_after(setting)] == hurt


def test_of_two_arms_of_one_name_the_headline_takes_the_private_one_where_the_setting_is_private() -> None:
    arms = [
        arm("adapted", (0.9,)),
        arm("adapted", (0.6,), private=True),
        arm("scratch", (0.5,), private=True),
    ]
    (private,) = summarise(report(run(arms, spent=7.0)))
    (plain,) = summarise(report(run(arms)))
    assert "60.0 %" in headline(private).findings[0].text
    assert "90.0 %" in headline(plain).findings[0].text


# --- sentences ---


def test_headline_when_the_meta_model_wins() -> None:
    (setting,) = summarise(two_seeds())
    main, baseline = headline(setting).findings[:2]
    assert main.text == (
        "At epsilon 8, the adapted meta-model reaches 76.0 % accuracy on clients it never saw; "
        "trained from scratch 56.0 %: +20.0 points."
    )
    assert main.verdict == "better"
    assert baseline.text == (
        "The best baseline without federation (local ridge; not private) has 61.0 %: "
        "the meta-model wins by 15.0 points."
    )


def test_headline_says_that_the_loser_lost() -> None:
    arms = [
        arm("adapted", (0.60,)),
        arm("meta", (0.65,)),
        arm("scratch", (0.62,)),
        arm("local_knn", (0.90,)),
        arm("local_ridge", (0.7,)),
        arm("fedavg_finetuned", (0.61,)),
    ]
    (setting,) = summarise(report(run(arms)))
    found = headline(setting).findings
    assert [one.verdict for one in found] == ["worse"] * 4
    assert [one.text for one in found] == [
        "Without differential privacy, the adapted meta-model reaches 60.0 % accuracy on clients it never "
        "saw; trained from scratch 62.0 %, which is better: −2.0 points for the meta-model.",
        "The best baseline without federation (local knn) has 90.0 %: it wins by 30.0 points.",
        "The best other federated way (fedavg finetuned) has 61.0 %: it wins by 1.0 points.",
        "Adapting made it worse: without a step the meta-model has 65.0 %.",
    ]


def test_lower_rmse_wins() -> None:
    def errors(ours: float) -> Report:
        values = {"adapted": ours, "scratch": 0.381, "local_ridge": 0.316, "mean": 0.5}
        return report(run([arm(n, (v,), metric="rmse") for n, v in values.items()], metric="rmse"))

    (winner,), (loser,) = summarise(errors(0.305)), summarise(errors(0.402))
    assert "reaches RMSE 0.305 on clients it never saw; trained from scratch 0.381: −0.076 (lower is better)." in (
        headline(winner).findings[0].text
    )
    assert headline(winner).findings[0].verdict == "better"
    assert "0.381, which is better: +0.021 (lower is better) for the meta-model." in headline(loser).findings[0].text
    assert headline(loser).findings[0].verdict == "worse"
    best = best_baseline(winner)
    assert best is not None and best.name == "local_ridge"


def test_a_difference_within_its_spread_is_too_close_to_call() -> None:
    runs = [run([arm("adapted", (ours,)), arm("scratch", (0.70,))], seed=i) for i, ours in enumerate((0.69, 0.72))]
    (setting,) = summarise(report(*runs))
    # gains -0.01 and 0.02: mean 0.005, standard deviation 0.021
    assert headline(setting).findings[0].text.endswith("trained from scratch 70.0 %: +0.5 points, too close to call.")


def test_scratch_is_not_its_own_rival() -> None:
    arms = [arm("adapted", (0.6,)), arm("scratch", (0.9,)), arm("local_ridge", (0.5,))]
    (setting,) = summarise(report(run(arms)))
    best = best_baseline(setting)
    assert best is not None and best.name == "local_ridge"


def test_adapting_without_privacy_in_a_private_setting_is_said() -> None:
    arms = [arm("adapted", (0.6,), shots=5), arm("scratch", (0.5,), shots=5)]
    (setting,) = summarise(report(run(arms, spent=7.0)))
    assert headline(setting).findings[0].text == (
        "At epsilon 8, the adapted meta-model (adapted without privacy) reaches 60.0 % accuracy on clients it never "
        "saw; trained from scratch (not private) 50.0 %: +10.0 points."
    )


def test_without_an_adapted_arm_nothing_is_claimed() -> None:
    (setting,) = summarise(report(run([arm("scratch", (0.9,))])))
    (only,) = headline(setting).findings
    assert only.verdict is None
    assert "no adapted meta-model was measured" in only.text


def test_places() -> None:
    arms = [arm("adapted", (0.5,))]
    named = ["epsilon = none", "epsilon = none, rounds.count = 5", "inner.steps = 5"]
    runs = [run(arms, setting=setting) for setting in named]
    runs += [run(arms), run(arms, setting="epsilon = 8, rounds.count = 5", spent=7.0)]
    assert [place(setting) for setting in summarise(report(*runs))] == [
        "Without differential privacy",
        "Without differential privacy, rounds.count = 5",
        "With inner.steps = 5",
        "Without differential privacy",
        "At epsilon 8, rounds.count = 5",
    ]
    assert [place(setting) for setting in summarise(report(run(arms, spent=7.0)))] == ["At epsilon 8"]


def secure(mode: str = "secure", **changed: object) -> SecureSummary:
    """A summary of one run; the cost that goes with it is COST."""
    fields = {
        "mode": mode,
        "groups_opened": 12,
        "groups_lost": 0,
        "smallest_sum": 8,
        "attempts": 6,
        "barred": [],
        "client_cpu_seconds": 0.00412,
        "server_cpu_seconds": 0.00998,
        "plain_bytes_up": 800_000,
        "plain_bytes_down": 1_600_000,
    }
    return SecureSummary.model_validate({**fields, **changed})


COST = run([arm("adapted", (0.5,))]).cost  # 1 MB up, 2 MB down
COSTS = "4.12 ms CPU a client and round; 9.98 ms a round at the server; 1.25 times the plain bytes up, 1.25 times down"

SECURE_LINES = {
    "plain": (
        secure("plain", groups_opened=0, smallest_sum=1, client_cpu_seconds=None, server_cpu_seconds=None),
        "none; the server saw every client's update",
    ),
    "secure": (secure(), f"12 groups opened; at least 8 clients in a sum; {COSTS}"),
    "one group": (secure(groups_opened=1), f"1 group opened; at least 8 clients in a sum; {COSTS}"),
    "lost": (secure(groups_lost=2), f"12 groups opened, 2 lost; at least 8 clients in a sum; {COSTS}"),
    "barred": (
        secure(barred=["c1", "c7"]),
        f"12 groups opened; at least 8 clients in a sum; barred after strikes: c1, c7; {COSTS}",
    ),
    "barred by a hostile name": (
        secure(barred=["c1\x1b[2J"]),
        f"12 groups opened; at least 8 clients in a sum; barred after strikes: c1\ufffd[2J; {COSTS}",
    ),
    "not measured": (
        secure(client_cpu_seconds=None, server_cpu_seconds=None, plain_bytes_up=0),
        "12 groups opened; at least 8 clients in a sum",
    ),
    "mask-free": (
        secure("mask-free", client_cpu_seconds=None),
        "simulated without masks: the same sums, no secrecy, and not their cost; "
        "12 groups opened; at least 8 clients in a sum",
    ),
    "mask-free and barred": (
        secure("mask-free", client_cpu_seconds=None, groups_lost=1, barred=["c1"]),
        "simulated without masks: the same sums, no secrecy, and not their cost; "
        "12 groups opened, 1 lost; at least 8 clients in a sum; barred after strikes: c1",
    ),
}


@pytest.mark.parametrize(("summary", "line"), SECURE_LINES.values(), ids=SECURE_LINES.keys())
def test_secure_line(summary: SecureSummary, line: str) -> None:
    assert secure_line(summary, COST) == line


def test_secure_sums_of_several_runs_are_put_together() -> None:
    arms = [arm("adapted", (0.5,))]
    first, second, third = (run(arms, seed=seed) for seed in range(3))
    found = [
        secure(smallest_sum=9, barred=["b"], groups_lost=1, client_cpu_seconds=0.25, server_cpu_seconds=0.5),
        secure(smallest_sum=4, barred=["a", "b"], client_cpu_seconds=0.5, server_cpu_seconds=1.0),
        secure(client_cpu_seconds=None, server_cpu_seconds=1.5),
    ]
    runs = [
        one.model_copy(update={"secure": summary}) for one, summary in zip((first, second, third), found, strict=True)
    ]
    (setting,) = summarise(report(*runs))
    assert setting.secure == secure(
        groups_opened=36,
        groups_lost=1,
        smallest_sum=4,
        attempts=18,
        barred=["a", "b"],
        client_cpu_seconds=0.375,  # of the two that measured it
        server_cpu_seconds=1.0,
        plain_bytes_up=2_400_000,
        plain_bytes_down=4_800_000,
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (7.981, "7.99"),
        (7.98, "7.98"),
        (2.0, "2.00"),
        (1e-9, "0.01"),
        (None, "without bound"),
        (math.inf, "without bound"),
    ],
)
def test_epsilon_is_never_understated(value: float | None, shown: str) -> None:
    assert epsilon(value) == shown


def test_sizes() -> None:
    assert [size(n) for n in (0, 999, 1000, 999_600, 14_900_000)] == [
        "0 B",
        "999 B",
        "1 kB",
        "1 MB",
        "14.9 MB",
    ]
