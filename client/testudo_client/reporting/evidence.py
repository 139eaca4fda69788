"""What in an owner's folder bears on the lines of the NIST AI RMF: files with their digest, and sections of the report.

A piece of evidence is only made of what was read and parsed while the report was made; what could not be read is none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from testudo_client.home import OwnerHome
from testudo_client.judging.results import EVALUATION_FILE, Evaluation
from testudo_client.ledger import LEDGER_FILE, Approved, Entry, Withdrawn
from testudo_client.personal.versions import HISTORY, MODELS
from testudo_client.policy.sections import OwnerPolicy
from testudo_client.reporting.model_values import Change, OwnModel, VersionLine
from testudo_client.reporting.values import Costs, LogTold, Refusal, Spent
from testudo_common.audit.wording import counted
from testudo_common.plan import FederationPlan
from testudo_common.reporting import shown
from testudo_common.reporting.rmf import Evidence, Kind
from testudo_common.roster import Roster


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file, hex; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def of_policy(home: OwnerHome, policy: OwnerPolicy, *, apart: bool) -> Iterator[Evidence]:
    """What the owner allows, how much risk it tolerates, and, where ``apart``, that approvals have their own key."""
    name, digest = home.policy_file.name, digest_of(home.policy_file)
    yield Evidence(kind=Kind.POLICY, says=f"the policy of {policy.client}", file=name, digest=digest)
    limits = {"example": policy.privacy.example, "client": policy.privacy.client}
    said = [f"epsilon {limit.epsilon_for_life:g} for life of one {unit}" for unit, limit in limits.items() if limit]
    if said:
        yield Evidence(kind=Kind.CEILINGS, says="; ".join(said), file=name, digest=digest, anchor="ledger")
    if apart:
        said_of_roles = "approvals are signed with a key other than the node's"
        yield Evidence(kind=Kind.ROLES, says=said_of_roles, file=name, digest=digest, anchor="roles")


def of_ledger(home: OwnerHome, entries: Sequence[Entry], spent: Spent | None) -> Iterator[Evidence]:
    """What was spent and decided; the ledger goes by the hash of its last entry."""
    name = str((home.folder / LEDGER_FILE).relative_to(home.folder))
    head = entries[-1].hash.hex()
    approved = sum(isinstance(entry.content, Approved) for entry in entries)
    withdrawn = sum(isinstance(entry.content, Withdrawn) for entry in entries)
    if approved:
        yield Evidence(kind=Kind.APPROVAL, says=f"{approved} in the ledger", file=name, digest=head)
    if withdrawn:
        yield Evidence(kind=Kind.WITHDRAWAL, says=f"{withdrawn} in the ledger", file=name, digest=head)
    if spent is not None:
        said = f"{counted(spent.entries, 'entry', 'entries')}, hash of the last"
        yield Evidence(kind=Kind.LEDGER, says=said, file=name, digest=head, anchor="ledger")
        if spent.statements:
            says = f"of {counted(len(spent.statements), 'plan')}, with what is not covered"
            yield Evidence(kind=Kind.STATEMENT, says=says, anchor="statements")


def of_federation(home: OwnerHome, plans: Mapping[str, FederationPlan], roster: Roster | None) -> Iterator[Evidence]:
    """Who the federation is, and the plans that were approved, of which ``plans`` are what their names say."""
    if roster is not None:
        says = f"{len(roster.members)} members, under the federation's signature"
        name, digest = home.roster_file.name, digest_of(home.roster_file)
        yield Evidence(kind=Kind.ROSTER, says=says, file=name, digest=digest)
    for digest, plan in plans.items():
        file = home.approved / f"{digest}.toml"
        name, of_file = str(file.relative_to(home.folder)), digest_of(file)
        yield Evidence(kind=Kind.PLAN, says=f"plan {plan.name}", file=name, digest=of_file, anchor="left")
        if share := plan.robust_aggregation.corruption:
            says = f"{' then '.join(plan.robust_rule)}, for {100 * share:g} % of poisoned clients"
            yield Evidence(kind=Kind.ROBUST, says=says, file=name, digest=of_file)


def of_logs(logs: Sequence[LogTold], refused: Sequence[Refusal], log_file: Path) -> Iterator[Evidence]:
    """What the server said it did, and what this owner refused."""
    for log in logs:
        verdict = "verified, nothing wrong" if log.holds else "DOES NOT HOLD"
        said = f"{counted(log.entries, 'entry', 'entries')}, {verdict}; its root"
        yield Evidence(kind=Kind.AUDIT_LOG, says=said, file=log.file, digest=log.root or None, anchor="audit")
        if log.receipts:
            says = f"{log.receipts}, {'checked with the log' if log.holds else 'of a log that does not hold'}"
            yield Evidence(kind=Kind.RECEIPTS, says=says, anchor="audit")
    if refused:
        times = sum(one.times for one in refused)
        digest = digest_of(log_file)
        says = f"{times} in your own log"
        yield Evidence(kind=Kind.REFUSALS, says=says, file=log_file.name, digest=digest, anchor="refused")


def of_models(
    home: OwnerHome, versions: Sequence[VersionLine], changes: Sequence[Change], model: OwnModel | None
) -> Iterator[Evidence]:
    """Versions, what was promoted and why, and what the model in use cannot know."""
    for version in versions:
        name = f"{MODELS}/{version.id}/version.json"
        digest = digest_of(home.folder / name)
        says = f"version {version.id}, of the meta-model after round {version.meta_round}"
        yield Evidence(kind=Kind.VERSIONS, says=says, file=name, digest=digest, anchor="versions")
        if version.in_use and version.contenders:
            compared = f"{len(version.contenders)} ways compared on {version.contenders[0].rows} held-out rows"
            yield Evidence(kind=Kind.GATE, says=compared, file=name, digest=digest, anchor="versions")
    if changes:
        name = f"{MODELS}/{HISTORY}"
        back = sum(one.action == "rolled back" for one in changes)
        says = f"{counted(len(changes) - back, 'promotion')}, {counted(back, 'rollback')}"
        yield Evidence(kind=Kind.PROMOTIONS, says=says, file=name, digest=digest_of(home.folder / name),
                       anchor="versions")  # fmt: skip
    if model is None:
        return
    name = f"{MODELS}/{model.version}/contract.json"
    says = f"ranges and categories of {len(model.columns)} columns; other rows are refused"
    yield Evidence(kind=Kind.CONTRACT, says=says, file=name, digest=digest_of(home.folder / name), anchor="model")
    yield Evidence(kind=Kind.MODEL_CARD, says=f"of version {model.version}", anchor="model-card")
    says = "what it answers and for whom, as the plan states it"
    yield Evidence(kind=Kind.INTENDED_USE, says=says, anchor="model-card")
    if model.outcomes is not None:
        covered, count = model.outcomes.metrics["coverage"], model.outcomes.answers
        said = f"{100 * covered:.0f} % at {100 * model.level:g} % nominal, on {count} outcomes"
        yield Evidence(kind=Kind.COVERAGE, says=said, anchor="model")
        if "ece" in model.outcomes.metrics:
            said = f"ECE {model.outcomes.metrics['ece']:.3f} on {count} outcomes"
            yield Evidence(kind=Kind.CALIBRATION, says=said, anchor="model")


def of_evaluation(evaluation: Evaluation, path: Path) -> Iterator[Evidence]:
    """What the harness found."""
    name, digest, anchor = path.name or EVALUATION_FILE, digest_of(path), "evaluation"
    rows = max((one.rows for one in evaluation.tables), default=0)
    yield Evidence(kind=Kind.EVALUATION, says=f"on {rows} rows", file=name, digest=digest, anchor=anchor)
    names = {metric for one in evaluation.tables for metric in one.metrics}
    for kind, metric in ((Kind.CALIBRATION, "ece"), (Kind.COVERAGE, "coverage")):
        if metric in names:
            said = f"{shown.metric_name(metric)} measured"
            yield Evidence(kind=kind, says=said, file=name, digest=digest, anchor=anchor)
    for kind, parts in ((Kind.SLICES, evaluation.slices), (Kind.SHIFTS, evaluation.shifts)):
        if parts:
            yield Evidence(kind=kind, says=f"{len(parts)} measured", file=name, digest=digest, anchor=anchor)
    if evaluation.comparisons:
        said = "passed" if evaluation.passed else "NOT passed"
        yield Evidence(kind=Kind.RELEASE_GATE, says=said, file=name, digest=digest, anchor=anchor)


def of_costs(costs: Costs) -> Iterator[Evidence]:
    """What it took here: bytes and trainings; energy is not measured."""
    if costs.attempts:
        says = f"{counted(costs.attempts, 'attempt')} at rounds, bytes and disk; energy is not measured"
        yield Evidence(kind=Kind.COST, says=says, anchor="cost")
