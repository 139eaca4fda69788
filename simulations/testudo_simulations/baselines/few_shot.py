"""Few-shot baselines for images: the nearest neighbour with no learning, and a pooled network's nearest centroid.

No episodes in training, no adaptation and no federation. Sources: Lake et al. 2015 (nearest neighbour on
Omniglot); Snell et al. 2017 (nearest centroid); Chen et al. 2019, "A closer look at few-shot classification"
(a network trained on all classes at once is hard to beat). The network is in pooled_network.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, shift

from testudo_common.errors import DataError
from testudo_common.learning.tasks import Examples, Inputs, draw_episode
from testudo_simulations.baselines.base import Floats, Panel
from testudo_simulations.baselines.pooled_network import train_pooled_network

BLUR = 0.05  # of the side: on Omniglot 0.04 and 0.06 were the best of five, at 14 and at 28 pixels
TEMPERATURES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
TUNING_EPISODES = 30
TUNING_QUERIES = 5

LABELS = {
    "nearest_neighbour_1": "nearest neighbour, centred and blurred, no learning",
    "pooled_cnn_centroid": "pooled network, nearest centroid",
}

Images = npt.NDArray[np.float32]
Features = Callable[[Inputs], Floats]  # images [n, c, h, w] -> rows of length 1 [n, f]
Similarities = Callable[[Floats, npt.NDArray[np.int64], Floats, int], Floats]  # ... -> [n, ways]


def fit(training: Mapping[str, Examples], ways: int, rng: np.random.Generator) -> Panel:
    """Train the pooled network, and measure the mean image.

    Args:
        training: Client id -> images ``float32[n, c, h, w]`` and class numbers; a class number of one client
            and the same number of another are different classes.
        ways: Classes an episode.
        rng: Seeds the network and the episodes that temperatures are tuned on.

    Raises:
        DataError: The inputs are not images.
    """
    sets = [training[client] for client in sorted(training)]
    if any(examples.inputs.ndim != 4 for examples in sets):
        raise DataError("few-shot baselines read images of shape [n, channels, height, width]")
    images = np.concatenate([examples.inputs for examples in sets])
    cleaned = centred_and_blurred(images)
    mean_image = cleaned.mean(axis=0)
    network = train_pooled_network(images, _distinct_classes(sets), int(rng.integers(2**31)))

    def pixels(inputs: Inputs) -> Floats:
        return _unit_rows(centred_and_blurred(inputs) - mean_image)

    def activations(inputs: Inputs) -> Floats:
        return _unit_rows(network(inputs))

    neighbour = _Classifier(pixels, nearest_neighbour, sets, ways, int(rng.integers(2**31)))
    centroid = _Classifier(activations, nearest_centroid, sets, ways, int(rng.integers(2**31)))

    def predict(support: Examples, inputs: Inputs) -> dict[str, Floats]:
        if not len(support):
            return {}
        return {
            "nearest_neighbour_1": neighbour.predict(support, inputs),
            "pooled_cnn_centroid": centroid.predict(support, inputs),
        }

    return Panel(LABELS, predict)


def centred_and_blurred(images: Images) -> Images:
    """Every image moved so that its ink has its centre in the middle, then blurred a little.

    Args:
        images: ``float32[n, c, h, w]``; an image's least value is taken to be paper.

    Returns:
        ``float32[n, c, h, w]``. Two drawings of one character seldom lie on top of each other; now they do.
    """
    height, width = images.shape[2:]
    ink = images - images.min(axis=(1, 2, 3), keepdims=True, initial=np.inf)
    mass = np.maximum(ink.sum(axis=(1, 2, 3)), 1e-9)
    rows = (ink.sum(axis=(1, 3)) @ np.arange(height)) / mass
    columns = (ink.sum(axis=(1, 2)) @ np.arange(width)) / mass
    moves = np.stack([(height - 1) / 2 - rows, (width - 1) / 2 - columns], axis=1)  # [n, 2]
    moves[ink.sum(axis=(1, 2, 3)) == 0] = 0  # a blank image has no centre
    moved = np.empty_like(ink)
    for place, (down, right) in enumerate(moves):
        moved[place] = shift(ink[place], (0, down, right), order=1)
    blurred: Images = gaussian_filter(moved, (0, 0, BLUR * height, BLUR * width))
    return blurred


def nearest_neighbour(support: Floats, labels: npt.NDArray[np.int64], query: Floats, ways: int) -> Floats:
    """Cosine similarity of each query to the most similar support example of each class: ``float64[q, ways]``.

    Args:
        support: ``float64[s, f]``, rows of length 1.
        labels: ``int64[s]`` in 0..ways-1.
        query: ``float64[q, f]``, rows of length 1.
        ways: Classes; one without support gets -1, the least similarity there is.
    """
    similar = query @ support.T  # [q, s]
    per_class = [similar[:, labels == label].max(axis=1, initial=-1.0) for label in range(ways)]
    return np.stack(per_class, axis=1)


def nearest_centroid(support: Floats, labels: npt.NDArray[np.int64], query: Floats, ways: int) -> Floats:
    """Cosine similarity of each query to the mean support example of each class; arguments as above."""
    similar = np.full((len(query), ways), -1.0)
    for label in np.unique(labels):
        centroid = support[labels == label].mean(axis=0)
        similar[:, label] = query @ (centroid / max(float(np.linalg.norm(centroid)), 1e-12))
    return similar


class _Classifier:
    """Similarities made into probabilities, at a temperature tuned on episodes of the training clients."""

    def __init__(
        self, features: Features, similarities: Similarities, training: list[Examples], ways: int, seed: int
    ) -> None:
        self._features = features
        self._similarities = similarities
        self._training = training
        self._ways = ways
        self._seed = seed
        self._temperatures: dict[int, float] = {}

    def predict(self, support: Examples, inputs: Inputs) -> Floats:
        """Probabilities ``float64[n, ways]``."""
        shots = max(1, len(support) // self._ways)
        if shots not in self._temperatures:
            self._temperatures[shots] = self._tune(shots)
        return _softmax(self._similar(support, inputs) / self._temperatures[shots])

    def _similar(self, support: Examples, inputs: Inputs) -> Floats:
        labels = support.targets.astype(np.int64)
        return self._similarities(self._features(support.inputs), labels, self._features(inputs), self._ways)

    def _tune(self, shots: int) -> float:
        """The temperature with the least log loss; it moves calibration and the Brier score, never accuracy."""
        rng = np.random.default_rng([self._seed, shots])
        similar, targets = [], []
        for _ in range(TUNING_EPISODES):
            pool = self._training[int(rng.integers(len(self._training)))]
            try:
                support, query = draw_episode(pool, self._ways, shots, TUNING_QUERIES, rng)
            except DataError:  # this client is too small for such an episode, others may not be
                continue
            similar.append(self._similar(support, query.inputs))
            targets.append(query.targets.astype(np.int64))
        if not similar:
            return 0.1
        scores, truth = np.concatenate(similar), np.concatenate(targets)
        losses = [
            -np.log(np.maximum(_softmax(scores / temperature)[np.arange(len(truth)), truth], 1e-12)).mean()
            for temperature in TEMPERATURES
        ]
        return TEMPERATURES[int(np.argmin(losses))]


def _distinct_classes(sets: list[Examples]) -> npt.NDArray[np.int64]:
    """``int64[n]``: 0.. over all clients, so that no two clients share a class."""
    numbers, first = [], 0
    for examples in sets:
        labels, places = np.unique(examples.targets, return_inverse=True)
        numbers.append(first + places)
        first += len(labels)
    return np.concatenate(numbers).astype(np.int64)


def _unit_rows(values: npt.NDArray[np.float32]) -> Floats:
    rows = values.reshape(len(values), -1).astype(np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _softmax(scores: Floats) -> Floats:
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
