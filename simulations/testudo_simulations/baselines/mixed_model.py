"""Empirical Bayes for a linear mixed model: what all clients' coefficients look like, and one client's given that.

Client c has coefficients ``b_c ~ N(mean, covariance)`` and targets ``y = phi(x) b_c + noise``. The mean, the
covariance and the noise are fitted by EM on all training clients in one place: no federation, no privacy.
Source: Laird and Ware 1982, Biometrics 38 (random-effects models by EM).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from testudo_simulations.baselines.base import Floats
from testudo_simulations.baselines.local_regression import Table

ITERATIONS = 60
MIN_VARIANCE = 1e-6  # of standardised targets; keeps a noiseless or constant federation solvable

Expand = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class MixedModel:
    """The fitted prior.

    Attributes:
        expand: From inputs ``float64[n, p]`` to ``phi(x)``, ``float64[n, d]``.
        mean: ``float64[d]``, prior mean of a client's coefficients.
        precision: ``float64[d, d]``, inverse of their prior covariance.
        noise_variance: Of a target around its client's line, in the target's unit squared.
    """

    expand: Expand
    mean: Floats
    precision: Floats
    noise_variance: float

    def predict(self, inputs: Floats, targets: Floats, query: Floats) -> Floats:
        """Predictions with the posterior mean of the client's coefficients.

        Args:
            inputs: ``float64[n, p]``; n may be 0, and the prior mean predicts.
            targets: ``float64[n]``.
            query: ``float64[q, p]``.

        Returns:
            ``float64[q]``.
        """
        known = self.expand(inputs)  # [n, d]
        gram = self.precision + known.T @ known / self.noise_variance
        moment = self.precision @ self.mean + known.T @ targets / self.noise_variance
        return np.asarray(self.expand(query) @ np.linalg.solve(gram, moment))


def fit_mixed_model(clients: Sequence[Table], expand: Expand) -> MixedModel:
    """Fit the prior by EM.

    Args:
        clients: One or more (inputs ``float64[n, p]``, targets ``float64[n]``), roughly standardised.
        expand: The features the model is linear in; the first should be 1.
    """
    designs = [expand(inputs) for inputs, _ in clients]
    grams = np.stack([design.T @ design for design in designs])  # [c, d, d]
    moments = np.stack([design.T @ targets for design, (_, targets) in zip(designs, clients, strict=True)])  # [c, d]
    squares = sum(float(targets @ targets) for _, targets in clients)
    count = sum(len(targets) for _, targets in clients)
    size = grams.shape[1]
    mean: Floats = np.linalg.solve(grams.sum(axis=0) + np.eye(size), moments.sum(axis=0))
    covariance, noise = np.eye(size), 0.5
    for _ in range(ITERATIONS):
        precision = np.linalg.inv(covariance)
        posterior = np.linalg.inv(precision + grams / noise)  # [c, d, d]
        coefficients = np.einsum("cij,cj->ci", posterior, precision @ mean + moments / noise)  # [c, d]
        fitted = np.einsum("cij,cj->ci", grams, coefficients)
        residual = squares - 2 * (coefficients * moments).sum() + (coefficients * fitted).sum()
        noise = max(float(residual + np.einsum("cij,cji->", posterior, grams)) / count, MIN_VARIANCE)
        mean = np.asarray(coefficients.mean(axis=0), dtype=np.float64)
        spread = coefficients - mean
        covariance = posterior.mean(axis=0) + spread.T @ spread / len(spread) + MIN_VARIANCE * np.eye(size)
    return MixedModel(expand, mean, np.asarray(np.linalg.inv(covariance), dtype=np.float64), noise)
