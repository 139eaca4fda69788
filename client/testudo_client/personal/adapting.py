"""A meta-model made an owner's own: adapted, calibrated, and compared with what could be used instead.

Reads no file and decides nothing: what the comparison means, promotion.py says. Everything that is compared was scored
on examples that it was not made from. Sources: Nichol et al. 2018; out-of-fold temperature with the federation's prior
(calibration.py); Vovk et al. 2005 (conformal sets).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from testudo_client.personal.few_shot import FewShot, folds_of, out_of_fold
from testudo_client.personal.own_model import Answerer, OwnModel
from testudo_client.personal.sureness import sureness
from testudo_client.personal.versions import Contender
from testudo_client.train import Mechanism, run_private_inner_loop
from testudo_common.learning.calibration import (
    CalibrationPrior,
    conformal_of_errors,
    nearest_prior,
    tempered,
)
from testudo_common.learning.inner_loop import InnerLoop, LocalCentre
from testudo_common.learning.learner import Learner, read_parameters
from testudo_common.learning.metrics import ClassificationSums, RegressionSums
from testudo_common.learning.tasks import Examples
from testudo_common.publication import PublishedModel

Numbers = npt.NDArray[np.float64]
_LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to answer, and how it did on each example out of fold.

    Attributes:
        own: How it answers; None for the majority guess, which is only compared with.
        contender: Its scores.
        losses: ``float64[n]``: log loss of calibrated probabilities, or squared error in the scaled target.
        outputs: ``float32[n, C]`` calibrated probabilities or ``float32[n, 1]`` scaled predictions, out of fold.
    """

    own: OwnModel | None = field(repr=False)
    contender: Contender
    losses: Numbers = field(repr=False)
    outputs: npt.NDArray[np.float32] = field(repr=False)


def support_size(examples: Examples, *, regression: bool) -> float:
    """Examples of a client, or the mean of a class that it has."""
    if regression:
        return float(len(examples))
    return len(examples) / max(1, len(np.unique(examples.targets)))


def candidates_for(
    published: PublishedModel, examples: Examples, few: FewShot, mechanism: Mechanism | None = None
) -> tuple[Candidate, Candidate, Candidate]:
    """The adapted model, the meta-model as it is, and the majority guess.

    With a ``mechanism`` the adapted model is made by DP-SGD, and nothing else in it is made from the examples:
    temperature and scores are the federation's alone, and plans that centre are never private. How it did out of fold
    is without privacy, and has to stay with the owner.

    Args:
        published: The meta-model.
        examples: The owner's own, two or more, in their order.
        few: How to adapt.
        mechanism: Of a private adaptation; None: without privacy.

    Raises:
        DataError: Fewer than two examples.
        ModelError: The meta-model does not fit its plan.
    """
    learner = Learner(published.plan)
    shots = support_size(examples, regression=learner.regression)
    same_steps = few.loop.steps == published.plan.evaluation.steps  # with more of them, models are surer of themselves
    prior = nearest_prior(published.priors, shots) if same_steps else None
    adapted = _candidate("adapted", learner, published, examples, few, prior, mechanism)
    as_it_is = replace(few, loop=replace(few.loop, steps=0))
    before = _candidate("initialisation", learner, published, examples, as_it_is, None, None)
    return adapted, before, _majority(learner, examples, published)


def losses_of(own: OwnModel, examples: Examples) -> Numbers:
    """``float64[n]``: the loss of each example, none of which the model was made from."""
    return _losses(outputs_of(own, examples), examples, regression=own.regression)


def outputs_of(own: OwnModel, examples: Examples) -> npt.NDArray[np.float32]:
    """``float32[n, C]`` calibrated probabilities, or ``float32[n, 1]`` predictions in the plan's scaled target."""
    return _outputs(own, Answerer(own).raw(examples.inputs))


def scored(name: str, losses: Numbers, outputs: npt.NDArray[np.float32], examples: Examples) -> Contender:
    """Losses and outputs as a contender."""
    if examples.targets.dtype == np.float32:
        metrics = RegressionSums.of(outputs[:, 0], examples.targets.astype(np.float32)).metrics()
    else:
        metrics = ClassificationSums.of(outputs, examples.targets.astype(np.int64)).metrics()
    return Contender(name=name, metrics=metrics, loss=float(losses.mean()), examples=len(losses))


def _candidate(
    name: str,
    learner: Learner,
    published: PublishedModel,
    examples: Examples,
    few: FewShot,
    prior: CalibrationPrior | None,
    mechanism: Mechanism | None,
) -> Candidate:
    raw = out_of_fold(learner, published.model, examples, few)
    if mechanism is None:
        own = few.adapted(learner, published.model, examples).own
    else:
        own = _privately(learner, published, examples, few, mechanism)
    seen = slice(None) if mechanism is None else slice(0, 0)
    temperature, conformal = sureness(published.plan, prior, raw[seen], examples.take(seen))
    own = replace(own, temperature=temperature, conformal=conformal)
    outputs = _outputs(own, raw)
    losses = _losses(outputs, examples, regression=learner.regression)
    return Candidate(own, scored(name, losses, outputs, examples), losses, outputs)


def _privately(
    learner: Learner, published: PublishedModel, examples: Examples, few: FewShot, mechanism: Mechanism
) -> OwnModel:
    """By DP-SGD, as the plan's rounds train: with its sample rate, around the owner's centre."""
    centre = LocalCentre.of(examples, published.plan.task.local_centring)
    learner.start_from(published.model)
    inner = published.plan.inner
    loop = InnerLoop(few.loop.steps, few.loop.learning_rate, inner.sample_rate)
    run_private_inner_loop(learner, centre.subtract(examples), loop, mechanism)
    parameters = read_parameters(learner.model.parameters())
    return OwnModel(published.plan, parameters, centre, 1.0, conformal_of_errors(np.empty(0), None))


def _majority(learner: Learner, examples: Examples, published: PublishedModel) -> Candidate:
    """Frequencies of the classes (with one example more of each), or the mean; out of fold as the others."""
    places = folds_of(examples)
    classes = published.plan.model.outputs or 1
    outputs = np.empty((len(examples), 1 if learner.regression else classes), dtype=np.float32)
    for fold in np.unique(places):
        inside, outside = places != fold, places == fold
        if learner.regression:
            outputs[outside] = examples.targets[inside].mean()
        else:
            counts = np.bincount(examples.targets[inside].astype(np.int64), minlength=classes) + 1.0
            outputs[outside] = counts / counts.sum()
    losses = _losses(outputs, examples, regression=learner.regression)
    return Candidate(None, scored("majority", losses, outputs, examples), losses, outputs)


def _outputs(own: OwnModel, raw: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return raw[:, None] if own.regression else tempered(raw, own.temperature)


def _losses(outputs: npt.NDArray[np.float32], examples: Examples, *, regression: bool) -> Numbers:
    exact = outputs.astype(np.float64)
    if regression:
        return np.square(exact[:, 0] - examples.targets)
    true = np.take_along_axis(exact, examples.targets.astype(np.int64)[:, None], axis=1)[:, 0]
    return -np.log(np.maximum(true, _LEAST_PROBABILITY))
