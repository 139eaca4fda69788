"""Exports a version: writes each file, tries it against the version itself, measures it, and keeps what is good.

Prints nothing. A file that is refused is removed, and the report says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import nn

from testudo_client.exporting.deciding import MARGIN, MAX_DIFFERENCE, fault_of_answers, fault_of_speed, recommend
from testudo_client.exporting.files import Ask, open_file, write_int8, write_onnx, write_torch
from testudo_client.exporting.measuring import REPEATS, latencies, memory_of
from testudo_client.exporting.module import AnsweringModule, Answers, agreement, difference, reference
from testudo_client.exporting.results import ExportedFile, ExportReport, Format, Latency
from testudo_client.exporting.rows import TrialRows
from testudo_client.exporting.student import distil
from testudo_client.personal.own_model import Answerer
from testudo_client.personal.versions import Version
from testudo_common.errors import ModelError
from testudo_common.learning.tasks import Inputs

_HELD_OUT = 4  # every fourth row is not distilled on, and a student is judged on these
_EAGER = "version in use"


@dataclass(frozen=True, slots=True)
class Export:
    """What is asked.

    Attributes:
        version: To be exported.
        rows: To try files on.
        folder: Empty; files are written there.
        formats: Which.
        margin: What a smaller file may lose; see ``deciding``.
        repeats: Calls that a latency is made from.
        memory: Peak bytes of a process that asks a file of this input shape.
        on_step: Told what is being done.
    """

    version: Version
    rows: TrialRows
    folder: Path
    formats: tuple[Format, ...]
    margin: float = MARGIN
    repeats: int = REPEATS
    memory: Callable[[Path, Sequence[int]], int | None] = memory_of
    on_step: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class _Made:
    """A file, and what is known of it; ``ask`` is None where it could not be made."""

    found: ExportedFile
    ask: Ask | None = field(repr=False, default=None)


def export(asked: Export, rng: np.random.Generator) -> ExportReport:
    """Make, try, measure and choose.

    Args:
        asked: What is wanted.
        rng: Of distillation and of the order of measurements.

    Raises:
        ModelError: The version does not fit its plan.
    """
    torch.set_num_threads(1)
    answerer = Answerer(asked.version.own)
    own = _Judge(answerer, asked.rows)
    made = _make(asked, "model", AnsweringModule(answerer.own, answerer.module), own)
    if answerer.own.plan.student.name is not None:
        made += _make_student(asked, answerer, rng)
    asked.on_step("measuring")
    timed: dict[str, Ask] = {one.found.file: one.ask for one in made if one.ask is not None}

    def eager(inputs: Inputs) -> np.ndarray:
        return reference(answerer, inputs)

    found = latencies({_EAGER: eager, **timed}, asked.rows.inputs, rng, asked.repeats)
    files = tuple(_finished(asked, one, found, own) for one in made)
    return ExportReport(
        version=asked.version.record.id,
        stays=asked.version.record.stays,
        rows=len(asked.rows.inputs),
        rows_are=asked.rows.origin,
        reference=found[_EAGER],
        accuracy=own.figures(own.expected)["accuracy"],
        mae=own.figures(own.expected)["mae"],
        files=files,
        recommendation=recommend(files),
    )


class _Judge:
    """How well answers to the rows agree with the version in use, and with what was true.

    Args:
        answerer: Of the version.
        rows: Tried on.
    """

    def __init__(self, answerer: Answerer, rows: TrialRows) -> None:
        self.rows, self.expected = rows, reference(answerer, rows.inputs)

    def figures(self, answers: Answers) -> dict[str, float | None]:
        """``agreement``, and ``accuracy`` or ``mae`` where the truth is known."""
        accuracy = mae = None
        if self.rows.targets is not None and answers.ndim == 2:
            accuracy = float((answers.argmax(axis=1) == self.rows.targets).mean())
        elif self.rows.targets is not None:
            mae = float(np.abs(answers.astype(np.float64) - self.rows.targets).mean())
        return {"agreement": agreement(answers, self.expected), "accuracy": accuracy, "mae": mae}

    @property
    def told(self) -> str:
        """The version's own figure, in words."""
        figures = self.figures(self.expected)
        if figures["accuracy"] is not None:
            return f"an accuracy of {figures['accuracy']:.4g}"
        return "an agreement of 1" if figures["mae"] is None else f"an error of {figures['mae']:.4g}"

    def itself(self) -> ExportedFile:
        """The version in use, as a file would be judged."""
        return ExportedFile(file="", format="torch", kept=True, reason="", **self.figures(self.expected))


