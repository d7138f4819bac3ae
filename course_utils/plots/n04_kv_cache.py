"""The figures of the cache: what may be kept, its masks, its filling, its bytes (notebook 04)."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from .look import (
    CONTENDERS,
    GREEN,
    MARKED,
    SQUARES,
    TALL,
    THEORY,
    in_cell,
    name_lines,
    panels,
)


def what_changes(differences: dict[str, Tensor], tokens: list[str]) -> Figure:
    """How far the stored keys move when one token is added: (num_layers, T) per panel, by title.

    The last column of each panel is the added token, which had no key before (hatched).
    """
    figure, axes = panels(1, len(differences), height=TALL, sharex=True)
    for ax, (title, moved) in zip(np.ravel(axes), differences.items(), strict=True):
        num_layers, num_tokens = moved.shape
        ax.imshow((moved > 1e-9).numpy(), cmap="Greys", vmin=0, vmax=3, aspect="auto")
        new = {"fill": False, "hatch": "////", "edgecolor": GREEN}
        ax.add_patch(plt.Rectangle((num_tokens - 0.5, -0.5), 1, num_layers, **new))
        for (layer, token), value in np.ndenumerate(moved.numpy()):
            in_cell(ax, layer, token, f"{value:.2f}")
        ax.set_yticks(range(num_layers), [f"layer {i + 1}" for i in range(num_layers)])
        ax.set(title=title, xlim=(-0.5, num_tokens + 0.5))
        ax.grid(False)
    ax.set_xticks(range(num_tokens + 1), tokens)
    return figure


def masks(grids: dict[str, tuple[Tensor, list[str], list[str]]]) -> Figure:
    """Boolean masks (Q, K) side by side, with the words of their rows and columns, by title."""
    widths = [mask.size(1) for mask, _, _ in grids.values()]
    figure, axes = panels(len(grids), height=SQUARES, width_ratios=widths)
    for ax, (title, (mask, queries, keys)) in zip(axes, grids.items(), strict=True):
        ax.imshow(mask.numpy(), cmap="Greys", vmin=-0.4, vmax=1.4)
        for (row, column), seen in np.ndenumerate(mask.numpy()):
            in_cell(ax, row, column, "sees" if seen else "−∞", dark=seen)
        ax.set_xticks(range(len(keys)), keys, rotation=90)
        ax.set_yticks(range(len(queries)), queries)
        ax.set(title=title, xlabel="key", anchor="N")
        ax.grid(False)
    axes[0].set_ylabel("query")
    return figure


def filling(chunks: list[int], tokens: list[str]) -> Figure:
    """The cache after each call: what was read (grey), what was written (hatched)."""
    figure, (ax,) = panels()
    stored = 0
    for call, chunk in enumerate(chunks):
        ax.barh(call, stored, color="0.75", height=0.8)
        ax.barh(call, chunk, left=stored, height=0.8, **MARKED)
        stored += chunk
    names = [f"prefill: {chunks[0]} in", *(f"decode: {n} in" for n in chunks[1:])]
    ax.set_yticks(range(len(chunks)), names)
    ax.set_xticks(np.arange(len(tokens)) + 0.5, tokens, rotation=90)
    ax.set(xlim=(0, len(tokens)), title="Keys and values in the cache, call by call")
    handles = [Patch(color="0.75", label="read"), Patch(label="written", **MARKED)]
    ax.legend(handles=handles, loc="upper right")
    ax.invert_yaxis()
    ax.grid(False)
    return figure


def cache_bytes(
    predicted: dict[str, list[int]], allocated: dict[str, list[int]], tokens: list[int]
) -> Figure:
    """Bytes of each cache against the tokens it holds: formula (dashed), allocated (points)."""
    figure, (ax,) = panels()
    for name, numbers in allocated.items():
        ax.plot(tokens, np.array(predicted[name]) / 1e6, **THEORY)
        points = CONTENDERS[name] | {"linestyle": ""}
        ax.plot(tokens, np.array(numbers) / 1e6, label=name, **points)
    ax.set(xlabel="tokens in the cache", ylabel="memory (MB)", ylim=(0, None))
    ax.set_title("Bytes, predicted (dashed) and allocated (points)")
    name_lines(ax)
    return figure
