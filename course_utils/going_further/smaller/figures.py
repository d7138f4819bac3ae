"""The figures of smaller caches: what is kept, and what that costs (chapter 09)."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from torch import Tensor

from ...plots.look import (
    BLACK,
    BLUE,
    GREEN,
    LOW,
    OFFSET,
    ORANGE,
    PLACE,
    PURPLE,
    SKY,
    SMALL,
    TALL,
    THEORY,
    curve,
    in_cell,
    ink,
    log_x,
    name_lines,
    panels,
)

WHOLE, WINDOW, EVICTION = "whole cache", "window", "eviction"
LOOK = {
    WHOLE: curve(BLACK),
    WINDOW: curve(ORANGE, "--", "s"),
    EVICTION: curve(GREEN, "-.", "v"),
}
LINES = (
    curve(BLACK),
    curve(BLUE, "--"),
    curve(ORANGE, "-.", "^"),
    curve(PURPLE, ":"),
    curve(SKY, (0, (6, 1, 1, 1))),
)
FAMILIES = {
    WHOLE: curve(BLACK, "", "*") | {"markersize": 14},
    "fewer heads, pooled": curve(SKY, ":", "x"),
    "fewer heads, uptrained": curve(SKY, ":", "o"),
    WINDOW: LOOK[WINDOW],
    "window, layer 1 whole": curve(ORANGE, "-.", "^"),
    EVICTION: curve(GREEN, "-", "v"),
    "fewer bits": curve(BLUE, "-", "D"),
    "2 heads, 4 bits": curve(PURPLE, "", "P"),
}
# Where a label goes: right of its point, left of it, below, above, then further off, on a line.
PLACES = (
    *((7, 0, "left"), (-7, 0, "right"), (0, -11, "center"), (0, 11, "center")),
    *((7, 9, "left"), (-7, 9, "right"), (7, -9, "left"), (-7, -9, "right")),
    *((0, 21, "center"), (0, -21, "center"), (20, 14, "left"), (-20, 14, "right")),
    *((20, -14, "left"), (-20, -14, "right"), (0, 33, "center"), (0, -33, "center")),
)


def grid(numbers: Tensor, title: str) -> Figure:
    """Numbers (num_layers, H) as shares from 0 to 1: a row per layer, a column per head."""
    figure, (ax,) = panels(height=LOW)
    ax.imshow(numbers.numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    for (layer, head), number in np.ndenumerate(numbers.numpy()):
        in_cell(ax, layer, head, f"{number:.2f}", dark=number > 0.62, size=None)
    ax.set_xticks(range(numbers.size(1)), range(1, numbers.size(1) + 1))
    ax.set_yticks(range(numbers.size(0)), range(1, numbers.size(0) + 1))
    ax.set(xlabel="head", ylabel="layer", title=title)
    ax.grid(False)
    return figure


def recall_by_distance(
    tables: dict[str, dict[str, pd.DataFrame]], marks: Sequence[int] = ()
) -> Figure:
    """Recall against distance: a panel per title, a line per cache (`cache_quality.by_distance`).

    A point is at the far end of its range. `marks` are windows: grey vertical lines.
    """
    figure, axes = panels(len(tables))
    for ax, (title, caches) in zip(axes, tables.items(), strict=True):
        for mark in marks:
            ax.axvline(mark, **PLACE)
        for (name, table), look in zip(caches.items(), LINES, strict=False):
            look = LOOK.get(name, look)
            ax.plot(list(table.index), table["recall"], label=name, **look)
        log_x(ax, [int(end) for end in table.index])
        ax.set(ylim=(-0.04, 1.06), title=title)
        ax.set_xlabel("distance of the fact, up to (tokens)")
    axes[0].set_ylabel("share of questions answered right")
    for ax in axes:
        name_lines(ax)
    return figure


def stripes(keys: Tensor, values: Tensor) -> Figure:
    """Keys and values (T, d) of one head: a row per position, a column per channel."""
    figure, axes = panels(2)
    look = {"aspect": "auto", "interpolation": "nearest"}
    for ax, numbers, name in zip(axes, (keys, values), ("Keys", "Values"), strict=True):
        largest = float(numbers.abs().max())
        image = ax.imshow(numbers.numpy(), cmap="Greys", vmin=-largest, vmax=largest, **look)
        figure.colorbar(image, ax=ax, shrink=0.8)
        ax.grid(False)
        ax.set(title=name, xlabel="channel", ylabel="position")
    return figure


def rounding(table: pd.DataFrame, whole: float) -> Figure:
    """Perplexity against bits, a line per way of rounding (a column each); dashed: not rounded."""
    figure, (ax,) = panels()
    at = range(len(table))
    for name, look in zip(table, LINES, strict=False):
        ax.plot(at, table[name], label=name.replace(", ", ",\n"), **look)
    ax.axhline(whole, **THEORY)
    ax.set_xticks(at, [f"{bits} bits" for bits in table.index])
    ax.set(ylabel="perplexity", title="What is rounded together", xlim=(-0.2, len(table) - 0.9))
    name_lines(ax, (whole, "32 bits,\nwhole cache", BLACK))
    return figure


def quality_against_bytes(table: pd.DataFrame, highest: float = 4.6) -> Figure:
    """Recall (left) and perplexity up to `highest` (right) against bytes, lines join a family.

    `table` has the columns family, label, bytes, recall and perplexity.
    """
    figure, axes = panels(2, height=TALL)
    for ax, column in zip(axes, ("recall", "perplexity"), strict=True):
        for family, look in FAMILIES.items():
            part = table[table["family"] == family].sort_values("bytes")
            ax.plot(part["bytes"] / 1e3, part[column], label=family, **look)
        log_x(ax, (62.5, 125, 250, 500, 1000, 2000, 4000))
        ax.set(xlabel="bytes for a text of 1000 tokens (kB)", xlim=(45, 6500))
    axes[0].set(ylabel="share of questions answered right", title="Recall", ylim=(-0.08, 1.12))
    axes[1].set(ylabel="perplexity", title="Perplexity", ylim=(2.4, highest))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.draw_without_rendering()
    for ax, column in zip(axes, ("recall", "perplexity"), strict=True):
        _names(ax, table[table[column].between(*ax.get_ylim())], column)
    return figure


def _names(ax: Axes, points: pd.DataFrame, column: str) -> None:
    """A label at each point, at the first place where it touches no point and no other label.

    Rather where it touches no line either. A point for which there is no place stays without.
    """
    dots = ax.transData.transform(points[["bytes", column]].to_numpy() / [1e3, 1])
    taken = [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5) for x, y in dots]
    lines = [line.get_transform().transform_path(line.get_path()) for line in ax.get_lines()]
    edge, renderer = ax.get_window_extent(), ax.figure.canvas.get_renderer()

    def free(box: Bbox, crossing: bool) -> bool:
        inside = edge.contains(*box.min) and edge.contains(*box.max)
        crossed = any(line.intersects_bbox(box, filled=False) for line in lines)
        return inside and (crossing or not crossed) and not box.count_overlaps(taken)

    for point in points.itertuples():
        at = (point.bytes / 1e3, getattr(point, column))
        for crossing, (x, y, align) in itertools.product((False, True), PLACES):
            note = {"fontsize": SMALL, "ha": align, "va": "center"} | OFFSET
            note["color"] = ink(FAMILIES[point.family]["color"])
            if abs(y) > 12:
                arrow = {"arrowstyle": "-", "linewidth": 0.7, "shrinkA": 0}
                note["arrowprops"] = arrow | {"color": note["color"]}
            text = ax.annotate(point.label, at, (x, y), **note)
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer).padded(1)
            if free(box, crossing):
                taken.append(box)
                break
            text.remove()
