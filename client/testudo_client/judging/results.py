"""What the evaluation harness found: the values of ``evaluation.json``. Computes nothing and draws nothing.

Slices name categories and quartiles of somebody's table: an owner's evaluation stays with the owner.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

EVALUATION_FORMAT: Final = 1
EVALUATION_FILE: Final = "evaluation.json"
Arm = Literal["before", "adapted", "in_use"]
"""``before``: the meta-model as it is; ``adapted``: that, trained on the support set; ``in_use``: the own version."""


class Found(BaseModel):
    """Base: frozen, unknown keys refused; what is not known is None, never NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Score(Found):
    """A number, and where the true one is, with 95 % confidence.

    Attributes:
        value: None where it cannot be computed: too few rows, or training diverged.
        low: Lower end; None where it is not known.
        high: Upper end.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


class ModelName(Found):
    """Which model was judged.

    Attributes:
        digest: Of the meta-model, hex: as the audit log names it.
        round: After which it was published.
        version: Of the owner's own model; None for a meta-model.
    """

    digest: str
    round: int
    version: int | None = None


class ScoreTable(Found):
    """How one way to answer did at one support size.

    Attributes:
        arm: Which way.
        shots: Support examples a class, or rows for regression; None: all that a client has, or of a version in use.
            Of ``before``: 0, or the support set whose means it is around, where the plan centres.
        rows: It was scored on.
        clients: Whose they are; scores are means over clients where there are several, ``ece`` and ``coverage`` over
            all rows together.
        metrics: Metric -> score: ``accuracy``, ``balanced_accuracy``, ``precision``, ``recall``, ``f1``, ``ece``,
            ``ece_raw`` (before calibration), ``brier``, ``coverage``, ``set_size``; or ``rmse``, ``mae``, ``mse``,
            ``coverage``, ``interval_width``.
        percentiles: 10th, 50th and 90th over clients of the headline metric; empty for a single client.
        hurt: Share of clients whose headline metric adaptation made worse; None where it has no meaning.
        diverged: Clients whose training diverged; their scores are in no mean.
    """

    arm: Arm
    shots: int | None
    rows: int
    clients: int
    metrics: dict[str, Score]
    percentiles: tuple[float, ...] = ()
    hurt: float | None = Field(None, ge=0, le=1)
    diverged: int = 0


class Slice(Found):
    """How well one part of the rows is answered, beside all others.

    Attributes:
        column: What the rows were parted by.
        value: Their category, or their quarter of a number, such as ``2.5 to 3.1``.
        rows: In this part.
        clients: Whose they are.
        score: Of ``Evaluation.loss_metric`` on this part; no interval where there are too few.
        rest: The same on all other rows.
        p_value: That it does no worse than the rest, after Holm's correction over all slices; None for too few rows.
        verdict: ``worse``: significantly, at 5 % over all slices together; ``too few``: no answer.
    """

    column: str
    value: str
    rows: int
    clients: int
    score: Score
    rest: float | None
    p_value: float | None = None
    verdict: Literal["worse", "not worse", "too few"]


class ShiftScore(Found):
    """How the same rows are answered under a named shift.

    Attributes:
        shift: Its name, such as ``noise``.
        about: What it does, in a few words.
        metrics: As in a table.
        change: Of ``Evaluation.loss_metric``, shifted minus not, on the same rows.
    """

    shift: str
    about: str
    metrics: dict[str, Score]
    change: Score


class Comparison(Found):
    """The model judged, and one before it, at one support size, on the same rows.

    Attributes:
        before: The other model.
        shots: Support size.
        metric: What is compared.
        value: Of the model judged.
        value_before: Of the other.
        gain: By how much the model judged is better (above 0) or worse, in the metric's unit.
        margin: Being worse by less than this counts as not worse, in the metric's unit.
        rows: Compared on.
        clients: Whose they are.
        verdict: ``better``: the whole interval of the gain is above 0; ``not worse``: above minus the margin;
            ``worse``: below 0 and not above minus the margin; ``not shown``: anything else, or too few rows.
    """

    before: ModelName
    shots: int | None
    metric: str
    value: float | None
    value_before: float | None
    gain: Score
    margin: float
    rows: int
    clients: int
    verdict: Literal["better", "not worse", "worse", "not shown"]

    @property
    def passed(self) -> bool:
        """Whether a gate lets the model through."""
        return self.verdict in ("better", "not worse")


class Evaluation(Found):
    """All of it.

    Attributes:
        version: Of this format.
        created: UTC, ISO 8601.
        kind: ``meta_model``: on an owner's table; ``own_model``: the version in use on new rows; ``simulation``: on all
            unseen clients of a federation.
        model: What was judged.
        plan: Its plan's name.
        plan_digest: Hex.
        task: Kind.
        source: Of the data: the table's file name, or a federation's source.
        headline: The customary metric of this plan.
        loss_metric: What slices and shifts are judged by: ``accuracy`` or ``mae``.
        unit: Of numbers predicted and their errors; empty for classes, or where none is stated.
        level: Nominal coverage of sets and intervals.
        tables: A row each way to answer and support size, rising; the arm judged is last.
        slices: Of the arm judged: adapted on the largest support set, or the version in use.
        shifts: Of the same.
        comparisons: One a support size; empty where no other model was named.
        warnings: What to know before these numbers are believed, a sentence each.
    """

    version: Literal[1] = EVALUATION_FORMAT
    created: str
    kind: Literal["meta_model", "own_model", "simulation"]
    model: ModelName
    plan: str
    plan_digest: str
    task: Literal["classification", "regression", "few_shot"]
    source: str
    headline: str
    loss_metric: Literal["accuracy", "mae"]
    unit: str = ""
    level: float
    tables: tuple[ScoreTable, ...]
    slices: tuple[Slice, ...] = ()
    shifts: tuple[ShiftScore, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every comparison lets the model through; of none, yes."""
        return all(one.passed for one in self.comparisons)

    @property
    def higher_is_better(self) -> bool:
        """Direction of the headline."""
        return self.headline in ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
