"""The figures of chapter 08: the look is that of `course_utils.plots`."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..plots import _OFFSET, SIZE, THEORY, _figure

LINES = (
    {"color": "#000000", "linestyle": "-", "marker": "o"},
    {"color": "#0072B2", "linestyle": "--", "marker": "s"},
    {"color": "#D55E00", "linestyle": "-.", "marker": "^"},
    {"color": "#009E73", "linestyle": ":", "marker": "D"},
    {"color": "#CC79A7", "linestyle": (0, (6, 1, 1, 1)), "marker": "v"},
)
FAMILIES = {
    "whole cache": {"color": "black", "marker": "*", "markersize": 14, "linestyle": ""},
    "fewer heads, pooled": {"color": "#E69F00", "marker": "x", "linestyle": ":"},
    "fewer heads, uptrained": {"color": "#E69F00", "marker": "o", "linestyle": ":"},
    "window": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    "window, layer 1 whole": {"color": "#D55E00", "marker": "^", "linestyle": "-."},
    "eviction": {"color": "#009E73", "marker": "v", "linestyle": "-"},
    "fewer bits": {"color": "#0072B2", "marker": "D", "linestyle": "-"},
    "2 heads, 4 bits": {"color": "#CC79A7", "marker": "P", "linestyle": ""},
}
BELOW = {
    "recall": ("window", "window, layer 1 whole"),
    "perplexity": ("fewer bits",),
}


def grid(numbers: Tensor, title: str) -> Figure:
    """Numbers (num_layers, H) as shares from 0 to 1: a row per layer, a column per head."""
    figure, ax = plt.subplots(figsize=(SIZE[0] / 2, SIZE[1] * 0.8), layout="constrained")
    ax.imshow(numbers.numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    for (layer, head), number in np.ndenumerate(numbers.numpy()):
        color = "white" if number > 0.5 else "black"
        ax.text(head, layer, f"{number:.2f}", ha="center", va="center", color=color)
    ax.set_xticks(range(numbers.size(1)), range(1, numbers.size(1) + 1))
    ax.set_yticks(range(numbers.size(0)), range(1, numbers.size(0) + 1))
    ax.set(xlabel="head", ylabel="layer", title=title)
    return figure


def recall_by_distance(
    panels: dict[str, dict[str, pd.DataFrame]], marks: Sequence[int] = ()
) -> Figure:
    """Recall against distance: a panel per title, a line per cache (`cache_quality.by_distance`).

    A point stands at the far end of its range. `marks` are windows: dashed vertical lines.
    """
    figure, axes = _figure(len(panels))
    for ax, (title, tables) in zip(axes, panels.items(), strict=True):
        for mark in marks:
            ax.axvline(mark, **THEORY)
        for (name, table), look in zip(tables.items(), LINES, strict=False):
            ax.plot(list(table.index), table["recall"], label=name, markersize=5, **look)
        ticks = [int(end) for end in table.index]
        ax.set(xscale="log", ylim=(-0.04, 1.06), title=title)
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel("distance of the fact, up to (tokens)")
    axes[0].set_ylabel("share of questions answered right")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


def stripes(keys: Tensor, values: Tensor) -> Figure:
    """Keys and values (T, d) of one head: a row per position, a column per channel."""
    figure, axes = _figure(2)
    for ax, numbers, name in zip(axes, (keys, values), ("Keys", "Values"), strict=True):
        largest = float(numbers.abs().max())
        image = ax.imshow(numbers.numpy(), cmap="Greys", vmin=-largest, vmax=largest, aspect="auto")
        figure.colorbar(image, ax=ax, shrink=0.8)
        ax.grid(False)
        ax.set(title=name, xlabel="channel", ylabel="position")
    return figure


def rounding(table: pd.DataFrame, whole: float) -> Figure:
    """Perplexity against bits, a line per way of rounding (a column each); dashed: not rounded."""
    figure, (ax,) = _figure()
    at = range(len(table))
    for name, look in zip(table, LINES, strict=False):
        ax.plot(at, table[name], label=name, **look)
    ax.axhline(whole, label="32 bits, whole cache", **THEORY)
    ax.set_xticks(at, [f"{bits} bits" for bits in table.index])
    ax.set(ylabel="perplexity", title="What is rounded together", xlim=(-0.2, len(table) - 0.8))
    ax.legend(frameon=False)
    return figure


def quality_against_bytes(table: pd.DataFrame, highest: float = 4.6) -> Figure:
    """Recall (left) and perplexity up to `highest` (right) against bytes, lines join a family.

    `table` has the columns family, label, bytes, recall and perplexity.
    """
    figure, axes = _figure(2)
    for ax, column in zip(axes, ("recall", "perplexity"), strict=True):
        for family, look in FAMILIES.items():
            part = table[table["family"] == family].sort_values("bytes")
            ax.plot(part["bytes"] / 1e3, part[column], label=family, **({"markersize": 6} | look))
            _names(ax, part, column)
        ax.set(xscale="log", xlabel="bytes for a text of 1000 tokens (kB)", xlim=(50, 6000))
        ax.set_xticks((62, 125, 250, 500, 1000, 2000, 4000))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
    axes[0].set(ylabel="share of questions answered right", title="Recall", ylim=(-0.04, 1.12))
    axes[1].set(ylabel="perplexity", title="Perplexity", ylim=(2.5, highest))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _names(ax: Axes, part: pd.DataFrame, column: str) -> None:
    """A label above, below or beside each point, wherever there is room.

    Of windows with a whole first layer only the smallest gets one.
    """
    family = part["family"].iloc[0] if len(part) else ""
    shift, align = (0, -12 if family in BELOW[column] else 6), "center"
    if family == "fewer heads, uptrained":
        shift, align = (6, -3), "left"
    if family == "window, layer 1 whole":
        part = part.iloc[:1]
    for x, y, label in zip(part["bytes"] / 1e3, part[column], part["label"], strict=True):
        note = {"fontsize": 7, "ha": align, "annotation_clip": True}
        ax.annotate(label, (x, y), shift, **note, **_OFFSET)
