"""The same rounds on pfl-research, Apple's simulator (``pfl``, from the extra ``bench``); see Granqvist et al. 2024.

Set up as its own benchmarks are: tensors made once and sliced, an SGD optimiser at the clients, weights by user, a
simulated backend in this process. It evaluates clients in its first round, whatever it is asked; so that round has
three clients, and is the warm-up.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import torch
from torch import nn

from testudo_common.learning.learner import as_tensors
from testudo_common.learning.models import build_model
from testudo_simulations.benchmarks.simulation.loops import WARM_UP_CLIENTS, Turn
from testudo_simulations.benchmarks.simulation.workload import BATCH, LOOP, Clients, Work, federation_of, plan_of


class _Module(nn.Module):
    """The model as pfl wants it: with its loss, and with metrics."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self._model(inputs)
        return outputs

    def loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self(inputs), targets)

    def metrics(self, inputs: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        from pfl.metrics import Weighted

        return {"loss": Weighted(self.loss(inputs, targets).item() * len(targets), len(targets))}


def pfl_rounds(work: Work, rounds: int, turn: Turn) -> None:
    """FedAvg on pfl's simulated backend."""
    os.environ.setdefault("PFL_PYTORCH_DEVICE", "cpu")
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByUser
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam.base import HyperParam, NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    class Cohort(HyperParam, TrainingProcessCallback):  # type: ignore[misc]
        size = WARM_UP_CLIENTS

        def value(self) -> int:
            return self.size

        def after_central_iteration(self, *_: object, **__: object) -> tuple[bool, Any]:
            self.size = work.clients
            turn()
            return False, Metrics()

    torch.set_num_threads(1)
    clients = federation_of(work, 1).training
    assert isinstance(clients, Clients)

    def dataset(number: int) -> Any:
        return Dataset(as_tensors(clients.of(number)), user_id=number)

    cohort = Cohort()
    module = _Module(build_model(plan_of(work, 1).model, 0))
    data = FederatedDataset(dataset, get_user_sampler("minimize_reuse", range(work.clients)))
    asyncio.set_event_loop(asyncio.new_event_loop())
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=1 + rounds,
            evaluation_frequency=1 + rounds,
            train_cohort_size=cohort,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=data, val_data=data, postprocessors=[WeightByUser()]),
        model=PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0)),
        model_train_params=NNTrainHyperParams(
            local_batch_size=BATCH, local_num_epochs=1, local_learning_rate=LOOP.learning_rate
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[cohort],
    )
