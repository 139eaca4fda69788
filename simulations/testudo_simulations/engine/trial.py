"""Whether a batched model does what the module does by itself: found out before a run, and not in a round of it."""

from __future__ import annotations

import numpy as np
import torch

from testudo_client.inner_jobs import plain_job, private_job
from testudo_client.train import Mechanism, noise_generator, run_private_inner_loop
from testudo_common.errors import ModelError, PrivacyError
from testudo_common.learning.inner_loop import InnerLoop, run_inner_loop
from testudo_common.learning.learner import Learner, read_parameters, write_parameters
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector
from testudo_simulations.engine.batched import BatchedModel
from testudo_simulations.engine.chunk import train_chunk

_LOOP = InnerLoop(steps=2, learning_rate=0.1, sample_rate=0.7)
_COUNTS = (5, 3)  # examples of the two clients, so that one's batches have to be filled up
_REMEDY = "its clients can be trained one by one"


def try_out(model: BatchedModel, plan: FederationPlan, like: torch.Tensor, *, private: bool) -> None:
    """Train two clients for two steps, together and by themselves.

    Args:
        model: The plan's.
        plan: The plan.
        like: Has the type and the device of the weights.
        private: By DP-SGD, without noise.

    Raises:
        ModelError: The model cannot be trained like this, or becomes something else by it.
    """
    learner = Learner(plan)
    start = read_parameters(learner.model.parameters())
    examples = [_examples(plan, count) for count in _COUNTS]
    jobs = [
        private_job(own, _LOOP, _mechanism(count)) if private else plain_job(own, _LOOP, np.random.default_rng(count))
        for count, own in zip(_COUNTS, examples, strict=True)
    ]
    kept = [buffer.clone() for buffer in learner.model.buffers()]
    try:
        with torch.random.fork_rng(devices=[]):
            together = train_chunk(model, torch.from_numpy(start).to(like), jobs).float().cpu().numpy()
            alone = [_alone(learner, start, own, private=private) for own in examples]
    except PrivacyError as error:
        raise ModelError(error.problem, where=error.where, remedy=error.remedy) from error
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ModelError(
            f"{plan.model.name!r} cannot be trained for many clients at once ({type(error).__name__})",
            where="model.name",
            remedy=_REMEDY,
        ) from error
    changed = any(not torch.equal(*pair) for pair in zip(kept, learner.model.buffers(), strict=True))
    if changed or not np.allclose(together - start, np.stack(alone) - start, rtol=1e-2, atol=1e-5):
        raise ModelError(
            f"{plan.model.name!r} becomes something else where many clients are trained at once",
            where="model.name",
            remedy=_REMEDY,
        )


def _examples(plan: FederationPlan, count: int) -> Examples:
    assert plan.model.inputs is not None
    assert plan.model.outputs is not None
    rng = np.random.default_rng(count)
    inputs = rng.random((count, *plan.model.inputs), dtype=np.float32)
    if plan.task.kind == "regression":
        return Examples(inputs, rng.random(count, dtype=np.float32))
    return Examples(inputs, rng.integers(0, plan.model.outputs, count))


def _mechanism(seed: int) -> Mechanism:
    return Mechanism(0.0, 1.0, noise_generator(), np.random.default_rng(seed))


def _alone(learner: Learner, start: Vector, examples: Examples, *, private: bool) -> Vector:
    write_parameters(learner.model.parameters(), start)
    if private:
        run_private_inner_loop(learner, examples, _LOOP, _mechanism(len(examples)))
    else:
        run_inner_loop(learner, examples, _LOOP, np.random.default_rng(len(examples)))
    return read_parameters(learner.model.parameters())
