"""Writes a module as a file, and opens such a file to ask it. Measures and decides nothing.

The ONNX ones need the extra ``export``. Sources: Jacob et al. 2018, arXiv:1712.05877 (eight bits); onnxruntime's
dynamic (weights) and static (weights and activations) quantisation.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from testudo_common.errors import UsageError
from testudo_common.learning.tasks import Inputs

INPUTS = "inputs"
Ask = Callable[[Inputs], npt.NDArray[np.float32]]


def require_onnx() -> None:
    """Check that what ONNX files need is installed.

    Raises:
        UsageError: It is not.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"files for ONNX need {', '.join(missing)}",
            where="--format",
            remedy="pip install 'testudo-fl[export]', or ask for --format torch alone",
        )


def write_torch(module: Any, shape: tuple[int, ...], path: Path) -> None:
    """As a torch program (``.pt2``) for any number of rows."""
    import torch

    batch = torch.export.Dim("batch", min=1)
    with _quiet():
        program = torch.export.export(module, (torch.zeros(2, *shape),), dynamic_shapes=({0: batch},))
        torch.export.save(program, str(path))


def write_onnx(module: Any, shape: tuple[int, ...], path: Path, output: str) -> None:
    """As ONNX, weights in it, for any number of rows; its output is called ``output``."""
    import torch

    batch = torch.export.Dim("batch", min=1)
    with _quiet():
        program = torch.onnx.export(
            module,
            (torch.zeros(2, *shape),),
            dynamo=True,
            dynamic_shapes=({0: batch},),
            input_names=[INPUTS],
            output_names=[output],
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)


def write_int8(full: Path, path: Path, method: Literal["dynamic", "static"], rows: Inputs) -> None:
    """An ONNX file in eight bits.

    Args:
        full: In full precision.
        path: Written.
        method: Weights, or weights and activations.
        rows: ``float32[n, *input_shape]``, for the ranges of activations.
    """
    from onnxruntime.quantization import quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_suffix(".prepared")
    with _quiet():
        try:
            quant_pre_process(str(full), str(prepared), skip_symbolic_shape=True)
            if method == "dynamic":
                quantize_dynamic(str(prepared), str(path))
            else:
                quantize_static(str(prepared), str(path), _Rows(rows))
        finally:
            prepared.unlink(missing_ok=True)


class _Rows:
    """Rows in turn, as onnxruntime asks for them."""

    def __init__(self, rows: Inputs) -> None:
        self._batches: Iterator[Inputs] = iter(np.array_split(rows, max(1, len(rows) // 64)))

    def get_next(self) -> dict[str, Inputs] | None:
        """The next rows; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUTS: batch}


def open_torch(path: Path) -> Ask:
    """To ask a torch program; the number of threads is the process's."""
    import torch

    module = torch.export.load(str(path)).module()

    def ask(inputs: Inputs) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            answers: npt.NDArray[np.float32] = module(torch.from_numpy(inputs)).numpy()
        return answers

    return ask


def open_onnx(path: Path) -> Ask:
    """To ask an ONNX file, by one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def ask(inputs: Inputs) -> npt.NDArray[np.float32]:
        answers: npt.NDArray[np.float32] = session.run(None, {INPUTS: inputs})[0]
        return answers

    return ask


def open_file(path: Path) -> Ask:
    """To ask either."""
    return open_torch(path) if path.suffix == ".pt2" else open_onnx(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters tell of their own inner life."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
