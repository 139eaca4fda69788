"""What adapting is worth to newcomers: calibration, coverage, and whether the gate keeps harm away.

All clients of a federation are judged, a quarter at a time, by models that the other three quarters trained. Nobody who
is judged has trained or calibrated. Without real data: sine waves.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np

from testudo_client.newcomer import newcomer_counts
from testudo_client.personal.adapting import Candidate, candidates_for, losses_of, outputs_of
from testudo_client.personal.few_shot import FewShot, first_shots
from testudo_client.personal.own_model import Answerer, OwnModel
from testudo_client.personal.promotion import judge
from testudo_common.learning.calibration import CalibrationPrior
from testudo_common.learning.learner import Learner
from testudo_common.learning.metrics import ClassificationSums, Sums
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan
from testudo_common.publication import PublishedModel
from testudo_common.secure_terms import calibration_counts_of
from testudo_server.store import RunStore
from testudo_simulations.benchmarks.measure import Measurement
from testudo_simulations.federations import Federation, UnseenClient, load_federation
from testudo_simulations.federations.complete import with_participations
from testudo_simulations.inline_backend import computing_on, federate_in_process
from testudo_simulations.scenarios import find_plan

LEVEL = 0.9
QUARTERS = 4
HELD_BACK = 0.3
CLEAR = 1.64  # standard errors of a paired difference on later examples
OVER_ADAPTED = 300  # steps, ten times the plan's: what calibration has to repair
SHOTS = {"activity": (1, 3, 5), "retail": (4, 8, 16), "sine": (5, 10)}


@dataclass(frozen=True, slots=True)
class _Newcomer:
    """A client that is judged, and the meta-model that it gets.

    Attributes:
        published: As the plan adapts.
        over: The same model under a plan that adapts ten times as long, with what newcomers say of that.
        examples: All of the client's.
    """

    published: PublishedModel
    over: PublishedModel
    examples: Examples


def measure_adaptation(repeats: int, data: Mapping[str, Path]) -> list[Measurement]:
    """Every federation that there is data for, over all of its clients; ``repeats`` seeds."""
    chosen: dict[str, Path | None] = {name: data[name] for name in SHOTS if name in data} or {"sine": None}
    found = []
    for name, path in chosen.items():
        newcomers = [one for seed in range(repeats) for one in _newcomers(name, path, seed)]
        for shots in SHOTS[name]:
            found += _of_size(name, newcomers, shots)
        found += _promotions(name, newcomers, *SHOTS[name][-2:])
    return found


def _newcomers(name: str, path: Path | None, seed: int) -> Iterator[_Newcomer]:
    tables, source = find_plan(name)
    settings = [f"seed={seed}", f"calibration.held_back={HELD_BACK}", "audit.mode=off"]
    shots = ", ".join(map(str, SHOTS[name]))
    settings += [f"evaluation.shots=[{shots}]", *(["data.clients=60"] if name == "sine" else [])]
    whole = load_federation(parse_plan(tables, source=source, settings=settings), path)
    clients = {**whole.training, **{client: _joined(one) for client, one in whole.unseen.items()}}
    order = sorted(clients, key=lambda client: hashlib.sha256(f"{seed}|quarter|{client}".encode()).digest())
    for quarter in range(QUARTERS):
        judged = order[quarter::QUARTERS]
        published, over = _trained(whole, {client: one for client, one in clients.items() if client not in judged})
        fewest = min(SHOTS[name])
        for client in judged:
            if len(first_shots(clients[client], fewest, published.plan)[0]) > 1:
                yield _Newcomer(published, over, clients[client])


def _joined(client: UnseenClient) -> Examples:
    """All examples of an unseen client, in the order of its support and then its query set."""
    if client.query is None:
        return client.support
    parts = (client.support, client.query)
    return Examples(np.concatenate([one.inputs for one in parts]), np.concatenate([one.targets for one in parts]))


def _trained(whole: Federation, training: Mapping[str, Examples]) -> tuple[PublishedModel, PublishedModel]:
    rounds = whole.plan.rounds.model_copy(update={"max_participations": None})
    plan = FederationPlan.model_validate({**dict(whole.plan), "rounds": rounds})
    federation = with_participations(replace(whole, plan=plan, training=training, unseen={}))
    with tempfile.TemporaryDirectory(prefix="testudo-") as folder:
        store = RunStore(Path(folder), durable=False)
        clients = Path(folder) / "clients"
        run = federate_in_process(federation, store, clients, masks=False, computing=computing_on("cpu", 1))
        last = store.records()[-1]
    plan, state = federation.plan, run.state
    priors = tuple(CalibrationPrior.model_validate(one) for one in last.calibration)
    evaluation = plan.evaluation.model_copy(update={"steps": OVER_ADAPTED})
    longer = plan.model_copy(update={"evaluation": evaluation})
    newcomers = [training[client] for client in last.cohort]
    learner, counts = Learner(longer), calibration_counts_of(longer)
    total = np.sum([newcomer_counts(learner, state.model, one, longer, split_key=b"") for one in newcomers], axis=0)
    over = PublishedModel(longer, state.round, state.model, counts.priors(total, len(newcomers), min_cell=1))
    return PublishedModel(plan, state.round, state.model, priors), over


def _of_size(name: str, newcomers: list[_Newcomer], shots: int) -> list[Measurement]:
    """Calibration and coverage of one support size; as the plan adapts, and for classes also over-adapted."""
    classes = newcomers[0].published.plan.task.kind == "classification"
    found = []
    for over in (False, True) if classes and shots == max(SHOTS[name]) else (False,):
        adapted = [_adapted(one.over if over else one.published, one.examples, shots) for one in newcomers]
        covered, weights = zip(*(_coverage(own, query) for own, query in adapted), strict=True)
        case = f"{name}, {shots} shots" + (f", {OVER_ADAPTED} steps" if over else "")
        mean = float(np.average(covered, weights=weights))
        found.append(Measurement(case, "coverage", "share", mean, LEVEL, "nominal"))
        spread = float(np.mean(covered))
        found.append(Measurement(case, "coverage_mean_of_clients", "share", spread, LEVEL, "nominal"))
        if classes:
            raw = [(replace(own, temperature=1.0), query) for own, query in adapted]
            for metric, of in (("ece", _pooled), ("ece_mean_of_clients", _mean_of_clients)):
                found.append(Measurement(case, metric, "", of(adapted), of(raw), "uncalibrated"))
    return found


def _adapted(published: PublishedModel, examples: Examples, shots: int) -> tuple[OwnModel, Examples]:
    support, query = first_shots(examples, shots, published.plan)
    own = candidates_for(published, support, FewShot.of(published.plan))[0].own
    assert own is not None
    return own, query


def _sums(own: OwnModel, query: Examples) -> Sums:
    return ClassificationSums.of(outputs_of(own, query), query.targets.astype(np.int64))


def _pooled(adapted: list[tuple[OwnModel, Examples]]) -> float:
    total: Sums = reduce(add, (_sums(own, query) for own, query in adapted))
    return total.metrics()["ece"]


def _mean_of_clients(adapted: list[tuple[OwnModel, Examples]]) -> float:
    return float(np.mean([_sums(own, query).metrics()["ece"] for own, query in adapted]))


def _coverage(own: OwnModel, query: Examples) -> tuple[float, int]:
    """Share of a client's later examples in set or interval, and how many there are."""
    raw = Answerer(own).raw(query.inputs)
    threshold = own.conformal.threshold(LEVEL)
    if own.regression:
        return float(np.mean(np.abs(raw - query.targets) <= threshold)), len(query)
    possible = own.conformal.sets(outputs_of(own, query), LEVEL)
    return float(possible[np.arange(len(query)), query.targets.astype(np.int64)].mean()), len(query)


