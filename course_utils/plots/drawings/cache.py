"""The drawings of the cache: what is kept, where new tokens go, and its memory (notebook 04)."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...attention import causal_mask
from ..look import NORMAL, SQUARES, TALL
from .grammar import (
    AGAIN,
    DARK,
    KEY,
    NEW,
    PAPER,
    WORDS,
    arrow,
    box,
    brace,
    canvas,
    cell,
    corner,
    key,
    query,
    say,
    token,
    tokens,
    value,
)

TEXT = ["Mia", "found", "the", "red", "lamp"]


def what_is_kept() -> Figure:
    """A new word's query meets the stored keys and values; the old queries are not needed."""
    ax = canvas(NORMAL)
    places = tokens(ax, 1.9, 0.7, TEXT[:4], 1.5)
    for place in places[:-1]:
        gone = {"linestyle": ":", "edgecolor": "0.4"}
        cell(ax, place, 1.4, 0.62, 0.36, "q", **gone)
        key(ax, place, 2.1)
        value(ax, place, 2.8)
    new = places[-1]
    query(ax, new, 1.4)
    key(ax, new, 2.1, **NEW)
    value(ax, new, 2.8, **NEW)
    cell(ax, (places[0] + places[-2]) / 2, 2.45, 4.3, 1.35, facecolor="none", linestyle="--")
    say(ax, (places[0] + places[-2]) / 2, 3.4, "kept from earlier steps: the KV cache", WORDS)
    say(ax, new, 3.4, "made now", WORDS)
    say(ax, 0.95, 1.4, "asked once,\nnever needed\nagain")
    say(ax, 0.75, 2.1, "keys")
    say(ax, 0.75, 2.8, "values")
    corner(ax, (new + 0.35, 1.4), (new + 0.9, 1.4), (new + 0.9, 3.85), (places[0], 3.85), head=False)
    return ax.figure


def mask_offset(stored: int = 3, new: int = 2) -> Figure:
    """The mask of two new words on three stored ones: the last rows of the square."""
    ax = canvas(TALL)
    row = TEXT[: stored + new]
    square = causal_mask(len(row), len(row))
    rows = causal_mask(new, stored + new)
    size = 0.52
    left = 1.3
    for i, word in enumerate(row):
        say(ax, left - 0.4, 3.9 - i * size, word, WORDS, ha="right", style="italic")
    _grid(ax, left, 3.9, square, size)
    frame = {"facecolor": "none", "edgecolor": "black", "linewidth": 3}
    middle = left + (len(row) - 1) * size / 2
    low = 3.9 - (stored + (new - 1) / 2) * size
    cell(ax, middle, low, len(row) * size, new * size, **frame)
    say(ax, middle, 4.6, "without a cache: the square", WORDS)
    arrow(ax, (4.0, low), (4.75, low))
    right = 5.7
    _grid(ax, right, 3.9 - stored * size, rows, size)
    cell(ax, right + middle - left, low, len(row) * size, new * size, **frame)
    for j in range(stored + new):
        look = NEW if j >= stored else {}
        key(ax, right + j * size, 3.9 - (stored - 0.85) * size, "", 0.42, 0.3, **look)
    say(ax, right + middle - left, 4.6, "with a cache: its last rows", WORDS)
    brace(ax, right - 0.2, right + (stored - 0.6) * size, 1.25, "stored")
    brace(ax, right + (stored - 0.4) * size, right + (stored + new - 0.6) * size, 1.25, "new")
    for i in range(new):
        y = 3.9 - (stored + i) * size
        say(ax, right - 0.4, y, row[stored + i], WORDS, ha="right", style="italic")
    return ax.figure


def _grid(ax: Axes, x: float, y: float, mask: Tensor, size: float) -> None:
    """A mask, dark where a query may look; (x, y) is the middle of its first cell."""
    for i in range(mask.size(0)):
        for j in range(mask.size(1)):
            look = {"facecolor": DARK} if mask[i, j] else {}
            cell(ax, x + j * size, y - i * size, size, size, "sees" if mask[i, j] else "", **look)


def positions(stored: int = 4) -> Figure:
    """Where a word comes that is fed alone: after the cache, not at the start again."""
    ax = canvas(SQUARES)
    for y, title, start in ((2.6, "right", stored), (1.0, "wrong", 0)):
        say(ax, 0.3, y, title, WORDS, ha="left", weight="bold")
        places = tokens(ax, 1.7, y, TEXT[:stored], 1.1)
        for position, place in enumerate(places):
            say(ax, place, y + 0.4, str(position), WORDS)
        look = {} if start else AGAIN
        token(ax, 7.0, y, TEXT[stored], 1.1, **look)
        say(ax, 7.0, y + 0.4, str(start), WORDS, weight="bold")
        said = "comes after all\nthat is cached" if start else "takes itself for\nthe first word"
        say(ax, 7.7, y, said, ha="left")
    say(ax, 3.35, 3.4, "cached, with their positions")
    say(ax, 7.0, 3.4, "new, fed alone")
    return ax.figure


def prefill_and_decode() -> Figure:
    """One layer in the two kinds of step, and the cache beside it."""
    ax = canvas(TALL)
    _call(ax, 0.0, "prefill: the prompt, once", TEXT[:3], 0)
    _call(ax, 4.6, "decode: one token at a time", TEXT[3:4], 3)
    return ax.figure


def _call(ax: Axes, left: float, title: str, fed: list[str], stored: int) -> None:
    """A pass of the tokens that are fed through a layer whose cache holds `stored` positions."""
    say(ax, left + 2.1, 5.15, title, WORDS, weight="bold")
    middle = left + 1.35
    places = tokens(ax, middle - 0.4 * (len(fed) - 1), 0.6, fed, 0.8)
    for place in places:
        arrow(ax, (place, 0.82), (place, 1.3))
        arrow(ax, (place, 3.0), (place, 3.5))
        cell(ax, place, 3.7, 0.6, 0.3)
    box(ax, middle, 2.15, 2.4, 1.6, "one layer")
    say(ax, middle, 4.15, "one result for each token fed")
    x = left + 3.75
    for row in range(4):
        y = 1.35 + 0.55 * row
        if row < stored + len(fed):
            look = NEW if row >= stored else {}
            key(ax, x - 0.3, y, "", 0.5, 0.32, **look)
            value(ax, x + 0.27, y, "", 0.5, 0.32, **look)
    cell(ax, x, 2.17, 1.25, 2.35, facecolor="none", linestyle="--")
    say(ax, x, 3.6, "cache")
    arrow(ax, (left + 2.6, 2.5), (left + 3.1, 2.5))
    say(ax, left + 2.85, 2.7, "k, v")
    arrow(ax, (left + 3.1, 1.7), (left + 2.6, 1.7))
    say(ax, left + 2.85, 1.45, "all")
    read = f"read {stored}, written {len(fed)}" if stored else f"written {len(fed)}"
    say(ax, x, 0.7, read)
