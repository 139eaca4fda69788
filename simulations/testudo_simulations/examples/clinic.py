"""Clinics that examine cells: scikit-learn's breast cancer data, dealt out to clinics with instruments of their own.

Every clinic's instrument reads a little higher or lower than the others', feature by feature, as instruments do; that
is made up, and the cases are real. Source: Street, Wolberg, Mangasarian 1993 (Wisconsin diagnostic data, CC BY 4.0).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np

CLINICS, LABELLED = 15, 24
FEATURES = ("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "symmetry")
_SPREAD = 0.08  # of instruments, relative


def tables(seed: int) -> dict[str, str]:
    """File name -> CSV: ``clinics.csv`` of all that train; one more's ``mine.csv``, and ``new.csv`` without findings.

    ``truth.csv`` has the findings of ``new.csv``, as a clinic learns them later.
    """
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = [str(name).removeprefix("mean ") for name in data.feature_names]
    columns = [names.index(feature) for feature in FEATURES]
    rng = np.random.default_rng(seed)
    share = np.array_split(rng.permutation(len(data.target)), CLINICS + 1)
    gain = 1.0 + rng.normal(0.0, _SPREAD, (CLINICS + 1, len(FEATURES)))
    rows = [
        [_row(clinic, data.data[case, columns] * gain[clinic], bool(data.target[case])) for case in share[clinic]]
        for clinic in range(CLINICS + 1)
    ]
    mine, new = rows[CLINICS][:LABELLED], rows[CLINICS][LABELLED:]
    head = ("clinic", *FEATURES, "finding")
    return {
        "clinics.csv": _csv(head, (row for clinic in rows[:CLINICS] for row in clinic)),
        "mine.csv": _csv(head[1:], (row[1:] for row in mine)),
        "new.csv": _csv(head[1:-1], (row[1:-1] for row in new)),
        "truth.csv": _csv(head[1:], (row[1:] for row in new)),
    }


def _row(clinic: int, values: np.ndarray, benign: bool) -> tuple[str, ...]:
    return (f"clinic-{clinic + 1}", *(f"{value:.5g}" for value in values), "benign" if benign else "malignant")


def _csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
