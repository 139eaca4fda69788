"""A model or an update as one flat ``float32[d]``: its digest, its checks, its clipping. Knows no torch."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]


def vector_digest(vector: Vector) -> str:
    """SHA-256 over the length and the little-endian float32 bytes of ``vector``, in hex."""
    data = np.ascontiguousarray(vector, dtype="<f4")
    return hashlib.sha256(len(data).to_bytes(8, "little") + data.tobytes()).hexdigest()


def fault_of_vector(vector: object, size: int) -> str | None:
    """Why ``vector`` is not a finite ``float32[size]``, or None if it is one."""
    if not isinstance(vector, np.ndarray) or vector.dtype != np.float32:
        return "not a float32 array"
    if vector.shape != (size,):
        return f"shape {vector.shape} instead of ({size},)"
    if not np.isfinite(vector).all():
        return "not finite"
    return None


def clip_to_norm(vector: Vector, max_norm: float) -> Vector:
    """``vector``, scaled down to L2 norm ``max_norm`` where it is longer; ``float32[d]`` of its own."""
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if norm <= max_norm:
        return vector.copy()
    return (vector.astype(np.float64) * (max_norm / norm)).astype(np.float32)