def _promotions(name: str, newcomers: list[_Newcomer], few: int, many: int) -> list[Measurement]:
    """A version on few examples is in use: what the gate makes of three kinds of candidates, by later examples."""
    found = []
    for kind in ("more rows", "over-adapted", "spoilt targets"):
        judged = [_judged(one, few, many, kind) for one in newcomers]
        promoted, worse, clearly = (np.array(column) for column in zip(*judged, strict=True))
        case = f"{name}, {few} and then {many} shots, {kind}, {len(judged)} candidates"
        of = max(int(promoted.sum()), 1)
        found += [
            Measurement(case, "promoted", "share", float(promoted.mean()), 1.0, "no gate"),
            Measurement(case, "worse", "share", float((promoted & worse).mean()), float(worse.mean()), "no gate"),
            Measurement(
                case, "clearly_worse", "share", float((promoted & clearly).mean()), float(clearly.mean()), "no gate"
            ),
            Measurement(
                case, "clearly_worse_of_promoted", "share", float((promoted & clearly).sum() / of),
                float(clearly.mean()), "no gate",
            ),
        ]  # fmt: skip
    return found


def _judged(one: _Newcomer, few: int, many: int, kind: str) -> tuple[bool, bool, bool]:
    """Whether a candidate is promoted; whether it is worse on later examples than what is in use, and clearly so."""
    plan = one.published.plan
    first, _ = first_shots(one.examples, few, plan)
    support, query = first_shots(one.examples, many, plan)
    if kind == "spoilt targets":
        order = np.random.default_rng(len(support)).permutation(len(support))
        support = Examples(support.inputs, support.targets[order])
    in_use = candidates_for(one.published, first, FewShot.of(plan))[0]
    few_shot = FewShot.of(plan, OVER_ADAPTED if kind == "over-adapted" else None)
    candidate, before, majority = candidates_for(one.published, support, few_shot)
    unseen = _unseen_by(in_use, first, support)
    others = {"majority": majority.losses, "initialisation": before.losses, "in_use": unseen}
    harm = _losses(candidate, query) - _losses(in_use, query)
    error = harm.std(ddof=1) / np.sqrt(len(harm)) if len(harm) > 1 else np.inf
    promoted = judge(candidate.losses, others).promoted
    return promoted, bool(harm.mean() > 0), bool(harm.mean() > CLEAR * error)


def _unseen_by(in_use: Candidate, made_from: Examples, examples: Examples) -> np.ndarray:
    """Losses of the version in use; NaN for the examples that it was made from."""
    assert in_use.own is not None
    known = {one.tobytes() + target.tobytes() for one, target in zip(made_from.inputs, made_from.targets, strict=True)}
    keys = (one.tobytes() + target.tobytes() for one, target in zip(examples.inputs, examples.targets, strict=True))
    return np.where([key in known for key in keys], np.nan, losses_of(in_use.own, examples))


def _losses(candidate: Candidate, query: Examples) -> np.ndarray:
    assert candidate.own is not None
    return losses_of(candidate.own, query)
