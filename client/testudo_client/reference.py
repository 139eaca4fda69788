"""What a version's questions are compared with: a sample of rows it learnt from, and answers to rows it did not.

A model is surer of the rows that it was trained on than of any others. So inputs may be the training rows', but outputs
and targets have to be out-of-fold or of fresh rows: else a model that is as good as ever would look as if it had got
worse. One safetensors file of mode 0600 a version in the owner's ``state`` folder; it holds data and never leaves.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from testudo_common.errors import UsageError
from testudo_common.files import make_private, write_atomically

MOST = 1000
_FORMAT = "testudo-watch-reference-1"
_NAMES = ("inputs", "outputs", "targets")


@dataclass(frozen=True, slots=True)
class Reference:
    """A sample to compare with; never printed.

    Attributes:
        inputs: ``float32[m, d]``, as the plan encodes them.
        outputs: ``float32[k, C or 1]``, answers to rows that the model was not trained on; none: not known.
        targets: ``float64[k]``, what those rows' outcomes were; none: not known.
    """

    inputs: npt.NDArray[np.float32] = field(repr=False, compare=False)
    outputs: npt.NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    targets: npt.NDArray[np.float64] | None = field(default=None, repr=False, compare=False)


def keep_reference(
    folder: Path,
    version: int,
    inputs: npt.NDArray[np.float32],
    outputs: npt.NDArray[np.float32] | None = None,
    targets: npt.NDArray[np.float64] | None = None,
) -> Path:
    """Keep a version's reference, at most 1000 rows of it, drawn evenly; one that is there is replaced.

    Args:
        folder: The owner's.
        version: Number of the version.
        inputs: ``float32[m, d]``: rows it was made from, not centred.
        outputs: ``float32[k, C or 1]``: calibrated probabilities, or predictions in the scaled target, of rows that the
            model which answered was not trained on. Never its answers to its own training rows.
        targets: ``float64[k]``: outcomes of the same rows, as ``Observations`` keeps them.

    Returns:
        The file.

    Raises:
        UsageError: It cannot be written.
    """
    rng = np.random.default_rng(version)  # the same rows again if it is made again
    kept = {"inputs": _sample(inputs, rng)}
    if outputs is not None:
        places = _places(len(outputs), rng)
        kept["outputs"] = outputs[places]
        if targets is not None:
            kept["targets"] = targets[places].astype(np.float64)
    path = _path(folder, version)
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in kept.items()}
    try:
        make_private(path.parent)
        write_atomically(path, save(tensors, metadata={"format": _FORMAT}))
    except OSError as error:
        problem = f"the reference cannot be written: {error.strerror or os.strerror(error.errno or 0)}"
        raise UsageError(problem, where=str(path), remedy="make room, or let this user write there") from error
    return path


def read_reference(folder: Path, version: int) -> Reference:
    """A version's reference.

    Raises:
        UsageError: There is none, or it is damaged.
    """
    path = _path(folder, version)
    remedy = f"testudo-client watch {folder} --reference mine.csv makes one of your table"
    if not path.is_file():
        raise UsageError(f"version {version} has nothing to compare with", where=str(path), remedy=remedy)
    try:
        with safe_open(str(path), framework="numpy") as file:
            if (file.metadata() or {}).get("format") != _FORMAT:
                raise ValueError
            there = set(file.keys())
            tensors = {name: file.get_tensor(name) for name in _NAMES if name in there}
        return Reference(**tensors)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise UsageError("the reference is damaged", where=str(path), remedy=remedy) from error


def _path(folder: Path, version: int) -> Path:
    return folder / "state" / f"reference-{version}.safetensors"


def _sample(rows: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    return rows[_places(len(rows), rng)]


def _places(count: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    return np.sort(rng.permutation(count)[:MOST])
