"""scikit-learn's digits, every client in a handwriting style of its own: rotation, slant, polarity, stroke.

A feature-shift federation that needs no download: the classes are shared, the way to draw them is not.
Training clients, the support and the query of unseen clients draw from disjoint base images. Source: Alpaydin
& Kaynak 1998, UCI Optical Recognition of Handwritten Digits (CC BY 4.0), 1797 images, from scikit-learn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import DigitsData
from testudo_simulations.federations.base import Federation, UnseenClient
from testudo_simulations.federations.complete import complete_plan
from testudo_simulations.federations.lazy import MadeWhenAsked

CLASSES = 10
TRAINING_IMAGES, SUPPORT_IMAGES = 1000, 400  # the other 397 are the pool of queries
QUERY_EXAMPLES = 200
_SOURCE_SIDE = 8
_MARGIN = 1.15  # the picture is this much wider than the digit's box, so that a rotation cuts off little
_POOLS, _TRAINING, _UNSEEN = 0, 1, 2  # streams of the plan's seed

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Style:
    """How one client writes.

    Attributes:
        rotation: Radians, counter-clockwise.
        slant: Shear: columns a row, before the rotation.
        gamma: Exponent on ink in [0, 1]; below 1 the stroke is thicker, above 1 thinner.
        white_on_black: Otherwise black on white.
    """

    rotation: float
    slant: float
    gamma: float
    white_on_black: bool


def load(plan: FederationPlan, data: DigitsData) -> Federation:
    """Simulate the federation from the plan's seed; a client does not depend on how many clients there are.

    Returns:
        Inputs ``float32[n, 1, side, side]`` in [-1, 1], targets 0..9. An unseen client's support is
        ``data.examples`` images, at most the 400 of its pool, in random order; its query is 200 images.

    Raises:
        PlanError: The plan states another shape for the model.
    """
    for_training, for_support, for_query = base_pools(plan.seed)

    def written_by(client: int) -> Examples:
        rng = np.random.default_rng([plan.seed, _TRAINING, client])
        style = draw_style(data, client, rng)
        return _write(for_training, data.examples, style, data.side, rng)

    unseen = {}
    for client in range(data.unseen_clients):
        rng = np.random.default_rng([plan.seed, _UNSEEN, client])
        style = draw_style(data, client, rng)
        support = _write(for_support, data.examples, style, data.side, rng)
        query = _write(for_query, QUERY_EXAMPLES, style, data.side, rng)
        unseen[f"unseen-{client:06d}"] = UnseenClient(support, query)
    return Federation(
        complete_plan(plan, (1, data.side, data.side), CLASSES),
        MadeWhenAsked("writer", data.clients, written_by),
        unseen,
        source="scikit-learn digits (Alpaydin & Kaynak 1998, CC BY 4.0), styles simulated from the seed",
    )


def draw_style(data: DigitsData, client: int, rng: np.random.Generator) -> Style:
    """The style of the ``client``-th writer; with polarity, every other one writes white on black."""
    limit = math.radians(data.rotation_degrees)
    rotation, slant = rng.uniform(-limit, limit), rng.uniform(-data.slant, data.slant)
    gamma = 2.0 ** rng.uniform(-1.0, 1.0)  # drawn in any case, so that turning stroke off changes nothing else
    return Style(rotation, slant, gamma if data.stroke else 1.0, data.polarity and client % 2 == 1)


def render(ink: Pixels, style: Style, side: int) -> Pixels:
    """Write digits in a style.

    Args:
        ink: ``float32[n, 64]`` in [0, 1], rows of 8 x 8 pictures, 1 is ink.
        style: The client's.
        side: Pixels a side of the result.

    Returns:
        ``float32[n, 1, side, side]`` in [-1, 1].
    """
    # rotating and enlarging is linear in the pixels: one matrix for all of a client's images; einsum and not @,
    # since BLAS's threads cost more than so small a product and would make its last bits depend on their number
    resampled = np.einsum("np,qp->nq", ink, _resampling(style, side))
    written = np.clip(resampled, 0.0, 1.0) ** np.float32(style.gamma)
    brightness = written if style.white_on_black else 1.0 - written
    return np.asarray(2.0 * brightness - 1.0, dtype=np.float32).reshape(-1, 1, side, side)


def _resampling(style: Style, side: int) -> Pixels:
    """``float32[side**2, 64]``: bilinear weights of every source pixel in every pixel of the result."""
    # places of the result's pixels, from the centre, in source pixels
    place = ((np.arange(side) + 0.5) / side - 0.5) * _SOURCE_SIDE * _MARGIN
    down, right = (axis.ravel() for axis in np.meshgrid(place, place, indexing="ij"))
    cos, sin = math.cos(style.rotation), math.sin(style.rotation)
    row = cos * down + sin * right  # the inverse transform: where in the source does this pixel come from
    column = cos * right - sin * down + style.slant * row
    source = np.arange(_SOURCE_SIDE) + 0.5 - _SOURCE_SIDE / 2
    by_row = np.maximum(0.0, 1.0 - np.abs(row[:, np.newaxis] - source))  # [side**2, 8]
    by_column = np.maximum(0.0, 1.0 - np.abs(column[:, np.newaxis] - source))
    weights = by_row[:, :, np.newaxis] * by_column[:, np.newaxis, :]  # [side**2, 8, 8]
    return np.asarray(weights.reshape(side * side, -1), dtype=np.float32)


def _write(pool: Examples, count: int, style: Style, side: int, rng: np.random.Generator) -> Examples:
    chosen = pool.take(rng.permutation(len(pool))[:count])
    return Examples(render(chosen.inputs, style, side), chosen.targets)


def base_pools(seed: int) -> tuple[Examples, Examples, Examples]:
    """Images for training, for support and for query: disjoint, every class in the same share.

    Returns:
        Inputs ``float32[n, 64]`` in [0, 1], 8 x 8 pictures row by row, 1 is ink; n is 1000, 400, 397.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    base = Examples((images / 16.0).astype(np.float32), labels.astype(np.int64))
    shuffled = np.random.default_rng([seed, _POOLS]).permutation(len(labels))
    used = np.empty(len(labels))  # share of its class that comes before an image
    for label in range(CLASSES):
        rows = shuffled[labels[shuffled] == label]
        used[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    ranked = shuffled[np.argsort(used[shuffled], kind="stable")]
    training, support, query = np.split(ranked, [TRAINING_IMAGES, TRAINING_IMAGES + SUPPORT_IMAGES])
    return base.take(training), base.take(support), base.take(query)
