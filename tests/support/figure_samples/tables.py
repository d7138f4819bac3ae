"""Made-up tables of the shapes and sizes of the real ones, for the figures' samples."""

import numpy as np
import pandas as pd

from course_utils.benchmark import CACHES, GROWING, NO_CACHE, PREALLOCATED, ROUNDS

RNG = np.random.default_rng(0)


def sweep(rounds: int = len(ROUNDS), growing: float = 1.04) -> pd.DataFrame:
    """As `benchmark.sweep` returns it: a cached token takes a millisecond, the others ever more."""
    n = np.arange(1, 1001)
    costs = {
        NO_CACHE: 1e-3 + 7e-6 * n + 2e-8 * n**2,
        GROWING: growing * (1e-3 + 1e-7 * n),
        PREALLOCATED: 1e-3 + 1e-8 * n,
    }
    tables = []
    for name in CACHES:
        for r in range(rounds):
            step = costs[name] * (1 + 0.05 * r) * RNG.uniform(0.95, 1.1, n.size)
            row = {"contender": name, "round": r, "tokens": n, "step": step}
            tables.append(pd.DataFrame(row | {"total": step.cumsum()}))
    whole = pd.concat(tables, ignore_index=True)
    return whole[whole["tokens"] <= whole["round"].map(ROUNDS.__getitem__)]


def quartile_table(lengths: tuple, medians: list[float], **more: object) -> pd.DataFrame:
    m = np.array(medians)
    table = {"tokens": lengths, "median": m, "low": 0.9 * m, "high": 1.2 * m}
    return pd.DataFrame(table | more)


def rounds_of(medians: dict, rounds: int = 9) -> pd.DataFrame:
    """A row per round, as `roofline.in_turns` returns it."""
    return pd.DataFrame({k: m * RNG.uniform(0.9, 1.3, rounds) for k, m in medians.items()})
