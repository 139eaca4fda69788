"""The vectorised engine: the inner loops of many clients at once, on one set of stacked weights.

For clients that share a model. Same steps as the one-by-one path (run_inner_loop, and Opacus under DP-SGD), equal to it
to rounding where there is no noise, and with noise of the same distribution.
"""

from testudo_simulations.engine.engine import Engine, Trained

__all__ = ["Engine", "Trained"]
