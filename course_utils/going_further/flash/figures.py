"""The figures of attention in tiles: walks, bytes moved, memory, time (chapter 08)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...plots.look import (
    BLACK,
    BLUE,
    CENTRED,
    GREEN,
    GREY,
    OFFSET,
    ORANGE,
    PURPLE,
    THEORY,
    curve,
    log_axes,
    log_x,
    name_lines,
    panels,
    quartiles,
    spread,
)

PLAIN, TILES, SDPA = "plain", "in tiles", "PyTorch's SDPA"
SMALL, LARGE = "tiles of 64, in Python", "tiles of 256, in Python"
LOOK = {
    PLAIN: curve(ORANGE),
    TILES: curve(GREEN, "--", "s"),
    SDPA: curve(PURPLE, "-.", "^"),
}
OTHER = curve(BLUE, ":", "D")
LOOK |= {SMALL: OTHER, LARGE: LOOK[TILES]}


def walks(walks_of: dict[str, list[tuple[slice, slice]]], length: int, causal: str) -> Figure:
    """Which tiles were computed, numbered in their order; one panel per walk.

    A walk is a list of (rows, columns). Pairs that the panel called `causal` hides are white, and
    so are, hatched, tiles that were left out.
    """
    figure, axes = panels(len(walks_of))
    for ax, (title, visits) in zip(axes, walks_of.items(), strict=True):
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
            ax.text(*middle, str(number), fontsize=12, zorder=4, **CENTRED)
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
    figure, (ax,) = panels()
    looks = (LOOK[PLAIN], OTHER, LOOK[TILES])
    for name, look in zip(counted, looks, strict=True):
        ax.plot(theory.index, theory[name] / 1e6, **THEORY)
        ax.plot(counted.index, counted[name] / 1e6, label=name, **(look | {"linestyle": ""}))
    paper = paper * (counted.iloc[0, -1] / paper.iloc[0]) / 1e6
    ax.plot(paper.index, paper, color=GREY, linewidth=1)
    log_axes(ax, tuple(counted.index))
    ax.set(xlabel="positions in a tile", ylabel="moved (MB)")
    ax.set_title("Bytes to and from slow memory: counted (points), by the formulas (dashed)")
    name_lines(ax, (paper.iloc[-1], "proportional to N²d²/M", BLACK))
    return figure


def peaks(forward: pd.DataFrame, both: pd.DataFrame) -> Figure:
    """Peak memory against length, forward (left) and forward with backward (right).

    The index is positions, values are bytes. Dashed: proportional to the length and to its square,
    through the last point of the first and of the last column.
    """
    figure, axes = panels(2)
    titles = "Forward", "Forward and backward"
    for ax, table, title in zip(axes, (forward, both), titles, strict=True):
        lengths = table.index.to_numpy(dtype=float)
        for name in table:
            look = LOOK.get(name, OTHER)
            ax.plot(lengths, table[name] / 1e6, label=name.replace(", ", ",\n"), **look)
        for name, power in ((table.columns[0], 2), (TILES, 1)):
            law = table[name].iloc[-1] / 1e6 * (lengths / lengths[-1]) ** power
            ax.plot(lengths, law, **THEORY)
            said, shift, side = (
                ("∝ N²", (-8, 8), "right") if power == 2 else ("∝ N", (8, -14), "left")
            )
            ax.annotate(said, (lengths[1], law[1]), shift, ha=side, **OFFSET)
        log_axes(ax, tuple(table.index))
        ax.set(xlabel="positions N", title=title)
    axes[0].set_ylabel("peak memory (MB)")
    for ax in axes:
        name_lines(ax)
    return figure


def times(
    milliseconds: pd.DataFrame | dict[int, pd.DataFrame], splits: pd.Series | pd.DataFrame
) -> Figure:
    """Time against length (left); time of one query against the number of splits (right).

    `milliseconds`: medians, a row per length; or for each length a table with a row per round.
    `splits`: medians; or a row per round. Of rounds, the quartiles are drawn as thin bars.
    """
    figure, (left, right) = panels(2)
    if isinstance(milliseconds, dict):
        parts = {length: quartiles(rounds) for length, rounds in milliseconds.items()}
        low, medians, high = (
            pd.DataFrame({length: part[i] for length, part in parts.items()}).T for i in range(3)
        )
    else:
        low, medians, high = None, milliseconds, None
    for name in medians:
        look = LOOK[name]
        left.plot(medians.index, medians[name], label=name.replace(", ", ",\n"), **look)
        if low is not None:
            spread(left, medians.index, low[name], high[name], look["color"])
    log_axes(left, tuple(medians.index))
    left.set(xlabel="positions N", ylabel="time (ms)", title="N queries, one thread")
    low, middle, high = quartiles(splits)
    right.plot(middle.index, middle, **LOOK[SDPA])
    if isinstance(splits, pd.DataFrame):
        spread(right, middle.index, low, high, LOOK[SDPA]["color"])
    log_x(right, middle.index, base=2)
    right.set(xlabel="parts of the keys", ylabel="time (ms)", ylim=(0, None))
    right.set_title("One query, its keys in parts")
    name_lines(left)
    return figure
