"""Regression baselines: ridge and kernel ridge on the support, pooled slopes, empirical Bayes; all kept together.

No network and no federation. Penalties and length scales come from the training clients, which play the same
few-shot game among themselves. The methods are in local_regression.py and mixed_model.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from testudo_common.learning.tasks import Examples, Inputs
from testudo_simulations.baselines.base import Floats, Panel, flat, pooled
from testudo_simulations.baselines.local_regression import Method, Table, best_method, kernel_ridge, ridge
from testudo_simulations.baselines.mixed_model import Expand, MixedModel, fit_mixed_model

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
KERNEL_PENALTIES = (1e-3, 0.01, 0.1, 1.0)
KERNEL_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
FEATURE_SCALES = (0.25, 0.5, 1.0, 2.0)
FEATURES = 32
MAX_TUNING_CLIENTS = 60
MAX_KERNEL_ROWS = 500  # the newest of a support set: the cost grows with their cube
MAX_LINEAR_INPUTS = 200  # a covariance of more coefficients is slow, and hardly known from the data
MAX_FEATURE_INPUTS = 8  # random features of more inputs would need to be many more
MAX_FEATURE_CLIENTS = 300

LABELS = {
    "local_ridge": "local ridge regression",
    "local_kernel": "local kernel ridge regression",
    "pooled_slopes_local_mean": "pooled slopes, local mean",
    "empirical_bayes": "central empirical Bayes, linear",
    "empirical_bayes_features": "central empirical Bayes, random features",
}


def fit(training: Mapping[str, Examples], rng: np.random.Generator) -> Panel:
    """Fit what is pooled, and prepare to tune what is local.

    Args:
        training: Client id -> its examples, with float targets in the unit of the later predictions.
        rng: Draws random features, and the clients that settings are tuned on.
    """
    return Panel(LABELS, Regressions(training, rng).predict)


class Regressions:
    """All regression baselines, on inputs and targets standardised over the training clients."""

    def __init__(self, training: Mapping[str, Examples], rng: np.random.Generator) -> None:
        inputs, owners = pooled(training)
        targets = np.concatenate([training[client].targets for client in sorted(training)]).astype(np.float64)
        self._centre, self._scale = inputs.mean(axis=0), _nonzero(inputs.std(axis=0))
        self._target_centre, self._target_scale = targets.mean(), _nonzero(targets.std())
        inputs = (inputs - self._centre) / self._scale
        targets = (targets - self._target_centre) / self._target_scale
        order = rng.permutation(len(training))
        clients = [(inputs[owners == client], targets[owners == client]) for client in order]
        self._tuning = clients[:MAX_TUNING_CLIENTS]
        self._chosen: dict[tuple[str, int], Method] = {}
        self._slopes = _pooled_slopes(clients)
        self._ridges: list[Method] = [partial(ridge, penalty=penalty) for penalty in PENALTIES]
        self._kernels: list[Method] = [
            partial(kernel_ridge, scale=scale, penalty=penalty)
            for scale in KERNEL_SCALES
            for penalty in KERNEL_PENALTIES
        ]
        width = inputs.shape[1]
        self._linear = fit_mixed_model(clients, _linear) if width <= MAX_LINEAR_INPUTS else None
        frequencies = rng.normal(size=(width, FEATURES // 2)) / np.sqrt(width)
        self._featured = _Featured(clients, frequencies) if width <= MAX_FEATURE_INPUTS else None

    def predict(self, support: Examples, inputs: Inputs) -> dict[str, Floats]:
        """Name -> predictions ``float64[n]``; without support only empirical Bayes has an answer."""
        known = (flat(support.inputs) - self._centre) / self._scale  # [s, p]
        query = (flat(inputs) - self._centre) / self._scale  # [n, p]
        targets = (support.targets.astype(np.float64) - self._target_centre) / self._target_scale  # [s]
        found: dict[str, Floats] = {}
        if len(support):
            found["local_ridge"] = self._tuned("ridge", self._ridges, len(support))(known, targets, query)
            newest = slice(-MAX_KERNEL_ROWS, None)
            kernel = self._tuned("kernel", self._kernels, min(len(support), MAX_KERNEL_ROWS))
            found["local_kernel"] = kernel(known[newest], targets[newest], query)
            found["pooled_slopes_local_mean"] = (query - known.mean(axis=0)) @ self._slopes + targets.mean()
        if self._linear is not None:
            found["empirical_bayes"] = self._linear.predict(known, targets, query)
        if self._featured is not None:
            model = self._featured.for_support(len(support))
            found["empirical_bayes_features"] = model.predict(known, targets, query)
        return {name: values * self._target_scale + self._target_centre for name, values in found.items()}

    def _tuned(self, name: str, methods: Sequence[Method], size: int) -> Method:
        if (name, size) not in self._chosen:
            self._chosen[name, size] = methods[best_method(methods, self._tuning, size)]
        return self._chosen[name, size]


class _Featured:
    """Empirical Bayes on random Fourier features (Rahimi, Recht 2007): curves that clients share, such as sines.

    The length scale is chosen for every support size on a fifth of the clients that the prior was not fitted on.
    """

    def __init__(self, clients: Sequence[Table], frequencies: Floats) -> None:
        self._clients = clients[:MAX_FEATURE_CLIENTS]
        self._expansions: list[Expand] = [
            partial(_fourier, frequencies=frequencies / scale) for scale in FEATURE_SCALES
        ]
        kept = max(1, len(self._clients) // 5)
        self._kept, others = self._clients[:kept], self._clients[kept:] or self._clients
        self._trials: list[Method] = [fit_mixed_model(others, expand).predict for expand in self._expansions]
        self._fitted: dict[int, MixedModel] = {}

    def for_support(self, size: int) -> MixedModel:
        """The model with the best length scale for so many support examples, fitted on every client."""
        best = best_method(self._trials, self._kept, size)
        if best not in self._fitted:
            self._fitted[best] = fit_mixed_model(self._clients, self._expansions[best])
        return self._fitted[best]


def _linear(inputs: Floats) -> Floats:
    return np.concatenate([np.ones((len(inputs), 1)), inputs], axis=1)


def _fourier(inputs: Floats, *, frequencies: Floats) -> Floats:
    phases = inputs @ frequencies  # [n, FEATURES / 2]
    waves = np.concatenate([np.cos(phases), np.sin(phases)], axis=1) / np.sqrt(frequencies.shape[1])
    return np.concatenate([_linear(inputs), waves], axis=1)


def _pooled_slopes(clients: Sequence[Table]) -> Floats:
    """Least squares on data centred client by client: what inputs do within a client, whatever its level."""
    inputs = np.concatenate([inputs - inputs.mean(axis=0) for inputs, _ in clients])
    targets = np.concatenate([targets - targets.mean() for _, targets in clients])
    return np.asarray(np.linalg.lstsq(inputs, targets, rcond=None)[0])


def _nonzero(scale: Floats) -> Floats:
    return np.where(scale > 0, scale, 1.0)
