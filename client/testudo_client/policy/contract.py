"""The contract of shared tensors: name, shape and type of each, in the order in which they travel. Imports torch.

Only ever asked for a model whose name the policy allows: a factory is code, and asking for its tensors runs it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from testudo_common.plan.sections import ModelPlan

BYTES_PER_VALUE = 4


@dataclass(frozen=True, slots=True)
class Tensor:
    """One shared tensor.

    Attributes:
        name: As torch names the parameter.
        shape: Its size in each dimension.
        dtype: Such as ``float32``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{list(self.shape)}"


Contract = tuple[Tensor, ...]


def contract_of(plan: ModelPlan) -> Contract:
    """The shared tensors of a plan's model; no weight takes any memory for it.

    Raises:
        ModelError: The model cannot be built.
    """
    from testudo_common.learning.learner import shared_parameters
    from testudo_common.learning.models import outline_of

    shared = shared_parameters(outline_of(plan), plan.unshared_head)
    return tuple(
        Tensor(name, tuple(parameter.shape), str(parameter.dtype).removeprefix("torch."))
        for name, parameter in shared.items()
    )


def values_of(contract: Contract) -> int:
    """d: how many numbers travel in one update."""
    return sum(math.prod(tensor.shape) for tensor in contract)
