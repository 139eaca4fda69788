"""Adapts one model to many unseen clients, and asks each adapted model: all at once, or one after the other.

Scores nothing, and decides neither how to adapt nor with which noise. Source: Nichol, Achiam, Schulman 2018 (Reptile,
section 6: few-shot evaluation).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt

from testudo_client.inner_jobs import InnerJob, plain_job, private_job
from testudo_client.train import Mechanism, run_private_inner_loop
from testudo_common.learning.inner_loop import InnerLoop, run_inner_loop
from testudo_common.learning.learner import Learner
from testudo_common.learning.tasks import Examples, Inputs
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector
from testudo_simulations.engine import Engine

Outputs = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What one model is made of the shared one, and what it is asked.

    Attributes:
        support: To train on, around the client's centre.
        queries: What the adapted model is asked, around the same centre.
        loop: How to train; of 0 steps, the shared model itself is asked.
        seeded: For the order of examples without privacy; several of one client draw from it in turn.
        mechanism: Of a private adaptation; None without privacy.
    """

    support: Examples
    queries: Inputs
    loop: InnerLoop
    seeded: np.random.Generator
    mechanism: Mechanism | None = None


class Adapter(Protocol):
    """The two ways, which give the same to rounding, and under noise the same distribution."""

    def outputs(self, model: Vector, adaptations: Iterable[Adaptation]) -> Iterator[Outputs]:
        """What ``Learner.outputs`` gives for the queries of each, adapted from ``model``; not finite if it diverged.

        Args:
            model: ``float32[d]``.
            adaptations: Taken as they are needed.

        Raises:
            ModelError: ``model`` is not a finite ``float32[d]``.
            DataError: A private adaptation has no examples.
        """


class OneByOne:
    """Each model by itself, with Opacus under privacy, as a client would."""

    def __init__(self, plan: FederationPlan) -> None:
        self._learner = Learner(plan)

    def outputs(self, model: Vector, adaptations: Iterable[Adaptation]) -> Iterator[Outputs]:
        """As in :class:`Adapter`."""
        for asked in adaptations:
            self._learner.start_from(model)
            if asked.mechanism is None:
                run_inner_loop(self._learner, asked.support, asked.loop, asked.seeded)
            else:
                run_private_inner_loop(self._learner, asked.support, asked.loop, asked.mechanism)
            yield self._learner.outputs(asked.queries)


class AtOnce:
    """As many models at once as the engine takes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def outputs(self, model: Vector, adaptations: Iterable[Adaptation]) -> Iterator[Outputs]:
        """As in :class:`Adapter`."""
        waiting = ((_job_of(asked), asked.queries) for asked in adaptations)
        for first in waiting:
            chunk = [first, *islice(waiting, self._engine.jobs_at_once(first[0]) - 1)]
            jobs, queries = zip(*chunk, strict=True)
            yield from self._engine.train(model, jobs).outputs(queries)


def adapter_of(plan: FederationPlan, engine: Engine | None) -> Adapter:
    """By the engine, where there is one for the plan's model."""
    return OneByOne(plan) if engine is None else AtOnce(engine)


def _job_of(asked: Adaptation) -> InnerJob:
    if asked.mechanism is None:
        return plain_job(asked.support, asked.loop, asked.seeded)
    return private_job(asked.support, asked.loop, asked.mechanism)
