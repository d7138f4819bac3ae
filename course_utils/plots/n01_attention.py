"""The figures of attention: the softmax, three steps, all heads, one lookup (notebook 01)."""

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from .look import (
    GREEN,
    GREY,
    MARKED,
    OFFSET,
    ORANGE,
    PAGE,
    SMALL,
    SQUARES,
    TALL,
    in_cell,
    ink,
    name_lines,
    panels,
)


def softmax_overflow(scales: Tensor, weights: dict[str, Tensor]) -> Figure:
    """The larger of two weights against the distance of their scores; NaN breaks the line off.

    `weights` holds one tensor (one number per scale) for each way of computing the softmax.
    """
    figure, (ax,) = panels()
    looks = ({"color": ORANGE, "linewidth": 7}, {"color": GREEN, "linestyle": (0, (1, 1))})
    end, ends = scales[-1].item(), []
    for (name, values), look in zip(weights.items(), looks, strict=True):
        ax.plot(scales.numpy(), values.numpy(), **look)
        broken = values.isnan().nonzero()
        if len(broken):
            start = scales[broken[0, 0]].item()
            ax.axvspan(start, end, color="0.9", zorder=0)
            note = {"color": ink(look["color"]), "ha": "right"} | OFFSET
            said = f"{name} (wide line): NaN from {start:.0f} on"
            ax.annotate(said, (start, 0.7), (-6, 0), **note)
        else:
            ends.append((values[-1].item(), name, look["color"]))
    ax.set(xlabel="one score is 0, the other is this", ylabel="weight of the larger score")
    ax.set(title="The softmax that overflows, and the one that does not", xlim=(None, end))
    name_lines(ax, *ends)
    return figure


def attention_steps(tokens: list[str], scores: Tensor, masked: Tensor, weights: Tensor) -> Figure:
    """Scores, masked scores and weights (T, T) side by side, each number written in its cell."""
    figure, axes = panels(3, height=SQUARES)
    titles = ("scores", "masked scores", "weights: rows sum to 1")
    for ax, title, matrix in zip(axes, titles, (scores, masked, weights), strict=True):
        darkest = 1.3 * matrix[matrix.isfinite()].max().item()
        ax.imshow(matrix.numpy(), cmap="Greys", vmin=0, vmax=darkest)
        for (row, column), value in np.ndenumerate(matrix.numpy()):
            text = f"{value:.1f}" if np.isfinite(value) else "−∞"
            in_cell(ax, row, column, text, dark=value > darkest / 2)
        ax.set_xticks(range(len(tokens)), tokens, rotation=90)
        ax.set_yticks(range(len(tokens)), tokens)
        ax.set(title=title, xlabel="key", anchor="N")
        ax.grid(False)
    axes[0].set_ylabel("query")
    return figure


def all_heads(maps: Tensor) -> Figure:
    """Attention weights (num_layers, H, T, T): one small map per head, layers downwards."""
    num_layers, num_heads = maps.shape[:2]
    figure, axes = panels(num_heads, num_layers, height=PAGE)
    for (layer, head), ax in np.ndenumerate(axes):
        ax.imshow(maps[layer, head].sqrt().numpy(), cmap="Greys", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[], title=f"layer {layer + 1}, head {head + 1}")
        ax.grid(False)
    figure.supxlabel("key (first token to last)")
    figure.supylabel("query (last token to first)")
    return figure


def lookup(tokens: list[str], rows: dict[str, Tensor], marked: dict[str, int]) -> Figure:
    """Where the last token looks: one panel per head, a bar per token, one bar hatched and named.

    `rows` holds weights (T,) by title; `marked` the position to point at, by the same title.
    """
    figure, axes = panels(1, len(rows), height=TALL, sharex=True)
    for ax, (title, weights) in zip(np.ravel(axes), rows.items(), strict=True):
        bars = ax.bar(range(len(tokens)), weights.numpy(), color=GREY)
        at = marked[title]
        bars[at].set(**MARKED)
        height = weights[at].item()
        said = f"{tokens[at]} {height:.2f}"
        ax.annotate(said, (at, height), (0, 3), ha="center", **OFFSET)
        ax.set(title=title, ylabel="weight", ylim=(0, 1.15), yticks=np.linspace(0, 1, 6))
        ax.spines["left"].set_bounds(0, 1)
        ax.grid(axis="x", visible=False)
    words = ["full stop" if token == "." else token for token in tokens]
    ax.set_xticks(range(len(tokens)), words, rotation=90, fontsize=SMALL)
    return figure
