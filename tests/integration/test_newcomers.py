"""From a run whose newcomers calibrate to a published meta-model: masks, noise, and a log that names the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from testudo_client.home import OwnerHome
from testudo_client.personal.logged import Logged, logged_in
from testudo_common.errors import UsageError
from testudo_common.learning.calibration import CalibrationPrior
from testudo_common.plan.load import dump_plan, parse_plan
from testudo_common.publication import read_published, write_published
from testudo_server.cli import app
from testudo_server.publish_command import published_in
from testudo_server.store import RunStore
from testudo_simulations.federations import load_federation
from testudo_simulations.inline_backend import federate_in_process

PLAN: dict[str, Any] = {
    "name": "hands",
    "data": {"federation": "digits", "clients": 12, "unseen_clients": 1, "examples": 40, "side": 8},
    "task": {"kind": "classification"},
    "model": {"name": "linear"},
    "inner": {"steps": 3, "learning_rate": 0.3, "sample_rate": 0.5},
    "rounds": {"count": 3, "cohort_size": 4},
    "secure_aggregation": {"group_size": 4, "min_group": 3, "min_cohort": 3},
    "evaluation": {"shots": [1, 2], "steps": 5},
    "calibration": {"held_back": 0.3},
}
PRIVATE = ("privacy.unit=example", "privacy.noise_multiplier=1.0", "evaluation.federated_noise_multiplier=0.2")


def run_in(folder: Path, *settings: str, masks: bool = True) -> Path:
    federation = load_federation(parse_plan(PLAN, source="test", settings=settings), None)
    out = folder / "run"
    federate_in_process(federation, RunStore(out, durable=False), out / "clients", masks=masks)
    (out / "plan.toml").write_text(dump_plan(federation.plan), encoding="utf-8")
    return out


def test_strangers_calibrate_in_the_last_round_and_the_model_is_published_with_it(tmp_path: Path) -> None:
    out = run_in(tmp_path)
    records = RunStore(out).records()
    earlier = {client for record in records[:-1] for client in record.cohort}
    assert not earlier & set(records[-1].cohort) and len(records[-1].cohort) == 4
    priors = [CalibrationPrior.model_validate(one) for one in records[-1].calibration]
    assert [(prior.shots, prior.owners) for prior in priors] == [(1, 4), (2, 4)]
    assert all(not record.calibration for record in records[:-1])

    file, log = tmp_path / "meta.safetensors", tmp_path / "log.tlog"
    done = CliRunner().invoke(app, ["publish", str(out), "--to", str(file), "--for", "the hands"])
    assert done.exit_code == 0, done.exception
    published = read_published(file)
    assert published.digest in file.with_suffix(".model-card.md").read_text(encoding="utf-8")
    assert published.priors == tuple(priors) and published.digest == records[-1].model_digest
    again = CliRunner().invoke(app, ["publish", str(out), "--to", str(file)])
    assert again.exit_code == 1 and "already" in str(again.exception)

    exported = CliRunner().invoke(app, ["audit", "export", str(out), "--to", str(log)])
    assert exported.exit_code == 0, exported.exception
    home, key = OwnerHome(tmp_path / "newcomer"), out / "keys" / "federation.pub"
    assert logged_in(home, published) is Logged.NO_MIRROR
    assert logged_in(home, published, log, key) is Logged.NAMED
    other = tmp_path / "other.safetensors"
    write_published(other, replace(published, model=published.model + 1))
    with pytest.raises(UsageError, match="another model"):
        logged_in(home, read_published(other), log, key)


def test_noise_on_the_counts_is_charged_and_read(tmp_path: Path) -> None:
    out = run_in(tmp_path, *PRIVATE, "audit.mode=off", masks=False)
    (prior,) = (CalibrationPrior.model_validate(one) for one in RunStore(out).records()[-1].calibration)
    assert prior.shots is None and prior.owners == 4


def test_an_unfinished_run_is_not_published_by_accident(tmp_path: Path) -> None:
    out = run_in(tmp_path, "audit.mode=off")
    plan_file = out / "plan.toml"
    assert CliRunner().invoke(app, ["publish", str(tmp_path), "--to", "x"]).exit_code == 1
    assert plan_file.is_file()
    store = RunStore(out)
    state = store.load(published_in(out).plan.digest)
    store.save(replace(state, round=2), None)
    refused = CliRunner().invoke(app, ["publish", str(out), "--to", str(tmp_path / "m")])
    assert refused.exit_code == 1 and "2 of 3 rounds" in str(refused.exception)
    assert not (tmp_path / "m").exists()
    assert CliRunner().invoke(app, ["publish", str(out), "--to", str(tmp_path / "m"), "--unfinished"]).exit_code == 0
