"""What an export made and measured: the values of ``model.json``'s table. Computes nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Format = Literal["torch", "onnx", "int8"]
FORMATS: tuple[Format, ...] = ("torch", "onnx", "int8")


class Exported(BaseModel):
    """Base: frozen, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Latency(Exported):
    """Of one call, one thread.

    Attributes:
        p50: Median, seconds.
        p99: Seconds that 99 of 100 calls stay under.
        cpu: Mean CPU time, seconds.
    """

    p50: float
    p99: float
    cpu: float


class ExportedFile(Exported):
    """One file, kept or refused.

    Attributes:
        file: Its name; of one that was refused, the name it would have had.
        format: ``int8``: ONNX with weights (``dynamic``), or weights and activations (``static``), in eight bits.
        method: Of ``int8``; empty otherwise.
        model: ``own``, or the plan's ``student``, distilled from it.
        kept: Whether the file is there.
        reason: Why, or why not, in a sentence.
        sha256: Of the file, hex; empty where there is none.
        bytes: On disk.
        memory_bytes: Peak of a fresh process that loads the file and answers 64 rows; None where it was not measured.
        rows: It was tried on; a student only on those that it was not distilled on.
        difference: Largest from the version in use over the rows it was tried on: of a probability, or of a value over
            the larger of its size and 1.
        agreement: Share of those rows that get the same class; for numbers, one minus the mean difference over the
            spread of the answers.
        accuracy: On the owner's rows; None for numbers, or without rows.
        mae: The same for numbers, in the target's unit.
        latency: Rows a call -> what it takes.
    """

    file: str
    format: Format
    method: str = ""
    model: Literal["own", "student"] = "own"
    kept: bool
    reason: str
    sha256: str = ""
    bytes: int = 0
    memory_bytes: int | None = None
    rows: int = 0
    difference: float | None = None
    agreement: float | None = None
    accuracy: float | None = None
    mae: float | None = None
    latency: dict[int, Latency] = {}


class Recommendation(Exported):
    """Where to run which file.

    Attributes:
        where: ``edge``: a small device beside the data; ``server``: a machine that answers for many.
        file: Which.
        reason: By the rule, with its figures.
    """

    where: Literal["edge", "server"]
    file: str
    reason: str


class ExportReport(Exported):
    """All of one export.

    Attributes:
        version: Of the owner's own model.
        stays: Whether it may not leave this owner.
        rows: It was measured on.
        rows_are: ``data``: the owner's; ``made up``: drawn from the contract's ranges.
        reference: The version in use, asked in this process: for comparison.
        accuracy: Of the version in use on the owner's rows.
        mae: The same for numbers.
        files: Kept and refused.
        recommendation: None where no file was kept.
    """

    version: int
    stays: bool
    rows: int
    rows_are: Literal["data", "made up"]
    reference: dict[int, Latency]
    accuracy: float | None
    mae: float | None
    files: tuple[ExportedFile, ...]
    recommendation: Recommendation | None
