"""An own model in use with answers that were served, drifting or not; for tests of watching. No tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from own_models import CLINIC, NOON, clinic_table, make_version, plan_of, store_with
from testudo_client.data import examples_of_rows
from testudo_client.observations import Observations
from testudo_client.personal.own_model import Answerer
from testudo_client.reference import keep_reference
from testudo_client.watching.sources import answers
from testudo_client.watching.watch import Report, WatchRequest, watch_once
from testudo_common.learning.tasks import Examples
from testudo_common.plan.sections import TableData

DRIFT = 2.0  # of the encoded age: 40 years


def watched_home(folder: Path, *, reference: int = 200) -> Path:
    """A folder with version 1 in use, and a reference of fresh rows."""
    version = make_version()
    store_with(folder, version)
    rows = encoded(reference, seed=1)
    targets = rows.targets.astype(np.float64)
    keep_reference(folder, 1, rows.inputs, answers(Answerer(version.own), rows.inputs), targets)
    return folder


def encoded(rows: int, seed: int) -> Examples:
    """Made-up patients, as the plan reads them."""
    data = plan_of(CLINIC).data
    assert isinstance(data, TableData)
    return examples_of_rows(data, "classification", clinic_table(rows, seed))


def serve(folder: Path, rows: int, seed: int, *, shift: float = 0.0, wrong: bool = False, version: int = 1) -> None:
    """Keep answers as if they had been served; with ``wrong`` every outcome is the less probable class."""
    examples = encoded(rows, seed)
    inputs, targets = examples.inputs, examples.targets.astype(np.float64)
    inputs[:, 0] += np.float32(shift)
    outputs = answers(Answerer(make_version().own), inputs)
    if wrong:
        targets = outputs.argmin(axis=1).astype(np.float64)
    observations = Observations(folder / "state")
    observations.add(version, [None] * rows, inputs, outputs, targets)
    observations.close()


def checked(folder: Path, **settings: object) -> Report:
    """One check of what was served."""
    return watch_once(WatchRequest(folder, settings=dict(settings)), NOON)
