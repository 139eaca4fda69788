"""The own model and its versions, as the report has them: records, and what became of the answers. Adapts nothing.

Outcomes, and how sure it was, are taken together from FEWEST on: fewer would tell of single rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from testudo_client.observations import FILE, Observations, Observed
from testudo_client.personal.own_model import LEVEL, Answerer, Classes, Intervals, in_target_unit
from testudo_client.personal.personalizer import Personalizer
from testudo_client.personal.versions import Version, VersionRecord, VersionStore
from testudo_client.reporting.model_values import (
    Bin,
    Change,
    ContenderLine,
    Forecast,
    Outcomes,
    OwnModel,
    Sureness,
    VersionLine,
)
from testudo_common.learning.calibration import tempered
from testudo_common.learning.metrics import CONFIDENCE_BINS, ClassificationSums, RegressionSums
from testudo_common.plan.sections import TableData

FEWEST: Final = 10
"""Answers, or answers of one bin, that are taken together; of fewer nothing is said."""
FEWEST_FORECASTS: Final = 3
"""Predictions that are taken together: no outcome is in them, and a shop may plan four weeks."""
_NEWEST: Final = 12


def versions_in(store: VersionStore) -> tuple[VersionLine, ...]:
    """All versions, the newest first.

    Raises:
        UsageError: One of them is damaged.
    """
    current = store.current_id()
    return tuple(_line(store.record(number), in_use=number == current) for number in reversed(store.ids()))


def _line(record: VersionRecord, *, in_use: bool) -> VersionLine:
    kept = record.model_dump(include=set(VersionLine.model_fields) - {"in_use", "contenders"})
    contenders = tuple(
        ContenderLine(name=one.name, metrics=one.metrics, loss=one.loss, rows=one.examples) for one in record.contenders
    )
    return VersionLine(**kept, in_use=in_use, contenders=contenders)


def changes_in(store: VersionStore) -> tuple[Change, ...]:
    """What was put in use when, oldest first."""
    found = [(one.get("time"), one.get("version"), one.get("action")) for one in store.history()]
    return tuple(
        Change(time=time, version=version, action=action)
        for time, version, action in found
        if isinstance(time, str) and isinstance(version, int) and isinstance(action, str)
    )


def model_in_use(version: Version, state: Path) -> OwnModel:
    """What there is to say of the version in use.

    Args:
        version: Whole.
        state: The owner's ``state`` folder.

    Raises:
        UsageError: What it answered cannot be read.
    """
    own, data, task = version.own, version.own.plan.data, version.own.plan.task
    table = data if isinstance(data, TableData) else None
    seen = _answers_of(version, state)
    threshold = own.conformal.threshold(LEVEL)
    answers = _read(version, seen.outputs) if len(seen.outputs) else None
    return OwnModel(
        version=version.record.id,
        plan=own.plan.name,
        task=task.kind,
        target=table.target if table is not None else data.federation,
        unit=table.target_unit if table is not None else "",
        columns=tuple(field.column.name for field in version.contract.fields),
        temperature=own.temperature,
        headline="rmse" if own.regression else "accuracy",
        level=LEVEL,
        scores=len(own.conformal.scores),
        half_width=threshold if own.regression and np.isfinite(threshold) else None,
        error_scale=1.0 if table is None else table.target_scale or 1.0,
        relative=table is not None and table.target_transform == "log",
        sure=None if answers is None else _sureness(version, answers),
        outcomes=None if answers is None else _outcomes(version, answers, seen.targets),
        forecast=_forecast(answers, seen.targets) if isinstance(answers, Intervals) else None,
        columns_digest=version.contract.digest,
    )


def _answers_of(version: Version, state: Path) -> Observed:
    """What this version answered, where anything is remembered."""
    nothing = Observed(0, np.empty((0, 0), np.float32), np.empty((0, 0), np.float32), np.empty(0), np.empty(0, int))
    if not (state / FILE).exists():
        return nothing
    observations = Observations(state)
    try:
        found = observations.since()
    finally:
        observations.close()
    mine = found.versions == version.record.id
    if not mine.any():
        return nothing
    return Observed(found.last, found.inputs[mine], found.outputs[mine], found.targets[mine], found.versions[mine])


def _read(version: Version, outputs: npt.NDArray[np.float32]) -> Classes | Intervals:
    """The answers as they were given: outputs are kept after calibration."""
    own = version.own
    if own.regression:
        return Answerer(own).read(outputs[:, 0])
    return Classes(outputs, own.conformal.sets(outputs, LEVEL))


def _sureness(version: Version, answers: Classes | Intervals) -> Sureness | None:
    said = [one.sure for one in Personalizer(version).predictions(answers)]
    if len(said) < FEWEST:
        return None
    shares = {name: said.count(name) / len(said) for name in ("sure", "likely", "not sure")}
    return Sureness(
        answers=len(said), sure=shares["sure"], likely=shares["likely"], not_sure=shares["not sure"], level=LEVEL
    )


def _outcomes(version: Version, answers: Classes | Intervals, targets: npt.NDArray[np.float64]) -> Outcomes | None:
    known = ~np.isnan(targets)
    if known.sum() < FEWEST:
        return None
    if isinstance(answers, Intervals):
        truth = in_target_unit(version.own.plan, targets[known])
        metrics = RegressionSums.of(answers.values[known], truth).metrics()
        within = (answers.low[known] <= truth) & (truth <= answers.high[known])
        return Outcomes(
            answers=int(known.sum()),
            metrics={**metrics, "coverage": float(within.mean())},
            bar=float(np.abs(truth - truth.mean()).mean()),
            raw_ece=None,
            bins=(),
        )
    classes = targets[known].astype(np.int64)
    probabilities = answers.probabilities[known]
    sums = ClassificationSums.of(probabilities, classes)
    within = answers.sets[known][np.arange(len(classes)), classes]
    with np.errstate(divide="ignore"):
        untempered = tempered(np.log(probabilities), 1.0 / version.own.temperature)
    return Outcomes(
        answers=int(known.sum()),
        metrics={**sums.metrics(), "coverage": float(within.mean())},
        bar=float(sums.confusion.sum(axis=1).max() / sums.examples),
        raw_ece=ClassificationSums.of(untempered, classes).metrics()["ece"],
        bins=_bins(sums),
    )


def _bins(sums: ClassificationSums) -> tuple[Bin, ...]:
    return tuple(
        Bin(
            low=place / CONFIDENCE_BINS,
            high=(place + 1) / CONFIDENCE_BINS,
            answers=int(count),
            stated=min(1.0, float(sums.bin_confidence[place] / count)),
            right=float(sums.bin_correct[place] / count),
        )
        for place, count in enumerate(sums.bin_count)
        if count >= FEWEST
    )


def _forecast(answers: Intervals, targets: npt.NDArray[np.float64]) -> Forecast | None:
    """The newest answers whose truth is not known, together."""
    open_ones = np.flatnonzero(np.isnan(targets))[-_NEWEST:]
    if len(open_ones) < FEWEST_FORECASTS:
        return None
    known = np.isfinite(answers.low[open_ones]).all() and np.isfinite(answers.high[open_ones]).all()
    return Forecast(
        answers=len(open_ones),
        mean=float(answers.values[open_ones].mean()),
        low=float(answers.low[open_ones].mean()) if known else None,
        high=float(answers.high[open_ones].mean()) if known else None,
    )
