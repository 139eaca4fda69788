"""An own model in use with answers that were served, drifting or not; for tests of watching. No tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from own_models import CLINIC, NOON, clinic_table, make_version, plan_of, store_with
from testudo_client.observations import Observations
from testudo_client.personal.own_model import Answerer
from testudo_client.watching.reference import keep_reference
from testudo_client.watching.sources import answers, inputs_of, table_of, targets_of
from testudo_client.watching.watch import Report, WatchRequest, watch_once

DRIFT = 2.0  # of the encoded age: 40 years


def watched_home(folder: Path, *, reference: int = 200) -> Path:
    """A folder with version 1 in use, and a reference of fresh rows."""
    version = make_version()
    store_with(folder, version)
    data, table = table_of(plan_of(CLINIC)), clinic_table(reference, seed=1)
    inputs = inputs_of(data, table)
    _, targets = targets_of(data, "classification", table)
    keep_reference(folder, 1, inputs, answers(Answerer(version.own), inputs), targets)
    return folder


def serve(folder: Path, rows: int, seed: int, *, shift: float = 0.0, wrong: bool = False, version: int = 1) -> None:
    """Keep answers as if they had been served; with ``wrong`` every outcome is the less probable class."""
    table = clinic_table(rows, seed)
    inputs = inputs_of(table_of(plan_of(CLINIC)), table)
    inputs[:, 0] += np.float32(shift)
    outputs = answers(Answerer(make_version().own), inputs)
    _, targets = targets_of(table_of(plan_of(CLINIC)), "classification", table)
    if wrong:
        targets = outputs.argmin(axis=1).astype(np.float64)
    observations = Observations(folder / "state")
    observations.add(version, [None] * rows, inputs, outputs, targets)
    observations.close()


def checked(folder: Path, **settings: object) -> Report:
    """One check of what was served."""
    return watch_once(WatchRequest(folder, settings=dict(settings)), NOON)
