"""The figures of real weights: merges, activations, mistakes (chapter 12)."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...plots.look import (
    AT_X,
    AT_Y,
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    SKY,
    TALL,
    THEORY,
    curve,
    name_lines,
    panels,
)

CHECKPOINTS = {
    "fresh": curve(BLUE, "", "o"),
    "trained": curve(GREEN, ""),
    "filled": curve(ORANGE, "", "s"),
}


def merges(pieces: pd.DataFrame, per_word: float) -> Figure:
    """Characters per token against the number of merges, a line per text.

    `per_word`: the characters per word of the first, which is the most that its tokens can have.
    """
    figure, (ax,) = panels()
    looks = ((GREEN, "-"), (ORANGE, (0, (1, 1))))
    for name, (color, linestyle) in zip(pieces, looks, strict=False):
        ax.plot(pieces.index, pieces[name], label=name, color=color, linestyle=linestyle)
    ax.axhline(per_word, **THEORY)
    ax.set(xlabel="merges learnt", ylabel="characters per token", ylim=(0, None))
    ax.set(title="What merges buy", xlim=(None, pieces.index[-1]))
    name_lines(ax, (per_word, "one token\nper word", BLACK))
    return figure


def gelu(x: np.ndarray, curves: dict[str, np.ndarray]) -> Figure:
    """The activations (left) and the last less the first (right)."""
    figure, (left, right) = panels(2)
    looks = ((GREEN, "-", 6), (SKY, "--", 2), (ORANGE, ":", 2))
    for (name, y), (color, linestyle, width) in zip(curves.items(), looks, strict=False):
        left.plot(x, y, label=name, color=color, linestyle=linestyle, linewidth=width)
    left.set(xlabel="x", ylabel="activation of x", title="Three activations", ylim=(-0.5, None))
    left.legend(loc="upper left")
    first, second = list(curves.values())[:2]
    right.plot(x, 1e4 * (second - first), color=GREEN)
    right.set(xlabel="x", ylabel="difference (1/10,000)", title="GELU with tanh, less with erf")
    return figure


def mistakes(error: pd.DataFrame, same_ids: pd.DataFrame, tolerances: dict[str, float]) -> Figure:
    """Logit error of each mistake (row) on each checkpoint (column), and whether ids show it.

    Solid markers: some greedy id changed. Hollow: none did. Errors up to 1e-11 lie at
    the first tick; where there is none (NaN), loading raised an error: "refused", on the right.
    """
    figure, (ax,) = panels(height=TALL)
    edge = 1e-11
    ticks = {edge: "≤ $10^{-11}$"} | {10.0**p: f"$10^{{{p}}}$" for p in range(-9, 2, 2)}
    for row, mistake in enumerate(error.index):
        if error.loc[mistake].isna().all():
            ax.annotate("refused", (1, row), (-4, -4), ha="right", **AT_Y)
    for i, (checkpoint, look) in enumerate(CHECKPOINTS.items()):
        at = np.arange(len(error)) + 0.22 * (i - 1)
        size = error[checkpoint].clip(lower=edge)
        hidden = same_ids[checkpoint].to_numpy(dtype=bool)
        for rows, face in ((hidden, "white"), (~hidden, look["color"])):
            ax.plot(size[rows], at[rows], markerfacecolor=face, **look)
    for name, tolerance in tolerances.items():
        ax.axvline(tolerance, **THEORY)
        ax.annotate(name, (tolerance, 0), (4, 3), **AT_X)
    ax.set_yticks(range(len(error)), error.index)
    ax.set_xscale("log")
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set(xlim=(edge / 2, None), ylim=(len(error) + 0.2, -0.6))
    ax.set(xlabel="largest error of a logit", title="What each mistake does, and who sees it")
    figure.legend(handles=_mistakes_legend(), loc="outside lower center", ncols=5)
    return figure


def _mistakes_legend() -> Sequence[plt.Line2D]:
    handles = [plt.Line2D([], [], label=name, **look) for name, look in CHECKPOINTS.items()]
    grey = {"color": "0.4", "linestyle": "", "marker": "o"}
    return [
        *handles,
        plt.Line2D([], [], label="greedy ids change", **grey),
        plt.Line2D([], [], label="greedy ids stay the same", markerfacecolor="white", **grey),
    ]
