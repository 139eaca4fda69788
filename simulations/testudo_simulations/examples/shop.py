"""Made-up weekly sales of shops: thirty that train together, one that joins later, and the weeks it has yet to plan.

``log(sold) = level + elasticity * log(price) + lift * display + noise``: every shop has numbers of its own around
common ones, as retailers have (Boatwright, McCulloch, Rossi 1999). Nobody's data.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

import numpy as np

SHOPS, WEEKS, OWN_WEEKS, COMING = 30, 52, 40, 4
_NOISE = 0.2
_COLUMNS = ("shop", "week", "price", "display", "sold")


def tables(seed: int) -> dict[str, str]:
    """File name -> CSV: ``shops.csv`` of all that train; of one more ``mine.csv``, and ``next.csv`` without sales."""
    together = [row for shop in range(SHOPS) for row in _weeks(shop, WEEKS, seed)]
    mine = list(_weeks(SHOPS, OWN_WEEKS + COMING, seed))
    coming = [row[1:4] for row in mine[OWN_WEEKS:]]
    return {
        "shops.csv": _csv(_COLUMNS, together),
        "mine.csv": _csv(_COLUMNS[1:], (row[1:] for row in mine[:OWN_WEEKS])),
        "next.csv": _csv(_COLUMNS[1:4], coming),
    }


def _weeks(shop: int, weeks: int, seed: int) -> Iterable[tuple[str, ...]]:
    rng = np.random.default_rng([seed, shop])
    level, elasticity, lift = rng.normal(6.0, 0.7), rng.normal(-1.8, 0.9), rng.normal(0.6, 0.4)
    price = rng.choice([2.19, 2.49, 2.79, 2.99, 3.29], weeks)
    display = np.where(rng.random(weeks) < 0.3, rng.uniform(0.2, 1.0, weeks), 0.0)
    sold = np.exp(level + elasticity * np.log(price / 2.7) + lift * display + rng.normal(0.0, _NOISE, weeks))
    for week in range(weeks):
        amount = f"{max(1.0, sold[week]):.0f}"
        yield f"shop-{shop + 1}", str(week + 1), f"{price[week]:.2f}", f"{display[week]:.2f}", amount


def _csv(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
