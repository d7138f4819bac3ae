"""The figures of caches in the wild: what a window misses, where logits go wrong, the survey
(chapter 13)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...plots.look import (
    BLUE,
    BUILT,
    COSTLY,
    GREEN,
    NORMAL,
    ORANGE,
    PLACE,
    SOLID,
    SQUARES,
    curve,
    name_lines,
    panels,
)

RIGHT, WRONG, OTHER = "right", "wrong", "not judged"
BARS = {
    RIGHT: SOLID,
    WRONG: COSTLY,
    OTHER: {"facecolor": "white", "edgecolor": "0.55"},
}
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 1}
Case = tuple[int, int, Sequence[int]]  # kept, window, chunks


def missing(cases: dict[str, Case]) -> Figure:
    """What each token (row) may look at (green), and what of it is forgotten (orange, hatched).

    A panel for each title. `cases` says how many tokens the cache keeps, the model's window, and
    the chunks in which the tokens come; lines mark where one begins.
    """
    figure, axes = panels(len(cases), height=SQUARES)
    for ax, (title, (kept, window, chunks)) in zip(axes, cases.items(), strict=True):
        length, start = sum(chunks), 0
        for chunk in chunks:
            ax.axhline(start, **PLACE)
            for position in range(start, start + chunk):
                for key in range(max(position - window + 1, 0), position + 1):
                    look = BUILT if key >= start - kept else COSTLY
                    ax.add_patch(Rectangle((key, position), 1, 1, **look))
            start += chunk
        ticks = range(0, length, 2)
        ax.set_xticks(np.array(ticks) + 0.5, ticks)
        ax.set_yticks(np.array(ticks) + 0.5, ticks)
        ax.set(title=title, xlabel="key", xlim=(0, length), ylim=(length, 0), aspect="equal")
        ax.grid(False)
    axes[0].set_ylabel("token")
    return figure


def errors(found: dict[str, Sequence[float]], window: int) -> Figure:
    """The error of the logits at each position, a line for each name; a mark at the window."""
    figure, (ax,) = panels(height=NORMAL)
    looks = curve(ORANGE), curve(BLUE, "--"), curve(GREEN, ":")
    for (name, values), look in zip(found.items(), looks, strict=False):
        ax.plot(np.maximum(values, 1e-9), label=name, **look)
    ax.axvline(window, **PLACE)
    ax.set_yscale("log")
    ax.set_xticks(range(0, max(map(len, found.values())), 2))
    ax.set(xlabel="position", ylabel="largest error of a logit", title="Where the logits go wrong")
    name_lines(ax)
    return figure


def survey(counts: pd.DataFrame) -> Figure:
    """Of the types of each kind (rows), the shares that are right, wrong, not judged (columns).

    The numbers of types are written into the bars.
    """
    figure, (ax,) = panels(height=NORMAL)
    totals = counts.sum(axis=1)
    names = [f"{kind} ({total})" for kind, total in totals.items()]
    left = np.zeros(len(counts))
    for verdict, look in BARS.items():
        shares = (counts[verdict] / totals).to_numpy()
        bars = ax.barh(names, shares, left=left, label=verdict, **look)
        shown = [str(number) if number else "" for number in counts[verdict]]
        ink = {"color": "white"} if verdict == RIGHT else {"bbox": BEHIND}
        ax.bar_label(bars, shown, label_type="center", **ink)
        left += shares
    ax.invert_yaxis()
    ax.set(xlabel="share of the types", xlim=(0, 1))
    ax.set_title("What a type keeps, and whether its cache is right")
    ax.grid(False, axis="y")
    figure.legend(loc="outside lower center", ncols=len(BARS))
    return figure
