"""How much poisoning a round can outvote, and which groups, f and rule to plan for it. Pure; draws nothing.

tails.py counts exactly, withstand.py turns the counts into f, planner.py chooses (remedy.py says why not), and
frontier.py shows the whole trade between privacy and robustness.
"""

from testudo_common.robustness.frontier import Point, breakdown, frontier
from testudo_common.robustness.planner import RECOMMENDED, Choice, Wish, choose
from testudo_common.robustness.shares import count_of_share
from testudo_common.robustness.withstand import bad_rows, failure_of

__all__ = [
    "RECOMMENDED",
    "Choice",
    "Point",
    "Wish",
    "bad_rows",
    "breakdown",
    "choose",
    "count_of_share",
    "failure_of",
    "frontier",
]
