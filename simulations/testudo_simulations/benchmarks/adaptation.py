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

from testudo_client.personal.adapting import Candidate, candidates_for, losses_of, outputs_of
from testudo_client.personal.few_shot import FewShot, first_shots
from testudo_client.personal.own_model import Answerer, OwnModel
from testudo_client.personal.promotion import judge
from testudo_common.learning.calibration import CalibrationPrior
from testudo_common.learning.metrics import ClassificationSums, Sums
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan
from testudo_common.publication import PublishedModel
from testudo_server.store import RunStore
from testudo_simulations.benchmarks.measure import Measurement
from testudo_simulations.federations import Federation, UnseenClient, load_federation
from testudo_simulations.federations.complete import with_participations
from testudo_simulations.inline_backend import computing_on, federate_in_process
from testudo_simulations.scenarios import find_plan

LEVEL = 0.9
QUARTERS = 4
HELD_BACK = 0.3
OVER_ADAPTED = 300  # steps, ten times the plan's: what calibration has to repair
SHOTS = {"activity": (1, 3, 5), "retail": (4, 8, 16), "sine": (5, 10)}


@dataclass(frozen=True, slots=True)
class _Newcomer:
    """A client that is judged, and the meta-model that it gets."""

    published: PublishedModel
    examples: Examples


def measure_adaptation(repeats: int, data: Mapping[str, Path]) -> list[Measurement]:
    """Every federation that there is data for, over all of its clients; ``repeats`` seeds."""
    chosen: dict[str, Path | None] = {name: data[name] for name in SHOTS if name in data} or {"sine": None}
    found = []
    for name, path in chosen.items():
        newcomers = [one for seed in range(repeats) for one in _newcomers(name, path, seed)]
        for shots in SHOTS[name]:
            found += _of_size(name, newcomers, shots)
        found += _promotions(name, newcomers, SHOTS[name][0], SHOTS[name][-1])
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
        published = _trained(whole, {client: one for client, one in clients.items() if client not in judged})
        yield from (_Newcomer(published, clients[client]) for client in judged)


def _joined(client: UnseenClient) -> Examples:
    """All examples of an unseen client, in the order of its support and then its query set."""
    if client.query is None:
        return client.support
    parts = (client.support, client.query)
    return Examples(np.concatenate([one.inputs for one in parts]), np.concatenate([one.targets for one in parts]))


def _trained(whole: Federation, training: Mapping[str, Examples]) -> PublishedModel:
    rounds = whole.plan.rounds.model_copy(update={"max_participations": None})
    plan = FederationPlan.model_validate({**dict(whole.plan), "rounds": rounds})
    federation = with_participations(replace(whole, plan=plan, training=training, unseen={}))
    with tempfile.TemporaryDirectory(prefix="testudo-") as folder:
        store = RunStore(Path(folder), durable=False)
        clients = Path(folder) / "clients"
        run = federate_in_process(federation, store, clients, masks=False, computing=computing_on("cpu", 1))
        found = store.records()[-1].calibration
    priors = tuple(CalibrationPrior.model_validate(one) for one in found)
    return PublishedModel(federation.plan, run.state.round, run.state.model, priors)


def _of_size(name: str, newcomers: list[_Newcomer], shots: int) -> list[Measurement]:
    """Calibration and coverage of one support size; as the plan adapts, and for classes also over-adapted."""
    classes = newcomers[0].published.plan.task.kind == "classification"
    found = []
    for steps in (None, OVER_ADAPTED) if classes and shots == max(SHOTS[name]) else (None,):
        adapted = [_adapted(one, shots, steps) for one in newcomers]
        covered, weights = zip(*(_coverage(own, query) for own, query in adapted), strict=True)
        case = f"{name}, {shots} shots" + ("" if steps is None else f", {steps} steps")
        mean = float(np.average(covered, weights=weights))
        found.append(Measurement(case, "coverage", "share", mean, LEVEL, "nominal"))
        spread = float(np.mean(covered))
        found.append(Measurement(case, "coverage_mean_of_clients", "share", spread, LEVEL, "nominal"))
        if classes:
            raw = [(replace(own, temperature=1.0), query) for own, query in adapted]
            for metric, of in (("ece", _pooled), ("ece_mean_of_clients", _mean_of_clients)):
                found.append(Measurement(case, metric, "", of(adapted), of(raw), "uncalibrated"))
    return found


def _adapted(one: _Newcomer, shots: int, steps: int | None) -> tuple[OwnModel, Examples]:
    support, query = first_shots(one.examples, shots, one.published.plan)
    own = candidates_for(one.published, support, FewShot.of(one.published.plan, steps))[0].own
    assert own is not None
    return own, query


def _sums(own: OwnModel, query: Examples) -> Sums:
    return ClassificationSums.of(outputs_of(own, query), query.targets.astype(np.int64))


def _pooled(adapted: list[tuple[OwnModel, Examples]]) -> float:
    total: Sums = reduce(add, (_sums(own, query) for own, query in adapted))  # type: ignore[arg-type]  # of one kind
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
    """A version on few examples, then a candidate on more, one over-adapted and one on spoilt targets: harm, by loss."""
    offered = harmful = promoted = harmful_ungated = 0
    for place, one in enumerate(newcomers):
        rng = np.random.default_rng(place)
        plan = one.published.plan
        first, _ = first_shots(one.examples, few, plan)
        support, query = first_shots(one.examples, many, plan)
        in_use = candidates_for(one.published, first, FewShot.of(plan))[0]
        spoilt = Examples(support.inputs, support.targets[rng.permutation(len(support))])
        for examples, steps in ((support, None), (support, OVER_ADAPTED), (spoilt, None)):
            candidate, before, majority = candidates_for(one.published, examples, FewShot.of(plan, steps))
            others = {
                "majority": majority.losses,
                "initialisation": before.losses,
                "in_use": _fairly(in_use, first, examples),
            }
            passed = judge(candidate.losses, others).promoted
            worse = _loss(candidate, query) > _loss(in_use, query)
            offered += 1
            promoted += passed
            harmful += passed and worse
            harmful_ungated += worse
    case = f"{name}, {few} and then {many} shots, {offered} candidates"
    return [
        Measurement(
            case, "harmful_of_promoted", "share", harmful / max(promoted, 1), harmful_ungated / offered, "no gate"
        ),
        Measurement(case, "promoted", "share", promoted / offered, 1.0, "no gate"),
    ]


def _fairly(in_use: Candidate, made_from: Examples, examples: Examples) -> np.ndarray:
    """Losses of the version in use: its own out-of-fold ones of examples that it was made from."""
    assert in_use.own is not None
    known = {
        one.tobytes() + target.tobytes(): loss
        for one, target, loss in zip(made_from.inputs, made_from.targets, in_use.losses, strict=True)
    }
    fresh = losses_of(in_use.own, examples)
    keys = (one.tobytes() + target.tobytes() for one, target in zip(examples.inputs, examples.targets, strict=True))
    return np.array([known.get(key, loss) for key, loss in zip(keys, fresh, strict=True)])


def _loss(candidate: Candidate, query: Examples) -> float:
    assert candidate.own is not None
    return float(losses_of(candidate.own, query).mean())
