"""The model card of the model in use: what its plan says, how its version came about, and what was measured of it."""

from __future__ import annotations

from testudo_client.judging.results import Evaluation, Score, ScoreTable
from testudo_client.reporting.model_values import OwnModel, VersionLine
from testudo_common.plan import FederationPlan
from testudo_common.reporting import shown
from testudo_common.reporting.cards import Card, Fact, Facts, Part, model_card
from testudo_common.reporting.plan_card import facts_of_plan

CONTENDERS = {
    "adapted": "adapted to your rows",
    "initialisation": "the meta-model as it is",
    "majority": "the most frequent answer, or the mean",
    "in_use": "the version that was in use",
}
ARMS = {"before": "the meta-model as it is", "adapted": "adapted from it", "in_use": "the version in use"}


def own_card(plan: FederationPlan, model: OwnModel, version: VersionLine, evaluation: Evaluation | None) -> Card:
    """The card.

    Args:
        plan: Of the meta-model.
        model: In use.
        version: The same, as a record.
        evaluation: Of this model; None: there is none.
    """
    facts = [facts_of_version(model, version)]
    if evaluation is not None:
        facts.append(facts_of_evaluation(evaluation))
    return model_card(f"Model card: {model.plan}, own version {version.id}", facts[0], facts_of_plan(plan), *facts[1:])


def facts_of_version(model: OwnModel, version: VersionLine) -> Facts:
    """How it came about, and what is known of it from that."""
    details: list[Fact] = [
        ("Model", f"own version {version.id} of {model.plan}, made {shown.moment(version.created)}, {version.kind}"),
        ("Made from", f"the meta-model after round {version.meta_round}, digest {version.meta_model}"),
        ("Feature contract", f"digest {model.columns_digest}"),
    ]
    ethics: list[Fact] = [("Privacy of your rows", _privacy(version))]
    if version.stays:
        ethics.append(("", "Model, answers and scores stay with their owner."))
    scaled = ", in the model's scaled target" if model.task == "regression" else ""
    caveats: list[Fact] = []
    if model.scores < _least_scores(model.level):
        caveats.append(("", f"Only {model.scores} rows stand behind its sets and intervals: too few for "
                        f"{100 * model.level:g} %."))  # fmt: skip
    return {
        Part.DETAILS: details,
        Part.METRICS: [("Sets and intervals", f"at {100 * model.level:g} %, from {model.scores} rows")],
        Part.EVALUATION: [("At promotion", f"{version.contenders[0].rows} rows it was not trained on, of the same "
                           "table")] if version.contenders else [],
        Part.TRAINING: [("Your rows", f"{version.rows}, {version.steps} steps")],
        Part.ANALYSES: [(CONTENDERS.get(one.name, one.name) + scaled, metrics_line(one.metrics))
                        for one in version.contenders]
        + _outcomes(model),
        Part.ETHICS: ethics,
        Part.CAVEATS: caveats,
    }  # fmt: skip


def _privacy(version: VersionLine) -> str:
    if version.private:
        return f"adapted with differential privacy, epsilon {shown.epsilon(version.epsilon)} by itself"
    if version.kind == "initialisation":
        return "its parameters hold none; its centre and how sure it is were made from your rows, without privacy"
    return "adapted without differential privacy: its parameters and answers give away rows it was made from"


def facts_of_evaluation(evaluation: Evaluation) -> Facts:
    """What the harness found."""
    unlike = [one for one in evaluation.slices if one.verdict == "worse"]
    slices = f"{len(evaluation.slices)} slices, of which {len(unlike)} do worse"
    names = f": {'; '.join(f'{one.column} {one.value}' for one in unlike)}" if unlike else ""
    return {
        Part.FACTORS: [("Evaluated by", slices + names)] if evaluation.slices else [],
        Part.EVALUATION: [("Source", f"{evaluation.source}, evaluated {shown.moment(evaluation.created)}")],
        Part.ANALYSES: [
            (f"{ARMS[one.arm]}{_shots(one)}, {one.rows} rows", scores_line(one.metrics)) for one in evaluation.tables
        ],
        Part.CAVEATS: [("", warning) for warning in evaluation.warnings],
    }


def metrics_line(metrics: dict[str, float]) -> str:
    """``accuracy 84.0 %, ECE 0.051``."""
    return ", ".join(metric_said(name, value) for name, value in metrics.items()) or "nothing was measured"


def metric_said(name: str, value: float) -> str:
    """One metric with its name."""
    return f"{shown.metric_name(name)} {shown.with_unit(name, value)}"


def scores_line(metrics: dict[str, Score]) -> str:
    """The same of scores with intervals."""
    parts = []
    for name, score in metrics.items():
        if score.value is None:
            parts.append(f"{shown.metric_name(name)} not known")
            continue
        ends = ""
        if score.low is not None and score.high is not None:
            ends = f" ({shown.number(name, score.low)} to {shown.number(name, score.high)})"
        parts.append(metric_said(name, score.value) + ends)
    return ", ".join(parts)


def _shots(table: ScoreTable) -> str:
    return "" if table.shots is None else f" on {table.shots} examples"


def _least_scores(level: float) -> int:
    """Fewer scores than this give no threshold at ``level``."""
    return round(level / (1 - level))


def _outcomes(model: OwnModel) -> list[Fact]:
    if model.outcomes is None:
        return []
    return [(f"in use, {model.outcomes.answers} answers with a known outcome", metrics_line(model.outcomes.metrics))]
