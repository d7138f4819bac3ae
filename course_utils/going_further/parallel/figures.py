"""The figures of many processes: who holds, sends and keeps what, how long (chapter 11)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from ...plots.look import (
    BLACK,
    BLUE,
    BUILT,
    CENTRED,
    COSTLY,
    GREEN,
    LOW,
    OFFSET,
    ORANGE,
    PALE,
    SKY,
    THEORY,
    curve,
    name_lines,
    panels,
    spread,
)

RANKS = ListedColormap([GREEN, PALE[ORANGE], BLUE, PALE[SKY]])
INK = ("white", "black", "white", "black")
LOOKS = {
    "cache": curve(GREEN),
    "weights": curve(ORANGE, "-.", "s"),
}
SIGN = {
    "fontsize": 13,
    "fontstyle": "italic",
    "bbox": {"boxstyle": "circle", "facecolor": "white", "edgecolor": "black"},
} | CENTRED


def who_holds_what(owners: dict[str, Tensor]) -> Figure:
    """The matrices of a layer on one scale, in the order of the data, coloured by rank.

    `owners` has, for each weight (D_out, D_in), the rank that holds each of its numbers.
    """
    figure, (ax,) = panels(height=LOW)
    ax.axis("off")
    ax.grid(False)
    height = max(owner.size(0) for owner in owners.values())
    left, gap = 0.0, 0.09 * height
    for name, owner in owners.items():
        left += {"W_q": 1.4, "W_o": 0.5, "fc1": 2.2}.get(name, 0) * gap
        if name in ("W_q", "fc1"):
            ax.text(left - 0.7 * gap, height / 2, "f", **SIGN)
        low = (height - owner.size(0)) / 2
        _matrix(ax, owner, left, low)
        middle = left + owner.size(1) / 2
        ax.text(middle, low - 0.02 * height, name, ha="center", va="bottom")
        left += owner.size(1) + 0.35 * gap
        if name in ("W_o", "fc2"):
            ax.text(left + 0.35 * gap, height / 2, "g", **SIGN)
            left += gap
    ax.set(xlim=(0, left), ylim=(height, -0.08 * height))
    ax.set_title("Which rank holds which numbers of a layer's weights")
    return figure


def _matrix(ax: Axes, owner: Tensor, left: float, low: float) -> None:
    """A matrix from the corner (left, low), a colour per rank, with its number in the middle."""
    rows, columns = owner.shape
    extent = (left, left + columns, low + rows, low)
    look = {"cmap": RANKS, "vmin": 0, "vmax": RANKS.N - 1, "interpolation": "nearest"}
    ax.imshow(owner.numpy(), extent=extent, **look)
    for rank in owner.unique().tolist():
        row, column = (owner == rank).double().nonzero().double().mean(dim=0).tolist()
        at = (left + column + 0.5, low + row + 0.5)
        ax.text(*at, str(rank), color=INK[rank], fontsize=10, **CENTRED)


def sent_and_kept(wire: pd.Series, ring: pd.Series, kept: pd.DataFrame) -> Figure:
    """Left: what a process sends for each byte of a tensor. Right: what it keeps, of a whole.

    `wire` was measured, `ring` counted, by number of processes; `kept` has a column for the
    weights and one for the cache, as shares.
    """
    figure, (left, right) = panels(2)
    many = np.linspace(1, ring.index.max(), 100)
    left.plot(many, 2 * (many - 1) / many, **THEORY)
    left.plot(many, many - 1, **(THEORY | {"linestyle": ":"}))
    left.annotate("2 (n - 1) / n", (5.5, 1.64), (0, 10), ha="center", **OFFSET)
    left.annotate("n - 1: all to all", (3.4, 2.4), (-6, 6), ha="right", **OFFSET)
    left.plot(ring.index, ring, label="ring by hand, counted", **curve(GREEN, "", "x"))
    hollow = curve(ORANGE, "") | {"markersize": 10, "fillstyle": "none"}
    left.plot(wire.index, wire, label="gloo, measured", **hollow)
    left.set(xlabel="processes n", ylabel="bytes sent per byte of tensor", ylim=(-0.1, 3))
    left.set_title("What each process sends")
    left.legend(loc="lower right")
    for name in kept:
        right.plot(kept.index, kept[name], label=name, **LOOKS[name])
    right.plot(many, 1 / many, **THEORY)
    right.set(xlabel="processes n", ylabel="bytes, of the whole model's", ylim=(0, 1.05))
    right.set(xlim=(0.8, kept.index.max() + 0.2), xticks=list(kept.index))
    right.set_title("What each process keeps")
    most = kept.index.max()
    right.annotate("1 / n", (most / 2.8, 2.8 / most), (-8, -8), ha="right", va="top", **OFFSET)
    name_lines(right)
    return figure


def shares(times: pd.DataFrame, rounds: pd.DataFrame | None = None) -> Figure:
    """How long it takes together, as a multiple of alone on one thread; a panel per task.

    `times` has rows (task, model) and columns `computing` and `all-reduces`, as multiples of the
    time alone on one thread. `rounds` has, for the same rows, `low` and `high` of the whole time
    over the rounds, as such multiples: thin bars.
    """
    tasks = times.index.unique("task")
    figure, axes = panels(len(tasks))
    for ax, task in zip(axes, tasks, strict=True):
        part = times.loc[task]
        y = np.arange(len(part))
        inside, total = part["computing"], part["computing"] + part["all-reduces"]
        ax.barh(y, inside, 0.5, label="computing", **BUILT)
        ax.barh(y, total - inside, 0.5, left=inside, label="in all-reduces", **COSTLY)
        ends = total if rounds is None else rounds.loc[task].loc[part.index, "high"]
        if rounds is not None:
            low = rounds.loc[task].loc[part.index, "low"]
            spread(ax, y, low, ends, BLACK, across=True)
        for at, value, end in zip(y, total, np.maximum(total, ends), strict=True):
            note = {"va": "center", "bbox": {"facecolor": "white", "linewidth": 0, "pad": 1}}
            ax.annotate(f"{value:.1f}", (end, at), (6, 0), **note, **OFFSET)
        ax.axvline(1, zorder=1, **THEORY)
        ax.set_yticks(y, list(part.index))
        ax.set(xlabel="times as long as alone on one thread", title=task)
        ax.set_xlim(0, 1.2 * max(*np.maximum(total, ends), 1))
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    handles, labels = axes[0].get_legend_handles_labels()
    handles.append(plt.Line2D([], [], **THEORY))
    labels.append("alone, one thread")
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure
