"""The figures of generation: the choice of a word, and what it costs (notebook 03)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..benchmark import NO_CACHE
from .look import (
    BLUE,
    CONTENDERS,
    COSTLY,
    GREEN,
    GREY,
    OFFSET,
    ORANGE,
    THEORY,
    ink,
    panels,
    spread,
)


def temperatures(words: list[str], probabilities: dict[float, Tensor]) -> Figure:
    """The likeliest words at several temperatures: one panel each, a bar per word."""
    figure, axes = panels(len(probabilities))
    highest = max(p.max().item() for p in probabilities.values())
    for ax, (temperature, shares) in zip(axes, probabilities.items(), strict=True):
        ax.barh(words, shares.numpy(), color=GREEN)
        ax.set(title=f"temperature {temperature:g}", xlim=(0, 1.1 * highest))
        ax.set_xlabel("probability")
        ax.invert_yaxis()
    return figure


def cuts(places: dict[str, tuple[list[str], Tensor, int, int]]) -> Figure:
    """What top-k and top-p keep: a panel per place, the cuts drawn between the ordered words.

    `places` holds, by title: words in order, their probabilities, how many each of the two keeps.
    """
    figure, axes = panels(len(places))
    for ax, (title, (words, shares, by_k, by_p)) in zip(axes, places.items(), strict=True):
        ax.barh(words, shares.numpy(), color=GREY, height=0.6)
        edge = 1.15 * shares.max().item()
        _cut(ax, edge, by_k, "top-k", {"color": BLUE, "linestyle": "--"}, -13)
        _cut(ax, edge, by_p, "top-p", {"color": ORANGE, "linestyle": "-"}, 4)
        ax.set(title=title, xlabel="probability", xlim=(0, edge))
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    return figure


def _cut(ax: Axes, edge: float, kept: int, name: str, look: dict, drop: int) -> None:
    """The line below the words that are kept, named `drop` points above it."""
    ax.axhline(kept - 0.5, linewidth=2, **look)
    note = {"ha": "right", "color": ink(look["color"])} | OFFSET
    drop = -13 if kept < 3 else drop  # above it there is no room
    ax.annotate(f"{name} keeps {kept}", (edge, kept - 0.5), (0, drop), **note)


def repeated_work(tokens: np.ndarray, needed: np.ndarray, repeated: np.ndarray) -> Figure:
    """Operations per step without a cache: for the newest token, and repeated (hatched)."""
    figure, (ax,) = panels()
    million = 1e6
    again = {"label": "done before, and done again", "width": 0.8} | COSTLY
    ax.bar(tokens, repeated / million, bottom=needed / million, **again)
    ax.bar(tokens, needed / million, color=GREEN, width=0.8, label="for the newest token")
    ax.set(xlabel="tokens in the text", ylabel="operations (millions)")
    ax.set(title="One step without a cache", xlim=(tokens[0] - 0.6, tokens[-1] + 0.6))
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper left")
    return figure


def step_times(times: pd.DataFrame) -> Figure:
    """Time of one forward pass over the whole text, and the count, scaled to its last point.

    Columns tokens, operations, and median, low, high (seconds).
    """
    figure, (ax,) = panels()
    look = CONTENDERS[NO_CACHE]
    ax.plot(times["tokens"], 1e3 * times["median"], **look)
    spread(ax, times["tokens"], 1e3 * times["low"], 1e3 * times["high"], look["color"])
    last = times.iloc[-1]
    by_count = last["median"] / last["operations"] * times["operations"]
    ax.plot(times["tokens"], 1e3 * by_count, **THEORY)
    ax.set(xlabel="tokens in the text", ylabel="time for one more word (ms)", ylim=(0, None))
    ax.set_title("Writing gets slower as the text gets longer")
    return figure