def _make(asked: Export, stem: str, module: AnsweringModule, judge: _Judge, *, student: bool = False) -> list[_Made]:
    """The formats of one module: in full precision, and of the own model in eight bits."""
    shape = judge.rows.inputs.shape[1:]
    with torch.inference_mode():
        expected = module(torch.from_numpy(np.ascontiguousarray(judge.rows.inputs))).numpy().astype(np.float64)
    output = "probabilities" if expected.ndim == 2 else "values"
    onnx = asked.folder / f"{stem}.onnx"

    def tried(path: Path, form: Format, write: Callable[[], None], method: str = "") -> _Made:
        asked.on_step(f"writing {path.name}")
        return _tried(path, form, method, write, judge, expected, student=student)

    made = []
    if "torch" in asked.formats:
        path = asked.folder / f"{stem}.pt2"
        made.append(tried(path, "torch", lambda: write_torch(module, shape, path)))
    wants_int8 = "int8" in asked.formats and not student
    if "onnx" in asked.formats or wants_int8:
        made.append(tried(onnx, "onnx", lambda: write_onnx(module, shape, onnx, output)))
    if wants_int8 and made[-1].ask is not None:
        for method in ("dynamic", "static"):
            path = asked.folder / f"{stem}-int8-{method}.onnx"
            made.append(
                tried(path, "int8", lambda p=path, m=method: write_int8(onnx, p, m, judge.rows.inputs), method)  # type: ignore[misc]
            )
    return made


def _make_student(asked: Export, answerer: Answerer, rng: np.random.Generator) -> list[_Made]:
    """Taught on three quarters of the rows, and judged on the rest."""
    rows = asked.rows
    held = np.arange(len(rows.inputs)) % _HELD_OUT == _HELD_OUT - 1
    judged = TrialRows(rows.inputs[held], None if rows.targets is None else rows.targets[held])
    asked.on_step("distilling the student")
    try:
        student: nn.Module = distil(answerer, rows.inputs[~held], rng)
    except ModelError as error:
        return [_Made(_refused("student.pt2", "torch", "", error.problem, student=True))]
    judge = _Judge(answerer, judged)
    module = AnsweringModule(answerer.own, student)
    found = []
    for one in _make(asked, "student", module, judge, student=True):
        fault = fault_of_answers(one.found, judge.itself(), asked.margin) if one.ask is not None else ""
        refused = one.found.model_copy(update={"kept": not fault, "reason": fault or one.found.reason})
        found.append(_Made(refused, one.ask))
    return found


def _tried(
    path: Path,
    form: Format,
    method: str,
    write: Callable[[], None],
    judge: _Judge,
    expected: Answers,
    *,
    student: bool,
) -> _Made:
    """Written, opened and asked; in full precision it has to answer as ``expected``."""
    try:
        write()
        path.chmod(0o600)
        ask = open_file(path)
        answers = ask(np.ascontiguousarray(judge.rows.inputs))
    except Exception as error:  # exporters raise anything, and a model that one cannot read is a result
        reason = f"it cannot be exported so ({type(error).__name__})"
        return _Made(_refused(path.name, form, method, reason, student=student))
    gap = difference(answers, expected)
    found = ExportedFile(
        file=path.name,
        format=form,
        method=method,
        model="student" if student else "own",
        kept=True,
        reason=f"smaller; on the same {len(judge.rows.inputs)} rows the version in use has {judge.told}"
        if student
        else "answers as the version in use does",
        bytes=path.stat().st_size,
        rows=len(judge.rows.inputs),
        difference=gap if np.isfinite(gap) else None,
        **judge.figures(answers.astype(np.float64)),
    )
    if form != "int8" and not gap <= MAX_DIFFERENCE:
        return _Made(found.model_copy(update={"kept": False, "reason": f"its answers differ by up to {gap:.2g}"}))
    return _Made(found, ask)


def _refused(file: str, form: Format, method: str, reason: str, *, student: bool) -> ExportedFile:
    model = "student" if student else "own"
    return ExportedFile(file=file, format=form, method=method, model=model, kept=False, reason=reason)


def _finished(asked: Export, one: _Made, found: Mapping[str, dict[int, Latency]], own: _Judge) -> ExportedFile:
    """With its latency, memory and digest; or removed."""
    file, path = one.found, asked.folder / one.found.file
    file = file.model_copy(update={"latency": found.get(file.file, {})})
    if file.kept and file.format == "int8":
        full = found[f"{file.file.partition('-int8')[0]}.onnx"]
        faults = (fault_of_answers(file, own.itself(), asked.margin), fault_of_speed(file.latency, full))
        refused = "; ".join(fault for fault in faults if fault)
        reason = refused or "faster than in full precision, and as accurate"
        file = file.model_copy(update={"kept": not refused, "reason": reason})
    if file.kept and file.format not in asked.formats:
        file = file.model_copy(update={"kept": False, "reason": "was not asked for: eight bits are made from it"})
    if not file.kept:
        path.unlink(missing_ok=True)
        return file
    asked.on_step(f"memory of {file.file}")
    digest = sha256(path.read_bytes()).hexdigest()
    return file.model_copy(update={"sha256": digest, "memory_bytes": asked.memory(path, own.rows.inputs.shape[1:])})
