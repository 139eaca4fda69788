"""A run with secure aggregation ends where one without it does, but for rounding; its report says which it was."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import SMALL_SINE, rounding_of, settings

from secure_federation import layout_of, off_by
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.events import SampledGaussian
from testudo_common.vectors import Vector
from testudo_server.store import RunStore
from testudo_simulations.federations import load_federation
from testudo_simulations.inline_backend import federate_in_process
from testudo_simulations.scenarios import find_plan

Command = Callable[..., subprocess.CompletedProcess[str]]

COHORT = 8
SINE = [
    "data.clients=12",
    "data.unseen_clients=2",
    "rounds.count=6",
    f"rounds.cohort_size={COHORT}",
    "model.hidden=[8]",
    "secure_aggregation.group_size=4",
]
PLAIN = 'secure_aggregation.mode="plain"'


def run(folder: Path, *more: str, masks: bool = True) -> tuple[FederationPlan, list[Vector]]:
    """The plan, complete, and the model after each round."""
    tables, source = find_plan("sine")
    federation = load_federation(parse_plan(tables, source=source, settings=[*SINE, *more]), None)
    models: list[Vector] = []
    store = RunStore(folder, durable=False)
    federate_in_process(federation, store, None, masks=masks, on_round=lambda state, record: models.append(state.model))
    assert all(record.excluded == () for record in store.records())
    return federation.plan, models


VARIANTS = {
    "as it comes": [],
    "sixteen bits": ["secure_aggregation.value_bits=16"],
    "clipped": ["outer.max_update_norm=0.5"],
    "all of the private path": ['privacy.unit="example"', "privacy.noise_multiplier=0.0"],
    "one group": ["secure_aggregation.group_size=8"],
}


@pytest.mark.parametrize("masks", [True, False], ids=["masked", "mask-free"])
@pytest.mark.parametrize("more", VARIANTS.values(), ids=VARIANTS)
def test_run_ends_where_the_plain_one_does(tmp_path: Path, more: list[str], masks: bool) -> None:
    """Measured over these: after one round up to 0.5 of a step, after six up to 0.8."""
    plain = [setting for setting in more if not setting.startswith("secure_aggregation")]
    _, expected = run(tmp_path / "plain", PLAIN, *plain)
    plan, found = run(tmp_path / "secure", *more, masks=masks)
    layout = layout_of(plan)
    apart = [np.abs(one.astype(np.float64) - other) for one, other in zip(found, expected, strict=True)]
    own = float(np.abs(expected[-1]).max()) * 2**-23  # float32's, of the model itself
    assert apart[0].max() <= off_by(layout) + own, "of one mean, and the first outer step is a whole one"
    # to round up or down at random has a standard deviation of half a step at the most; a mean of n that by sqrt(n)
    assert np.sqrt((apart[0] ** 2).mean()) <= 1.5 * 0.5 / np.sqrt(COHORT) / layout.scale + own
    assert apart[-1].max() <= rounding_of(plan) + own * plan.rounds.count
    assert apart[-1].max() > 0, "it was rounded at all"
    assert np.abs(expected[-1] - expected[0]).max() > 4 * rounding_of(plan), "or anything would do"


def test_two_runs_round_differently_and_end_together(tmp_path: Path) -> None:
    (plan, one), (_, other) = (run(tmp_path / name) for name in ("one", "other"))
    apart = np.abs(one[-1].astype(np.float64) - other[-1])
    assert 0 < apart.max() <= 2 * rounding_of(plan)


# --- the command's report


def reported(
    command: Command, backend: str, *lines: str, scenario: str = "sine", small: list[str] = SMALL_SINE
) -> dict[str, Any]:
    arguments = ["run", scenario, "--out", "out", "--no-comparisons", "--json", "--backend", backend]
    done = command("simulations", *arguments, *settings([*small, *lines]))
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["runs"]
    return dict(result)


@pytest.mark.slow
def test_report_of_a_secure_run(command: Command) -> None:
    result = reported(command, "inline", "evaluation.federated_every_rounds=2")
    secure, cost = result["secure"], result["cost"]
    assert result["plan"]["secure_aggregation"]["mode"] == secure["mode"] == "secure", "it is the default"
    assert (secure["groups_opened"], secure["groups_lost"], secure["attempts"]) == (6, 0, 6)
    assert (secure["smallest_sum"], secure["barred"]) == (4, [])
    assert 0 < secure["client_cpu_seconds"] < 1
    assert 0 < secure["server_cpu_seconds"] < 1
    assert secure["plain_bytes_up"] == secure["plain_bytes_down"] == 6 * 4 * 4 * result["parameters"]
    assert cost["bytes_up"] > secure["plain_bytes_up"]
    assert cost["bytes_down"] > secure["plain_bytes_down"]
    for record in result["rounds"]:
        assert record["excluded"] == []
        assert set(record["metrics"]) == (set() if record["round"] % 2 else {"before", "after"})
    last = result["rounds"][-1]["metrics"]
    assert 0 < last["after"]["rmse"] < last["before"]["rmse"], "adapting to half of one's points helps"


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "mode"), [("mask-free", "mask-free"), ("inline", "plain")])
def test_report_says_when_sums_were_not_masked(command: Command, backend: str, mode: str) -> None:
    result = reported(command, backend, *([PLAIN] if mode == "plain" else []))
    secure = result["secure"]
    assert (secure["mode"], secure["attempts"], secure["barred"]) == (mode, 6, [])
    assert secure["client_cpu_seconds"] is None
    assert (secure["groups_opened"], secure["smallest_sum"]) == ((6, 4) if mode == "mask-free" else (0, 1))
    assert secure["plain_bytes_up"] == 6 * 4 * 4 * result["parameters"]
    assert (secure["server_cpu_seconds"] is None) is (mode == "plain")


@pytest.mark.slow
def test_report_of_a_private_run_whose_clients_score_the_model(command: Command) -> None:
    lines = [
        "data.clients=14",
        "data.unseen_clients=2",
        "rounds.count=2",
        "rounds.cohort_size=8",
        "secure_aggregation.group_size=4",
        "privacy.epsilon=8",
        "evaluation.federated_every_rounds=1",
        "evaluation.federated_noise_multiplier=3",
        "evaluation.min_cell=5",
        "evaluation.steps=2",
        "evaluation.scratch_steps=2",
        "privacy.accountant=rdp",
    ]
    result = reported(command, "inline", *lines, scenario="digits", small=[])
    account = result["privacy"]
    training = SampledGaussian(account["noise_multiplier"], account["sample_rate"], account["steps_per_client"])
    assert epsilon_of([training], account["delta"], account["accountant"]) < 0.95 * account["epsilon"]
    assert 0.98 * 8 < account["epsilon"] <= 8, "training and scores together"
    for record in result["rounds"]:
        for when in ("before", "after"):
            noise, metrics = record["metric_noise"].get(when, {}), record["metrics"].get(when, {})
            assert set(noise) == ({*metrics, "examples"} if metrics else set())
            assert metrics or record["withheld"][when] == {"metrics": 7}
            assert record["withheld"][when], "not all of 15 bins can be seen through such noise"
