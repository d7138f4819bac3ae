"""What the check cells of the notebooks call: silent when all is well, else it says what is wrong.

Timings are compared only as ratios within one run, so that the checks hold on a busy machine.
"""

import numpy as np
import pandas as pd

from .benchmark import CACHES, NO_CACHE, speed_up, totals
from .evaluation import Report


def check_report(report: Report) -> None:
    """Raise AssertionError, with the first problem found, unless every case passed."""
    if not report.all_passed:
        problem = (report.problems or ["no check was run"])[0]
        raise AssertionError(
            f"{report.title}: {report.num_passed} of {len(report.cases)} cases passed. {problem}"
        )


def slope(steps: pd.DataFrame, contender: str) -> float:
    """Seconds by which a token gets slower per token before it: a line through the medians."""
    part = steps[steps["contender"] == contender]
    return float(np.polyfit(part["tokens"], part["median"], 1)[0])


def check_cached_steps_grow_slowly(steps: pd.DataFrame, factor: float = 4.0) -> None:
    """Raise AssertionError unless, with each cache, time per token grows `factor` times slower.

    `steps` is from `benchmark.per_token`.
    """
    uncached = slope(steps, NO_CACHE)
    for contender in set(CACHES) & set(steps["contender"]) - {NO_CACHE}:
        cached = slope(steps, contender)
        if not (uncached > 0 and cached * factor < uncached):
            raise AssertionError(
                f"With the {contender}, a token gets {1e6 * cached:.2f} µs slower per token before "
                f"it; without a cache {1e6 * uncached:.2f} µs. Expected {factor:g} times less or "
                "better. Does the model feed only the new token, and is use_cache handed on?"
            )


def check_speed_up_rises(
    times: pd.DataFrame, short: int = 50, long: int = 1000, least: float = 3.0
) -> None:
    """Raise AssertionError unless each cache gains at least `least` times at `long` tokens, and
    more there than at `short`. `times` is from `benchmark.sweep`.
    """
    for contender in set(CACHES) & set(times["contender"]) - {NO_CACHE}:
        at_short, at_long = (speed_up(times, n, contender) for n in (short, long))
        if not (at_long > at_short and at_long > least):
            raise AssertionError(
                f"The {contender} makes {long} tokens {at_long:.2f} times faster and {short} "
                f"tokens {at_short:.2f} times. Expected at least {least:g} times at {long} tokens, "
                f"and more than at {short}. Is the cache used at all?"
            )


def check_total_is_polynomial(exponent: tuple[float, float, float]) -> None:
    """Raise AssertionError unless the interval of a growth exponent lies between 1 and 3.

    Every token costs something (1); the scores of one forward pass grow as its square, and there
    are as many passes as tokens (3).
    """
    fitted, low, high = exponent
    if not 1 < low <= fitted <= high < 3:
        raise AssertionError(
            f"The exponent is {fitted:.2f} (95 % interval {low:.2f} to {high:.2f}); expected "
            "between 1 and 3 for generation without a cache. Was anything else timed with it?"
        )


def check_all_lengths_timed(times: pd.DataFrame, lengths: tuple[int, ...]) -> None:
    """Raise AssertionError unless every contender has a positive total at every length."""
    table = totals(times, lengths)
    if list(table.index) != list(lengths) or not (table > 0).all(axis=None):
        raise AssertionError(f"Timings are missing: wanted {lengths}, found {list(table.index)}.")
