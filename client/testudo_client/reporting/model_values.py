"""The own model, its versions and its answers taken together, as values of an owner's report: no row, no parameter."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class Told(BaseModel):
    """Base: frozen, unknown keys refused; what is not known is None."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Sureness(Told):
    """How sure the model in use was of what it answered.

    Attributes:
        answers: That are remembered of this version.
        sure: Share of them with one class left, or an interval.
        likely: Share with several, of which one has more than half of the probability.
        not_sure: The rest.
        level: Nominal coverage.
    """

    answers: int
    sure: Share
    likely: Share
    not_sure: Share
    level: float


class ContenderLine(Told):
    """How one way to answer did on rows that it was not trained on; see versions.Contender."""

    name: str
    metrics: dict[str, float]
    loss: float
    rows: int


class VersionLine(Told):
    """One version of the own model, without its parameters and its scores of single rows."""

    id: int
    created: str
    kind: str
    in_use: bool
    promoted: bool
    reason: str
    rows: int
    steps: int
    private: bool
    epsilon: float | None
    stays: bool
    meta_model: str
    meta_round: int
    contenders: tuple[ContenderLine, ...]


class Change(Told):
    """What was put in use when."""

    time: str
    version: int
    action: str


class Bin(Told):
    """Answers of one range of stated probability, with what turned out.

    Attributes:
        low: Of the range.
        high: Of the range.
        answers: In it; a range with too few is left out.
        stated: Mean probability of the class answered.
        right: Share of the answers that were right.
    """

    low: float
    high: float
    answers: int
    stated: Share
    right: Share


class Outcomes(Told):
    """What turned out of the answers of the version in use, where somebody told.

    Attributes:
        answers: With a known outcome.
        metrics: ``accuracy``, ``ece``, ``brier``; or ``rmse``, ``mae``, in ``unit``; and ``coverage``.
        bar: What always giving the most frequent of these outcomes, or their mean, would have got: accuracy, or MAE.
        raw_ece: ECE without the temperature; None for regression.
        bins: For classes.
    """

    answers: int
    metrics: dict[str, float]
    bar: float
    raw_ece: float | None
    bins: tuple[Bin, ...]


class Forecast(Told):
    """Numbers predicted whose truth nobody told yet, taken together.

    Attributes:
        answers: How many, the newest.
        mean: Of what was predicted, in the target's unit.
        low: Mean of the intervals' lower ends; None where one has none.
        high: Mean of their upper ends.
    """

    answers: int
    mean: float
    low: float | None
    high: float | None


class OwnModel(Told):
    """The model in use.

    Attributes:
        version: Its number.
        plan: Of its meta-model.
        task: Kind.
        target: Column that it answers.
        unit: Of numbers; empty for classes.
        columns: It reads.
        temperature: Of its probabilities; 1: unchanged.
        headline: The metric that is read first.
        level: Nominal coverage.
        scores: How many rows stand behind its sets and intervals.
        half_width: Half an interval at ``level``, in the model's scaled target; None for classes, or where too few
            rows stand behind it.
        error_scale: What an error in the scaled target is multiplied by, for the target's unit, or its logarithm.
        relative: Whether that is a logarithm, so that errors are shares of the true number.
        sure: See :class:`Sureness`.
        outcomes: What turned out; None where too few did.
        forecast: Of a regression; None where there are too few.
        columns_digest: Of the feature contract.
    """

    version: int
    plan: str
    task: str
    target: str
    unit: str
    columns: tuple[str, ...]
    temperature: float
    headline: str
    level: float
    scores: int
    half_width: float | None
    error_scale: float
    relative: bool
    sure: Sureness | None
    outcomes: Outcomes | None
    forecast: Forecast | None
    columns_digest: str
