"""The figures of wrong caches: who sees them, what they answer, where they look (notebook 05)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from .look import AT_Y, COSTLY, LOW, ORANGE, PAGE, SMALL, SOLID, in_cell, ink, panels


def recall_bars(right: dict[str, int], questions: int) -> Figure:
    """How many questions each model answers right: a bar with its number, per name."""
    figure, (ax,) = panels(height=LOW)
    names, numbers = list(right), list(right.values())
    bars = ax.barh(names, numbers, **COSTLY)
    bars[0].set(hatch="", **SOLID)
    ax.bar_label(bars, [f"{n} of {questions}" for n in numbers], padding=4)
    ax.set(xlabel="questions answered right", xlim=(0, 1.15 * questions))
    ax.set_title("Where is it? Answers decoded from the cache")
    ax.invert_yaxis()
    return figure


def caught(seen: pd.DataFrame) -> Figure:
    """Wrong caches (rows) by checks (columns): dark, with "sees", where the check sees the bug."""
    figure, (ax,) = panels(height=PAGE)
    ax.imshow(seen.astype(float), cmap="Greys", vmin=-0.1, vmax=1.6, aspect="auto")
    for (row, column), value in np.ndenumerate(seen.to_numpy()):
        in_cell(ax, row, column, "sees" if value else "·", dark=value)
    ax.set_xticks(np.arange(seen.shape[1] - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(len(seen) - 1) + 0.5, minor=True)
    ax.tick_params(which="both", length=0)
    totals_of = [f"{name}\n{count} of {len(seen)}" for name, count in seen.sum().items()]
    ax.set_xticks(range(seen.shape[1]), totals_of, rotation=90, va="bottom", fontsize=SMALL)
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(seen)), seen.index, fontsize=SMALL)
    ax.grid(False)
    ax.grid(which="minor", color="white", linewidth=2, alpha=1)
    return figure


def looks(grids: dict[str, list[Tensor]], tokens: list[str], prefill: int) -> Figure:
    """What each token looked at, by title: rows are tokens, columns the keys there were.

    Darker is more (the square root of the weight); white: no such key. A line marks the end of the
    prefill, which has `prefill` tokens. The keys of the first panel are named: they are the tokens.
    """
    widths = [max(map(len, rows)) for rows in grids.values()]
    figure, axes = panels(len(grids), width_ratios=widths)
    for ax, (title, rows), width in zip(axes, grids.items(), widths, strict=True):
        for row, weights in enumerate(rows):
            extent = (0, len(weights), row + 0.95, row + 0.05)
            ax.imshow(weights.sqrt()[None].numpy(), cmap="Greys", vmin=-0.1, vmax=1, extent=extent)
        ax.axhline(prefill, color=ORANGE)
        ax.set_xticks(np.arange(0, width, 2) + 0.5, range(0, width, 2))
        ax.set_yticks(np.arange(len(rows)) + 0.5, tokens)
        ax.set(title=title, xlabel="key", xlim=(0, width), ylim=(len(rows), 0))
        ax.set_aspect("auto")
        ax.grid(False)
    names = [f"{token} {number}" for number, token in enumerate(tokens)]
    axes[0].set_xticks(np.arange(len(tokens)) + 0.5, names, rotation=90)
    note = {"color": ink(ORANGE)} | AT_Y
    ax.annotate("↑ prefill", (1, prefill), (6, 3), **note)
    ax.annotate("↓ after it", (1, prefill), (6, -3), va="top", **note)
    return figure
