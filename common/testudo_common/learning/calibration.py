"""How sure a classifier may be: one temperature that divides its logits, found from examples it was not trained on.

Source: Guo et al. 2017, arXiv:1706.04599 (temperature scaling). The prior is what many owners found out together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CalibrationPrior:
    """What a federation knows about models adapted on one support size.

    Attributes:
        shots: Support examples a class, or of a client for regression; None: half of a client's examples.
        log_temperature: Most likely, for classes; 0 for regression.
        scores: Histogram over equal bins of ``0..limit`` of the scores of nonconformity (see
            :class:`~testudo_common.learning.conformal.Conformal`), as shares of 1; empty: not known.
        limit: Upper end of the histogram: 1 for classes.
    """

    shots: int | None
    log_temperature: float
    scores: tuple[float, ...] = ()
    limit: float = 1.0


def tempered(logits: Logits, temperature: float) -> npt.NDArray[np.float32]:
    """``float32[n, C]``: probabilities of ``logits / temperature``.

    Args:
        logits: ``float32[n, C]``.
        temperature: Above 0; 1 changes nothing, more is less sure.
    """
    scaled = logits.astype(np.float64) / temperature
    exponent = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (exponent / exponent.sum(axis=1, keepdims=True)).astype(np.float32)  # type: ignore[no-any-return]
