"""Made-up tables of shops that resemble each other and are not the same, to rehearse a deployment with nobody's data.

An article sells if a weighted sum of price, size and weekday is above a bound. All shops share the weights' direction;
each turns it by an angle of its own, so that a shared start helps and one shared model does not fit.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from testudo_common.files import write_atomically

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TURN = math.radians(35.0)
_NOISE = 0.25


def table_of(shop: int, rows: int, seed: int) -> str:
    """One shop's table as CSV: ``price,size,day,sold``.

    Args:
        shop: Its number; each number is a shop of its own.
        rows: How many, one or more.
        seed: Of the shop's angle and of its rows.
    """
    rng = np.random.default_rng([seed, shop])
    angle = rng.uniform(-_TURN, _TURN)
    price, size = rng.normal(10.0, 4.0, rows), rng.normal(3.0, 1.5, rows)
    day = rng.integers(len(DAYS), size=rows)
    weekend = np.where(day >= 5, 0.6, -0.2)
    score = math.cos(angle) * (10.0 - price) / 4.0 + math.sin(angle) * (size - 3.0) / 1.5 + weekend
    sold = score + rng.normal(0.0, _NOISE, rows) > 0.0
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("price", "size", "day", "sold"))
    for row in range(rows):
        answer = "yes" if sold[row] else "no"
        writer.writerow((f"{price[row]:.2f}", f"{size[row]:.2f}", DAYS[day[row]], answer))
    return text.getvalue()


def write_tables(folder: Path, shops: Sequence[str], *, rows: int = 400, seed: int = 0) -> Path:
    """Write ``SHOP.csv`` for each shop, and ``plan.toml`` for all of them.

    Returns:
        The plan's path. It is complete but for the size of a cohort, which is all shops.
    """
    for number, shop in enumerate(shops):
        write_atomically(folder / f"{shop}.csv", table_of(number, rows, seed).encode(), durable=False)
    plan = folder / "plan.toml"
    write_atomically(plan, shops_plan(len(shops)).encode(), durable=False)
    return plan


def shops_plan(shops: int) -> str:
    """The plan that fits the tables, TOML, with all shops in one cohort and one group.

    Args:
        shops: How many, three or more.
    """
    text = (files("testudo_simulations.deployment") / "shops.toml").read_text(encoding="utf-8")
    for key in ("cohort_size", "group_size"):
        text = text.replace(f"{key} = 3\n", f"{key} = {shops}\n")
    return text
