"""Drawings of what need not be: what a token reads, what is stored, what is kept (07 to 09)."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...transformer import load_config
from ..look import NORMAL, TALL
from .grammar import (
    KEY,
    PAPER,
    SEEN,
    VALUE,
    WORDS,
    arrow,
    box,
    brace,
    canvas,
    cell,
    key,
    query,
    say,
    tensor,
    token,
    value,
)

LAYERS = [f"layer {number + 1}" for number in range(load_config()["num_layers"])]
PARTS = ["embeddings", *LAYERS, "last norm", "projection"]  # in the order in which they are read
LENGTH, TILE = 8, 2  # positions of a square of scores, and of a tile of it
HEADS, TOKENS = 4, 12  # of the cache whose smaller ones are drawn
NEWEST = (0, 9, 10, 11)  # kept by each head, with a first token that always stays
USED = [(1, 4, 10, 11), (0, 6, 10, 11), (2, 5, 10, 11), (1, 8, 10, 11)]  # kept by each


def one_token_reads() -> Figure:
    """A token on its way through the model, what each part reads for it, and the time it takes."""
    ax = canvas(TALL)
    model, weights, stored = 4.7, 3.3, 2.55
    token(ax, 0.7, model, "red")
    for number, part in enumerate(PARTS):
        x = 1.85 + 0.93 * number
        arrow(ax, (x - 0.65 if number else 1.15, model), (x - 0.3, model))
        box(ax, x, model, 0.52, 1.4, part, 90)
        rows = 2 if part in ("embeddings", "last norm") else 3
        tensor(ax, x, weights + 0.11 * (3 - rows), (rows, 3))
        arrow(ax, (x, weights + 0.4), (x, model - 0.75))
        if part in LAYERS:
            key(ax, x, stored + 0.2, "", 0.66, 0.32)
            value(ax, x, stored - 0.2, "", 0.66, 0.32)
    arrow(ax, (7.71, model), (8.06, model))
    token(ax, 8.48, model, "lamp", 0.74)
    say(ax, 0.75, weights, "weights,\nread once")
    say(ax, 0.75, stored, "keys and\nvalues")
    for y, name in ((1.2, "fetch the bytes"), (0.55, "by the clock")):
        say(ax, 2.0, y, name, WORDS, ha="right")
        cell(ax, 3.0, y, 1.6, 0.4, **SEEN)
    cell(ax, 5.85, 0.55, 4.1, 0.4, "", linestyle="--")
    say(ax, 5.85, 0.55, "?", WORDS)
    return ax.figure


def square_and_tile() -> Figure:
    """All scores in memory at once, or a tile of them and what its rows keep of earlier tiles."""
    ax = canvas(NORMAL)
    size, top = 0.3, 3.05
    for left, title in ((1.0, "plain attention"), (4.65, "in tiles")):
        say(ax, left + 3.5 * size, 4.1, title, WORDS, weight="bold")
        for i in range(LENGTH):
            query(ax, left - 0.5, top - i * size, "", 0.42, 0.22)
            key(ax, left + i * size, top + 0.45, "", 0.26, 0.22)
    for i in range(LENGTH):
        for j in range(LENGTH):
            cell(ax, 1.0 + j * size, top - i * size, size, size, **SEEN)
            inside = i // TILE == j // TILE == 2
            look = SEEN if inside else {"edgecolor": "0.75", "linewidth": 0.8}
            cell(ax, 4.65 + j * size, top - i * size, size, size, **look)
    middle = top - 4.5 * size
    arrow(ax, (4.65 + 5.6 * size, middle), (4.65 + 7.7 * size, middle))
    for x, name, columns in ((7.34, "m", 1), (7.76, "l", 1), (8.48, "a", 3)):
        tensor(ax, x, middle, (TILE, columns), size=size, colors=[VALUE if name == "a" else PAPER])
        say(ax, x, middle + 0.5, name, WORDS)
    brace(ax, 1.0 - size / 2, 1.0 + 7.5 * size, 0.6, f"{LENGTH**2} scores")
    brace(ax, 4.65 + 3.5 * size, 4.65 + 5.5 * size, 0.6, f"{TILE**2} scores")
    brace(ax, 7.19, 8.93, 0.6, "kept for two rows")
    return ax.figure


def what_smaller_caches_keep() -> Figure:
    """The keys and values of twelve tokens in four heads, and four ways to keep less of them."""
    ax = canvas(NORMAL)
    everything, newest = [tuple(range(TOKENS))] * HEADS, [NEWEST] * HEADS
    _kept(ax, 0.65, 2.2, "all of it", everything)
    say(ax, 0.65 + 0.1 * (TOKENS - 1), 1.3, "a row for each head,\na column for each token")
    _kept(ax, 3.65, 3.2, "fewer heads", [everything[0], (), everything[0], ()])
    _kept(ax, 6.4, 3.2, "the newest, and the first", newest)
    _kept(ax, 3.65, 1.2, "the most used", USED)
    _kept(ax, 6.4, 1.2, "fewer bits", everything, 0.4)
    return ax.figure


def _kept(
    ax: Axes, left: float, y: float, title: str, kept: list[tuple[int, ...]], high: float = 1.0
) -> None:
    """A row for each head, a cell for each token: green where its key and value are kept."""
    size = 0.2
    say(ax, left + size * (TOKENS - 1) / 2, y + 0.65, title, WORDS, weight="bold")
    for head, positions in enumerate(kept):
        for place in range(TOKENS):
            low = y + size * (HEADS / 2 - 1 - head)
            if place in positions:
                middle = low + size * high / 2
                cell(
                    ax, left + place * size, middle, size, size * high, **(KEY | {"linewidth": 0.8})
                )
            else:
                gone = {"linestyle": ":", "edgecolor": "0.6", "linewidth": 0.8}
                cell(ax, left + place * size, low + size / 2, size, size, **gone)
