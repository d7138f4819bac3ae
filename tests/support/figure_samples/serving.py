"""The figures of many users (chapter 10), drawn from made-up data."""

import numpy as np
import pandas as pd

from course_utils.going_further.serving import Request, StepTimes, figures

from .tables import RNG


def company():
    rows = [1, 2, 4, 8, 16, 32, 64]
    return figures.company(StepTimes(pd.Series({n: 1.5e-3 + 2.3e-4 * n for n in rows}), None))


def timelines():
    def asked(*times: tuple[float, float]) -> list[Request]:
        return [Request([1], 2, times=list(pair)) for pair in times]

    static = asked((0, 8), (0, 2), (0, 3), (8, 10), (8, 14), (8, 11), (14, 16))
    going = asked((0, 8), (0, 2), (0, 3), (2, 4), (3, 9), (4, 7), (7, 9))
    return figures.timelines({"static: 16 steps": static, "continuous: 9 steps": going}, 3)


def load():
    asked = np.array([300, 600, 950, 1300, 1600, 1900, 2300, 2700, 3100, 3500])
    tables = []
    for policy, most in (("static", 1150), ("continuous", 3000)):
        wait = 2e-3 * 3 ** (np.minimum(asked / most, 3))
        row = {"policy": policy, "asked": asked, "tokens/s": np.minimum(asked, most)}
        row |= {"latency": wait, "latency of the slowest 5 %": 4 * wait}
        tables.append(pd.DataFrame(row))
    return figures.load(pd.concat(tables))


def blocks():
    full, begun = ["Mia", "put", "the", "red"], ["bell", "in"]
    stages = {
        "A begins": ([full, begun, [], []], ["A", "A", "", ""]),
        "B is a fork of A": ([full, begun, [], []], ["A, B", "A, B", "", ""]),
        "B goes on: a copy": ([full, begun, [*begun, "a", "box"], []], ["A, B", "A", "B", ""]),
        "A goes on: no copy": ([full, full, full, ["bag"]], ["A, B", "A", "B", "A"]),
        "A is over": ([full, [], full, []], ["B", "", "B", ""]),
    }
    return figures.blocks(stages, block_size=4)


def fragmentation():
    index = [1, 4, 16, 64, 256, 1280]
    wasted = {
        "wasted": [0, 0.01, 0.06, 0.21, 0.54, 0.91],
        "predicted": [0, 0.01, 0.06, 0.21, 0.52, 0.84],
    }
    return figures.fragmentation(pd.DataFrame(wasted | {"rows": [92, 90, 85, 68, 38, 8]}, index))


def speculation():
    drafts = {
        "prompt lookup": ((1.5, 2.1, 2.2), (1.13, 1.74, 1.75)),
        "lookup, sampled": ((1.1, 1.3, 1.2), (0.78, 1.06, 0.97)),
        "counts": ((1.5, 1.7, 1.7), (1.32, 1.37, 1.17)),
        "two layers": ((1.1, 1.1, 1.1), (0.56, 0.33, 0.23)),
    }
    rows = [
        {"draft": name, "guesses": g, "tokens": t, "faster": f}
        for name, values in drafts.items()
        for g, t, f in zip((1, 4, 8), *values, strict=True)
    ]
    return figures.speculation(pd.DataFrame(rows))


def widths():
    taken = {1: [1, 0.9, 0.85, 0.9, 0.9], 8: [1, 1.2, 1.3, 1.6, 2.1], 64: [1, 1.3, 1.7, 2.1, 3.2]}
    return figures.widths(pd.DataFrame(taken, index=[1, 2, 3, 5, 9]))


def distributions():
    names = [f"{a}{b}" for a in range(4) for b in range(4)]
    exact = np.full(16, 1 / 16)
    off = RNG.normal(0, 1e-3, 16)
    shares = {"right": exact + off, "drawn from p instead": exact + 0.05 * np.sign(off)}
    return figures.distributions(exact, shares | {"not drawn from q": exact + off}, names, 10_000)


FIGURES = {
    "10 company": company,
    "10 timelines": timelines,
    "10 load": load,
    "10 blocks": blocks,
    "10 fragmentation": fragmentation,
    "10 speculation": speculation,
    "10 widths": widths,
    "10 distributions": distributions,
}
