"""The figures of attention in tiles (chapter 08), drawn from made-up data."""

import pandas as pd

from course_utils.going_further.flash import figures

from .tables import rounds_of


def walks():
    tiles = [slice(i, i + 3) for i in range(0, 12, 3)]
    visits = [(rows, columns) for rows in tiles for columns in tiles]
    hidden = [(r, c) for r, c in visits if c.start <= r.start]
    return figures.walks({"no mask": visits, "causal": hidden}, 12, "causal")


def traffic():
    sizes = pd.Index([8, 16, 32, 64, 128, 256])
    columns = {"plain": [4.6e6] * 6, "keys outside": 1.1e8 / sizes, "queries outside": 7e7 / sizes}
    counted = pd.DataFrame(columns, index=sizes)
    return figures.traffic(counted, counted, pd.Series(1e8 / sizes, index=sizes))


def peaks():
    lengths = pd.Index([512, 1024, 2048, 4096])
    held = {"plain": 8 * lengths**2, "in tiles": 190 * lengths}
    held["PyTorch's SDPA"] = [2.1e5, 7e5, 8.4e5, 1.1e6]
    both = {"plain": held["plain"], "in tiles, by autograd": 6 * lengths**2} | held
    return figures.peaks(pd.DataFrame(held, index=lengths), pd.DataFrame(both, index=lengths))


def times():
    ways = (figures.PLAIN, figures.SMALL, figures.LARGE, figures.SDPA)
    at = {256: (0.77, 3.3, 1.25, 0.67), 512: (2.7, 7.4, 3.5, 2), 1024: (28, 30, 16, 8.7)}
    at[2048] = (109, 110, 51, 30)
    taken = {n: rounds_of(dict(zip(ways, row, strict=True))) for n, row in at.items()}
    return figures.times(taken, rounds_of({1: 5.4, 2: 4.3, 4: 4.1, 8: 4, 16: 4.3}))


FIGURES = {
    "08 walks": walks,
    "08 traffic": traffic,
    "08 peaks": peaks,
    "08 times": times,
}
