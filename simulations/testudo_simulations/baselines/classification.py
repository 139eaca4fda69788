"""Classification baselines: forests on the client's own support, on all training clients, and on both.

No network and no federation. Sources: Breiman 2001 (random forests), Geurts, Ernst, Wehenkel 2006 (extremely
randomised trees), scikit-learn for both. Forests rather than networks, because on small tables nothing
simple beats them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from testudo_common.learning.tasks import Examples, Inputs
from testudo_simulations.baselines.base import Floats, Panel, flat, pooled_rows

LOCAL_TREES, FEW_EXAMPLES = 200, 60  # from so many examples on, half of the trees cost at most a point
POOLED_TREES = 100  # of each kind
# rows matter: digits, not adapted, 0.89 from 4,000 of them and 0.95 from 20,000 (extremely randomised trees)
MAX_POOLED_ROWS = 20_000
MAX_RANDOM_FOREST_ROWS = 4000  # above it a random forest costs four times the other kind, and did worse
MIN_LEAF = 3

LABELS = {
    "local_forest": "local forest",
    "pooled_forest": "pooled forest, not adapted",
    "pooled_forest_upweighted": "pooled forest, support up-weighted",
    "pooled_and_local_forest": "pooled forest, support up-weighted, with local forest",
}


def fit(training: Mapping[str, Examples], classes: int, rng: np.random.Generator) -> Panel:
    """Fit the pooled forest.

    Args:
        training: Client id -> its examples; targets are class numbers below ``classes``.
        classes: C. Predictions are over all of them, also where a client or the whole pool lacks some.
        rng: Draws the pooled rows and the seeds of the forests.
    """
    return Panel(LABELS, Forests(training, classes, rng).predict)


class Forests:
    """The pooled forest, and how a client's support set joins it.

    The pooled forest is extremely randomised trees, and on a small pool a random forest in equal part: each
    was better than the other on one of our two federations. Classes weigh the same, as in balanced accuracy.
    Its probabilities are not calibrated: compare it by accuracy, not by calibration error.

    Up-weighting re-counts leaves: the support set falls through the trees as they are, and is added to the
    class counts of its leaves, each example with the weight of a whole pooled class. Growing a new forest
    for every client was as good on activity, at over ten times the cost.
    """

    def __init__(self, training: Mapping[str, Examples], classes: int, rng: np.random.Generator) -> None:
        self._classes = classes
        self._seed = int(rng.integers(2**31))
        total = sum(len(examples) for examples in training.values())
        rows = np.sort(rng.permutation(total)[:MAX_POOLED_ROWS])
        inputs, targets = pooled_rows(training, rows)
        small = len(rows) <= MAX_RANDOM_FOREST_ROWS
        kinds = (RandomForestClassifier, ExtraTreesClassifier) if small else (ExtraTreesClassifier,)
        settings = {"min_samples_leaf": MIN_LEAF, "class_weight": "balanced", "random_state": self._seed}
        self._forests = [
            forest(n_estimators=POOLED_TREES, n_jobs=1, **settings).fit(inputs, targets) for forest in kinds
        ]
        self._counts = [self._leaf_counts(forest) for forest in self._forests]
        # every class present weighs the same under class_weight="balanced", and all rows weigh 1 on average
        self._class_weight = len(rows) / len(np.unique(targets))

    def predict(self, support: Examples, inputs: Inputs) -> dict[str, Floats]:
        """Name -> probabilities ``float64[n, C]``; the pooled forest alone where the support set is empty."""
        query = flat(inputs)
        predictions = {"pooled_forest": self._pooled(np.empty((0, query.shape[1])), None, query)}
        if len(support):
            local = self._local(support, query)
            weighted = self._pooled(flat(support.inputs), support.targets.astype(np.int64), query)
            predictions["local_forest"] = local
            predictions["pooled_forest_upweighted"] = weighted
            predictions["pooled_and_local_forest"] = (local + weighted) / 2
        return predictions

    def _local(self, support: Examples, query: Floats) -> Floats:
        # extremely randomised trees: at every support size better than a random forest, on both federations
        trees = LOCAL_TREES if len(support) < FEW_EXAMPLES else LOCAL_TREES // 2
        forest = ExtraTreesClassifier(n_estimators=trees, n_jobs=1, random_state=self._seed)
        forest.fit(flat(support.inputs), support.targets)
        probabilities = np.zeros((len(query), self._classes))
        probabilities[:, forest.classes_] = forest.predict_proba(query)
        return probabilities

    def _leaf_counts(self, forest: RandomForestClassifier | ExtraTreesClassifier) -> list[Floats]:
        """For every tree the weight of each class in each node: ``float64[nodes, C]``."""
        counts = []
        for one in forest.estimators_:
            shares, weights = one.tree_.value[:, 0, :], one.tree_.weighted_n_node_samples
            count = np.zeros((len(weights), self._classes))
            # scikit-learn 1.3 and later store shares, earlier ones weights; dividing makes both shares
            count[:, forest.classes_] = shares / shares.sum(axis=1, keepdims=True) * weights[:, np.newaxis]
            counts.append(count)
        return counts

    def _pooled(self, support: Floats, targets: npt.NDArray[np.int64] | None, query: Floats) -> Floats:
        """Probabilities of the pooled forest after the support set was added to the counts of its leaves."""
        added = np.zeros((len(support), self._classes))  # [s, C]
        if targets is not None:
            added[np.arange(len(targets)), targets] = self._class_weight
        total = np.zeros((len(query), self._classes))
        for forest, counts in zip(self._forests, self._counts, strict=True):
            leaves = forest.apply(np.concatenate([support, query]))  # [s + n, trees]
            for tree, count in enumerate(counts):
                recounted = count.copy()
                np.add.at(recounted, leaves[: len(support), tree], added)
                of_query = recounted[leaves[len(support) :, tree]]  # [n, C]
                total += of_query / of_query.sum(axis=1, keepdims=True)
        return np.asarray(total / total.sum(axis=1, keepdims=True))
