"""What a report is answerable for: calibration, model cards, and evidence for the NIST AI RMF. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pydantic import ValidationError

from testudo_common.audit.wording import counted
from testudo_common.errors import PlanError
from testudo_common.markup import Markup, table, tag
from testudo_common.plan import FederationPlan
from testudo_common.reporting import shown
from testudo_common.reporting.cards import Card, Fact, Facts, Part, as_markup
from testudo_common.reporting.page import details, section
from testudo_common.reporting.plan_card import meta_model_card
from testudo_common.reporting.rmf import Evidence, Kind
from testudo_common.reporting.roles import ROLES
from testudo_simulations.report import wording
from testudo_simulations.report.sections import run_name
from testudo_simulations.report.summaries import SettingSummary, rows_by_shots
from testudo_simulations.results import Report, RunResult

Settings = Sequence[SettingSummary]
ROLES_HERE: Final = {name: "played by the simulation, in one process" for name, *_ in ROLES}
SURENESS: Final = ("ece", "brier", "coverage")
EXPLAINED: Final = (
    "ECE: how far stated probabilities are from how often they are right; 0 is exact. Brier score: squared distance "
    "from the truth. Coverage: how often the truth was not excluded."
)


def calibration(settings: Settings) -> Markup:
    """How far what is stated can be trusted, by support size; nothing where it was not measured."""
    measured = [(one, name) for one in settings for name in SURENESS if any(name in arm.metrics for arm in one.arms)]
    tables = [_by_shots(setting, name) for setting, name in measured]
    if not tables:
        return Markup("")
    return section("Calibration", tag("p", EXPLAINED), *tables, anchor="calibration")


def _by_shots(setting: SettingSummary, name: str) -> Markup:
    rows = []
    for row in rows_by_shots(setting):
        label = next(arm.label for arm in row if arm is not None)
        cells = [
            wording.with_spread(name, arm.metrics[name]) if arm is not None and name in arm.metrics else shown.MISSING
            for arm in row
        ]
        if any(cell != shown.MISSING for cell in cells):
            rows.append([label, *cells])
    head = ["", *map(wording.support, setting.shot_sizes)]
    caption = f"{wording.place(setting)}: {shown.metric_title(name)}, by number of support examples"
    return table(head, rows, caption=caption)


def cards(report: Report) -> Markup:
    """The card of each run's meta-model; that there is none where this version cannot read the plan."""
    unread = tag("p", "This version cannot read the plan: there is no card.", class_="empty")
    made = [(run_name(run), card_of(run)) for run in report.runs]
    blocks = [details(f"Model card: {name}", unread if card is None else as_markup(card)) for name, card in made]
    return section("Model card", *blocks, anchor="model-card")


def card_of(run: RunResult) -> Card | None:
    """The card of a run's meta-model; None where this version cannot read the plan."""
    plan = _plan_of(run)
    return None if plan is None else meta_model_card(plan, len(run.rounds), run.model_digest, _found(run))


def _plan_of(run: RunResult) -> FederationPlan | None:
    try:
        return FederationPlan.model_validate(run.plan)
    except (ValidationError, PlanError):
        return None


def _found(run: RunResult) -> Facts:
    """What the run measured, for its card."""
    analyses: list[Fact] = []
    for arm in run.arms:
        values = [score.metrics[run.metric] for score in arm.scores if run.metric in score.metrics]
        if arm.family == "meta" and values:
            mean = sum(values) / len(values)
            said = f"{shown.metric_name(run.metric)} {shown.with_unit(run.metric, mean)}"
            of = f"{arm.label}, support {wording.support(arm.shots)}"
            analyses.append((of, f"{said}, mean of {counted(len(values), 'client')}"))
    return {
        Part.EVALUATION: [("Clients", f"{run.unseen_clients} that never trained; {run.federation}")],
        Part.TRAINING: [("Clients", f"{run.training_clients} trained; {len(run.excluded_clients)} left out")],
        Part.ANALYSES: analyses,
        Part.ETHICS: [("Spent", wording.privacy_line(run.privacy))],
        Part.CAVEATS: [("", "It was trained in a simulation: all clients on one machine, of one party.")],
    }


def evidence(settings: Settings) -> Iterator[Evidence]:
    """What these runs left to look at."""
    for setting in settings:
        yield from _evidence(wording.place(setting), setting, setting.runs[0])


def _evidence(where: str, setting: SettingSummary, run: RunResult) -> Iterator[Evidence]:
    plan = _plan_of(run)
    yield Evidence(kind=Kind.PLAN, says=f"{where}; its digest", digest=run.plan_digest, anchor="detail")
    if plan is not None:
        for kind in (Kind.MODEL_CARD, Kind.INTENDED_USE):
            yield Evidence(kind=kind, says=where, anchor="model-card")
    if setting.privacy.target_epsilon is not None:
        says = f"{where}: epsilon {setting.privacy.target_epsilon:g}"
        yield Evidence(kind=Kind.CEILINGS, says=says, anchor="privacy")
    if run.statement:
        yield Evidence(kind=Kind.STATEMENT, says=f"{where}, with what is not covered", anchor="privacy")
    if run.arms and run.unseen_clients:
        says = f"{where}: on {run.unseen_clients} clients that never trained"
        yield Evidence(kind=Kind.EVALUATION, says=says, anchor="m0-results")
    for kind, name in ((Kind.CALIBRATION, "ece"), (Kind.COVERAGE, "coverage")):
        if any(name in arm.metrics for arm in setting.arms):
            yield Evidence(kind=kind, says=f"{where}: {shown.metric_name(name)} measured", anchor="calibration")
    if run.robust.corruption:
        yield Evidence(kind=Kind.ROBUST, says=f"{where}: {wording.robust_line(run.robust, run.secure)}", anchor="seen")
    if run.audit is not None:
        verdict = "replay found nothing wrong" if run.audit.verified else "REPLAY FAILED"
        says = f"{where}: {run.audit.entries} entries, {verdict}; its root"
        root = run.audit.root
        yield Evidence(kind=Kind.AUDIT_LOG, says=says, file="audit.tlog", digest=root, anchor="audit")
        if run.audit.receipts:
            yield Evidence(kind=Kind.RECEIPTS, says=f"{where}: {len(run.audit.receipts)} of one client", anchor="audit")
    if setting.refused:
        times = sum(one.times for one in setting.refused)
        yield Evidence(kind=Kind.REFUSALS, says=f"{where}: {times} replies not used", anchor="left-out")
    yield Evidence(kind=Kind.COST, says=f"{where}: {shown.seconds(setting.cost.cpu_seconds)} CPU; energy is not "
                   "measured", anchor="cost")  # fmt: skip
