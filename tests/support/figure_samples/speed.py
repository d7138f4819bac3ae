"""The figures of how fast it can go (chapter 07), drawn from made-up data."""

import numpy as np
import pandas as pd

from course_utils.going_further.speed import figures
from course_utils.going_further.speed.products import ALL
from course_utils.transformer import ROOT

from .tables import rounds_of


def bandwidth():
    sizes = [2**k for k in range(18, 28)]
    one = [47, 57, 58, 69, 76, 78, 54, 24, 21, 22]
    read = pd.DataFrame({"1 thread": one, "2 threads": [*one[:8], 29, 31]}, index=sizes) * 1e9
    return figures.bandwidth(read, {"small": 3_700_000, "wide": 72_000_000})


def products(spread: bool = True):
    columns = {
        "one matrix, again and again": [16, 19, 15, 18, 23, 10, 13, 15],
        "eighty in turn": [6, 14, 6, 13, 18, 11, 12, 14],
    }
    rates = 1e9 * pd.DataFrame(columns, index=list(ALL))
    return figures.products(rates, *((0.9 * rates, 1.1 * rates) if spread else ()))


def steps(spread: bool = True):
    small = {"plain": 1.62, "fast": 0.506, "compiled": 0.112, "floor": 0.03}
    taken = {"small": small, "wide": {"plain": 12.5, "fast": 3.61, "floor": 2.24}}
    spreads = {
        model: {name: (0.9 * ms, 1.3 * ms) for name, ms in times.items() if name != "floor"}
        for model, times in taken.items()
    }
    return figures.steps(taken, spreads if spread else None)


def precision():
    right = {"32 bits": 0.998, "16 (bfloat16)": 0.998, "8 bits": 0.998, "2 bits": 0.0}
    ms = {"32 bits": 2.2, "16 (bfloat16)": 2.8, "8, made 32 again": 43, "8, made 32 in place": 11}
    ms["8, as they are"] = 0.86
    megabytes = dict(zip(ms, (51, 26, 13, 13, 13), strict=True))
    return figures.precision(pd.Series(right), rounds_of(ms), megabytes)


def growth():
    lengths = np.array([64, 91, 128, 181, 256, 362, 512, 724, 1024])
    at = np.arange(64, 1025, 64)
    cached = {"course, fast": 5e-4 + 3e-7 * at, "course, compiled": 1.5e-4 + 1.5e-7 * at}
    table = pd.DataFrame(cached, index=at)
    lines = {"course, fast": (3e-7, 5e-4), "course, compiled": (1.5e-7, 1.5e-4)}
    totals = pd.Series(3e-5 * lengths**1.83, index=lengths)
    return figures.growth(totals, 1.83, table, lines, 0.95 * table, 1.05 * table)


def peers():
    return figures.peers(pd.read_csv(ROOT / "benchmarks" / "peers.csv"))


FIGURES = {
    "07 bandwidth": bandwidth,
    "07 products": products,
    "07 products, medians": lambda: products(spread=False),
    "07 steps": steps,
    "07 steps, medians": lambda: steps(spread=False),
    "07 precision": precision,
    "07 growth": growth,
    "07 peers": peers,
}
