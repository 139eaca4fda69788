"""A whole run with noise for whole clients: masked and not, with comparisons, and its report."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from testudo_common.plan.load import parse_plan
from testudo_server.store import RunStore
from testudo_simulations.results import RunResult
from testudo_simulations.run import Backend, RunRequest
from testudo_simulations.run import run as run_plan
from testudo_simulations.scenarios import find_plan

SINE = [
    "data.clients=12",
    "data.unseen_clients=2",
    "rounds.count=4",
    "rounds.cohort_size=6",
    "model.hidden=[8]",
    "secure_aggregation.group_size=6",
    "evaluation.shots=[0, 5]",
    "client_privacy.epsilon=40",
    'client_privacy.clipping="adaptive"',
]


def run(out: Path, backend: Backend, *more: str, comparisons: bool = False) -> RunResult:
    tables, source = find_plan("sine")
    plan = parse_plan(tables, source=source, settings=[*SINE, *more])
    return run_plan(RunRequest(plan, None, out, backend=backend, comparisons=comparisons))


@pytest.mark.parametrize("backend", ["inline", "mask-free"])
def test_run_and_its_account(tmp_path: Path, backend: Backend) -> None:
    folder = tmp_path / "0"
    result = run(folder, backend)
    account = result.privacy.client
    assert account is not None
    assert (account.sums, account.target_epsilon, account.accountant) == (2, 40.0, "rdp")
    assert 39 < account.epsilon <= 40
    assert result.secure.groups_opened == 4
    clips = [record.clip for record in result.rounds]
    assert clips == [record.clip for record in RunStore(folder).records()]
    # Six clients' noise keeps the clip at its bound for all four rounds once in ten or twenty runs.
    again = (run(tmp_path / str(number), backend) for number in range(1, 6))
    assert any(len({record.clip for record in one.rounds}) > 1 for one in chain([result], again))


def test_comparison_by_fedavg_has_the_noise_too(tmp_path: Path) -> None:
    """Else it would be compared at another privacy."""
    fixed, norm = 'client_privacy.clipping="fixed"', "outer.max_update_norm=5.0"
    quiet = run(tmp_path / "quiet", "mask-free", "client_privacy.epsilon=none", fixed, norm, comparisons=True)
    noisy = run(tmp_path / "noisy", "mask-free", "client_privacy.epsilon=0.1", fixed, norm, comparisons=True)

    def rmse(result: RunResult) -> float:
        found = next(each for each in result.arms if each.name == "fedavg_finetuned")
        return float(np.mean([score.metrics["rmse"] for score in found.scores]))

    assert rmse(noisy) > 3 * rmse(quiet)
