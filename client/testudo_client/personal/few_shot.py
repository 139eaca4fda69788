"""Few-shot adaptation as the plan has it: from the meta-model, a few steps on a support set; and scores out of fold.

Knows no gate and no file. Sources: Nichol et al. 2018 (fine-tuning from the meta-initialisation); Stone 1974 (K-fold
cross-validation: every example is scored by a model that was not adapted on it).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testudo_client.personal.own_model import Answerer, OwnModel
from testudo_common.errors import DataError
from testudo_common.learning.conformal import Conformal
from testudo_common.learning.inner_loop import InnerLoop, LocalCentre, run_inner_loop
from testudo_common.learning.learner import Learner, read_parameters
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector

FOLDS = 5
_NO_SCORES = Conformal(np.empty(0), np.empty(0))


@dataclass(frozen=True, slots=True)
class FewShot:
    """How to adapt without privacy.

    Attributes:
        plan: Complete.
        loop: Of the plan's evaluation: whole support set in every step.
    """

    plan: FederationPlan
    loop: InnerLoop

    @classmethod
    def of(cls, plan: FederationPlan, steps: int | None = None) -> FewShot:
        """As the plan evaluates, or with so many steps."""
        evaluation = plan.evaluation
        rate = evaluation.learning_rate or plan.inner.learning_rate
        return cls(plan, InnerLoop(evaluation.steps if steps is None else steps, rate, 1.0))

    def adapted(self, learner: Learner, model: Vector, support: Examples) -> Answerer:
        """The model after the loop on ``support``; around the support set's centre.

        Args:
            learner: The plan's; left with the adapted parameters.
            model: ``float32[d]``.
            support: May be empty: the model as it is.

        Raises:
            ModelError: ``model`` does not fit the plan.
        """
        centre = LocalCentre.of(support, self.plan.task.local_centring)
        learner.start_from(model)
        run_inner_loop(learner, centre.subtract(support), self.loop, np.random.default_rng(self.plan.seed))
        parameters = read_parameters(learner.model.parameters())
        return Answerer(OwnModel(self.plan, parameters, centre, 1.0, _NO_SCORES))


def first_shots(examples: Examples, shots: int, plan: FederationPlan) -> tuple[Examples, Examples]:
    """The first ``shots`` examples (of each class, never more than half of it), and all others; both in their order."""
    if plan.task.kind == "regression":
        return examples.take(slice(0, shots)), examples.take(slice(shots, None))
    is_support = np.zeros(len(examples), dtype=np.bool_)
    for label in np.unique(examples.targets):
        rows = np.flatnonzero(examples.targets == label)
        is_support[rows[: min(shots, (len(rows) + 1) // 2)]] = True
    return examples.take(np.flatnonzero(is_support)), examples.take(np.flatnonzero(~is_support))


def folds_of(examples: Examples, folds: int = FOLDS) -> npt.NDArray[np.intp]:
    """``intp[n]``: the fold of each example: blocks that follow each other, so that neighbours are left out together.

    Examples of one hour or one week are alike, and whoever has met one of them knows the others (Roberts et al. 2017,
    Ecography 40). Of classes, each fold has a block of each.

    Args:
        examples: Two or more.
        folds: Fewer where no class has so many examples.

    Raises:
        DataError: Fewer than two examples.
    """
    if len(examples) < 2:
        raise DataError("out-of-fold scores need two examples", remedy="bring more rows")
    places = np.zeros(len(examples), dtype=np.intp)
    if examples.targets.dtype == np.float32:
        return _blocks(len(examples), min(folds, len(examples)))
    most = max(int((examples.targets == label).sum()) for label in np.unique(examples.targets))
    count = max(2, min(folds, most))
    for place, label in enumerate(np.unique(examples.targets)):
        rows = np.flatnonzero(examples.targets == label)
        blocks = _blocks(len(rows), min(count, len(rows)))
        places[rows] = (blocks + place) % count  # so that the only examples of small classes are not all in one fold
    return places


def _blocks(count: int, blocks: int) -> npt.NDArray[np.intp]:
    return (np.arange(count) * blocks) // count


def out_of_fold(learner: Learner, model: Vector, examples: Examples, few: FewShot) -> npt.NDArray[np.float32]:
    """Raw answers, each by a model that was not adapted on its example.

    Args:
        learner: The plan's; left with other parameters.
        model: ``float32[d]``.
        examples: Two or more.
        few: How to adapt.

    Returns:
        ``float32[n, C]`` logits, or ``float32[n]`` predictions in the plan's scaled target.

    Raises:
        DataError: Fewer than two examples.
        ModelError: ``model`` does not fit the plan.
    """
    raw: npt.NDArray[np.float32] | None = None
    for inside, outside in _splits(folds_of(examples)):
        found = few.adapted(learner, model, examples.take(inside)).raw(examples.inputs[outside])
        if raw is None:
            raw = np.empty((len(examples), *found.shape[1:]), dtype=np.float32)
        raw[outside] = found
    assert raw is not None  # there are two folds or more
    return raw


def out_of_fold_errors(learner: Learner, model: Vector, support: Examples, few: FewShot) -> npt.NDArray[np.float64]:
    """``float64[n]``: absolute errors out of fold, in the plan's scaled target; none for a single example."""
    if len(support) < 2:
        return np.empty(0)
    return np.abs(out_of_fold(learner, model, support, few).astype(np.float64) - support.targets)


def _splits(places: npt.NDArray[np.intp]) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    for fold in np.unique(places):
        yield np.flatnonzero(places != fold), np.flatnonzero(places == fold)
