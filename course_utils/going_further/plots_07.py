"""The figures of chapter 07: the look is that of `course_utils.plots`."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..plots import _OFFSET, THEORY, _figure, _log_axes

PLAIN, TILES, SDPA = "plain", "in tiles", "PyTorch's SDPA"
SMALL, LARGE = "tiles of 64, in Python", "tiles of 256, in Python"
LOOK = {
    PLAIN: {"color": "#D55E00", "linestyle": "-", "marker": "o"},
    TILES: {"color": "#0072B2", "linestyle": "--", "marker": "s"},
    SDPA: {"color": "#009E73", "linestyle": "-.", "marker": "^"},
}
OTHER = {"color": "#CC79A7", "linestyle": ":", "marker": "D"}
LOOK |= {SMALL: OTHER, LARGE: LOOK[TILES]}


def walks(panels: dict[str, list[tuple[slice, slice]]], length: int, causal: str) -> Figure:
    """Which tiles were computed, numbered in their order; one panel per walk.

    A walk is a list of (rows, columns). Pairs that the panel called `causal` hides are white, and
    so are, hatched, tiles that were left out.
    """
    figure, axes = _figure(len(panels))
    for ax, (title, visits) in zip(axes, panels.items(), strict=True):
        hidden = np.triu(np.ones((length, length)), 1) * (title == causal)
        ax.imshow(0.25 * (1 - hidden), cmap="Greys", vmin=0, vmax=1)
        whole = Rectangle((-0.5, -0.5), length, length, hatch="///", fill=False, edgecolor="0.75")
        ax.add_patch(whole)
        for number, (rows, columns) in enumerate(visits, start=1):
            corner = columns.start - 0.5, rows.start - 0.5
            size = columns.stop - columns.start, rows.stop - rows.start
            ax.imshow(
                0.25 * (1 - hidden[rows, columns]),
                extent=(corner[0], corner[0] + size[0], corner[1] + size[1], corner[1]),
                **{"cmap": "Greys", "vmin": 0, "vmax": 1, "zorder": 2},
            )
            ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor="black", zorder=3))
            middle = corner[0] + size[0] / 2, corner[1] + size[1] / 2
            ax.text(*middle, str(number), ha="center", va="center", fontsize=12, zorder=4)
        edge = length - 0.4
        ax.set(xlim=(-0.6, edge), ylim=(edge, -0.6), title=title)
        ax.set(xlabel="key", ylabel="query")
        ax.grid(False)
    return figure


def traffic(counted: pd.DataFrame, theory: pd.DataFrame, paper: pd.Series) -> Figure:
    """Megabytes moved against tile size: counted (points) and by the formulas (dashed).

    Columns are algorithms, the index is positions per tile, values are bytes. `paper` is N²d²/M; it
    is drawn through the first point of the last column.
    """
    figure, (ax,) = _figure()
    looks = (LOOK[PLAIN], OTHER, LOOK[TILES])
    for name, look in zip(counted, looks, strict=True):
        ax.plot(theory.index, theory[name] / 1e6, **THEORY)
        ax.plot(counted.index, counted[name] / 1e6, **(look | {"linestyle": ""}))
        place = (counted.index[-1], counted[name].iloc[-1] / 1e6)
        ax.annotate(name, place, (10, 0), va="center", color=look["color"], **_OFFSET)
    paper = paper * (counted.iloc[0, -1] / paper.iloc[0]) / 1e6
    ax.plot(paper.index, paper, color="0.5", linewidth=1)
    label = "proportional to N²d²/M"
    ax.annotate(label, (paper.index[-1], paper.iloc[-1]), (10, 0), va="center", **_OFFSET)
    _log_axes(ax, tuple(counted.index))
    ax.set(xlabel="positions in a tile", ylabel="moved (MB)")
    ax.set_title("Bytes to and from slow memory: counted, and by the formulas (dashed)")
    ax.set_xlim(counted.index[0] / 1.2, counted.index[-1] * 4)
    return figure


def peaks(forward: pd.DataFrame, both: pd.DataFrame) -> Figure:
    """Peak memory against length, forward (left) and forward with backward (right).

    The index is positions, values are bytes. Dashed: proportional to the length and to its square,
    through the last point of the first and of the last column.
    """
    figure, axes = _figure(2)
    titles = "Forward", "Forward and backward"
    for ax, table, title in zip(axes, (forward, both), titles, strict=True):
        lengths = table.index.to_numpy(dtype=float)
        for name in table:
            look = LOOK.get(name, OTHER)
            ax.plot(lengths, table[name] / 1e6, label=name, **look)
        for name, power in ((table.columns[0], 2), (TILES, 1)):
            last = table[name].iloc[-1] / 1e6
            ax.plot(lengths, last * (lengths / lengths[-1]) ** power, **THEORY)
            ax.annotate(f"N{'²' * (power == 2)}", (lengths[-1], last), (6, -3), **_OFFSET)
        _log_axes(ax, tuple(table.index))
        ax.set(xlabel="positions N", title=title)
        ax.legend(frameon=False, loc="upper left", fontsize=9)
    axes[0].set_ylabel("peak memory (MB)")
    return figure


def times(milliseconds: pd.DataFrame, splits: pd.Series) -> Figure:
    """Time against length (left); time of one query against the number of splits (right)."""
    figure, (left, right) = _figure(2)
    for name in milliseconds:
        left.plot(milliseconds.index, milliseconds[name], label=name, **LOOK[name])
    _log_axes(left, tuple(milliseconds.index))
    left.set(xlabel="positions N", ylabel="time (ms)", title="N queries, one thread")
    left.legend(frameon=False)
    right.plot(splits.index, splits, **LOOK[SDPA])
    _one_axis(right, splits.index)
    right.set(xlabel="parts of the keys", ylabel="time (ms)", ylim=(0, None))
    right.set_title("One query, its keys in parts")
    return figure


def _one_axis(ax: Axes, ticks: pd.Index) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(ticks), [str(tick) for tick in ticks])
    ax.minorticks_off()
