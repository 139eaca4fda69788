"""A published meta-model on all unseen clients: asked at once as by itself, rows beside their cells; the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from helpers import FEW_SHOT, make_examples, make_plan
from own_models import CLINIC, SHOP, clinic_table, shop_table, write_csv
from testudo_client.judging.few_shot import adapted, answered
from testudo_client.judging.judge import Request
from testudo_client.judging.results import Evaluation
from testudo_client.personal.own_model import Classes, Intervals
from testudo_client.table import Table
from testudo_common.errors import ModelError, TestudoError
from testudo_common.learning.calibration import CLASS_EDGES, ERROR_EDGES, CalibrationPrior
from testudo_common.learning.learner import initial_vector
from testudo_common.plan.load import parse_plan
from testudo_common.publication import PublishedModel, write_published
from testudo_simulations.adaptation import OneByOne, adapter_of
from testudo_simulations.cli import app
from testudo_simulations.engine import Engine
from testudo_simulations.federations import Federation, UnseenClient, load_federation
from testudo_simulations.judging.asked import AskedClients, clients_pairs
from testudo_simulations.judging.cells import query_cells
from testudo_simulations.judging.judge import judge_federation


def federation_of(tables: dict[str, Any], path: Path, *settings: str) -> Federation:
    """Of eight clients in one file."""
    make = clinic_table if "clinic" in tables["data"]["client"] else shop_table
    parts = [make(24, seed) for seed in range(8)]
    rows = tuple((f"c{number}", *row[1:]) for number, part in enumerate(parts) for row in part.rows)
    write_csv(path, Table("all.csv", parts[0].columns, tuple(range(len(rows))), rows))
    changed = ("audit.mode=off", "evaluation.shots=[0, 2, 4]", "evaluation.steps=4", "data.unseen_share=0.5", *settings)
    return load_federation(parse_plan(tables, source="a test", settings=changed), path)


def published_of(federation: Federation) -> PublishedModel:
    """The initial model, with a prior."""
    edges = ERROR_EDGES if federation.plan.task.kind == "regression" else CLASS_EDGES
    shares = (1 / (len(edges) - 1),) * (len(edges) - 1)
    return PublishedModel(
        federation.plan, 1, initial_vector(federation.plan), (CalibrationPrior(shots=4, owners=9, shares=shares),)
    )


@pytest.mark.parametrize("tables", [CLINIC, SHOP])
@pytest.mark.parametrize("at_once", [False, True])
def test_every_client_is_asked_as_it_would_ask_itself(tables: dict[str, Any], at_once: bool, tmp_path: Path) -> None:
    federation = federation_of(
        tables, tmp_path / "all.csv", "data.target_transform=none" if tables is SHOP else "seed=0"
    )
    published, pairs = published_of(federation), clients_pairs(federation)[4]
    asked = AskedClients(adapter_of(federation.plan, Engine(federation.plan) if at_once else None), pairs, 4)
    (outcome,) = asked.adapted(published)
    for place, ((support, query),) in enumerate(pairs.values()):
        alone = answered(adapted(published, support, 4), query, place)
        together = outcome.answered.take(np.flatnonzero(outcome.answered.clients == place))
        np.testing.assert_allclose(together.targets, alone.targets, rtol=1e-6)
        if isinstance(alone.answers, Classes):
            assert isinstance(together.answers, Classes)
            np.testing.assert_allclose(together.answers.probabilities, alone.answers.probabilities, atol=1e-5)
            assert (together.answers.sets == alone.answers.sets).mean() > 0.95
        else:
            assert isinstance(together.answers, Intervals)
            for name in ("values", "low", "high"):
                np.testing.assert_allclose(getattr(together.answers, name), getattr(alone.answers, name), rtol=1e-4)


@pytest.mark.parametrize("tables", [CLINIC, SHOP])
def test_cells_are_those_of_the_rows_scored(tables: dict[str, Any], tmp_path: Path) -> None:
    federation = federation_of(tables, tmp_path / "all.csv")
    data = federation.plan.data
    cells = query_cells(federation, tmp_path / "all.csv", [data.client, data.target])  # type: ignore[union-attr]
    pairs = clients_pairs(federation)[4]
    queries = [query for ((_, query),) in pairs.values()]
    assert cells["clinic" if tables is CLINIC else "shop"] == [
        name for name, ((_, query),) in pairs.items() for _ in range(len(query))
    ]
    if tables is CLINIC:
        assert cells["ill"] == [("no", "yes")[target] for query in queries for target in query.targets]
    else:
        scaled = np.concatenate([query.targets for query in queries]) * 0.5 + 5.0
        np.testing.assert_allclose(np.log([float(cell) for cell in cells["sold"]]), scaled, rtol=1e-5)


def test_episodes_are_judged_and_a_client_whose_training_diverges_is_told() -> None:
    plan = make_plan("evaluation.shots=[0, 2]", "evaluation.episodes=3", "evaluation.queries=2", tables=FEW_SHOT)
    pools = {f"c{number}": UnseenClient(make_examples(40, seed=number)) for number in range(3)}
    federation = Federation(plan, {}, pools)
    published = PublishedModel(plan, 1, initial_vector(plan))
    told = judge_federation(
        published, federation, Request("now", "here", shifts=True), cells={}, engine=None, progress=lambda *_: None
    )
    assert [(one.arm, one.shots, one.rows, one.clients) for one in told.tables] == [
        ("before", 0, 36, 3),
        ("adapted", 2, 36, 3),
    ]
    assert told.tables[1].hurt is not None and len(told.tables[1].percentiles) == 3
    huge = make_examples(40, seed=7)
    pools["c1"] = UnseenClient(type(huge)(huge.inputs * np.float32(1e30), huge.targets))
    (outcome,) = AskedClients(OneByOne(plan), clients_pairs(Federation(plan, {}, pools))[2], 2).adapted(published)
    assert outcome.diverged == (1,) and set(outcome.answered.clients) == {0, 2}


def test_where_every_training_diverges_there_is_nothing_to_judge(tmp_path: Path) -> None:
    federation = federation_of(SHOP, tmp_path / "all.csv", "evaluation.learning_rate=1e20", "evaluation.steps=40")
    with pytest.raises(ModelError, match="diverged at every client"):
        judge_federation(
            published_of(federation),
            federation,
            Request("now", "here"),
            cells={},
            engine=None,
            progress=lambda *_: None,
        )


def test_the_command_judges_and_refuses(tmp_path: Path) -> None:
    federation = federation_of(CLINIC, tmp_path / "all.csv")
    write_published(tmp_path / "meta.safetensors", published_of(federation))
    asked = ["evaluate", str(tmp_path / "meta.safetensors"), "--data", str(tmp_path / "all.csv"), "--slice", "ward"]
    done = CliRunner().invoke(app, [*asked, "--before", asked[1], "--json", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    found = Evaluation.model_validate(json.loads(done.stdout))
    assert (found.kind, found.tables[-1].clients, {one.value for one in found.slices}) == (
        "simulation",
        4,
        {"east", "west"},
    )
    assert found.comparisons[-1].verdict == "not shown"  # of four clients
    gated = CliRunner().invoke(app, [*asked, "--before", asked[1], "--gate"])
    assert gated.exit_code == 1 and "8 are the least" in gated.output
    refused = CliRunner().invoke(app, [*asked, "--gate"])
    assert isinstance(refused.exception, TestudoError)
