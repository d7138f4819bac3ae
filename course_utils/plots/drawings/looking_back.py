"""The drawings of attention: a query meets keys, the mask, one head, many heads (notebook 01)."""

import math

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...attention import attention_weights, causal_mask
from ..look import NORMAL, SQUARES, TALL
from .grammar import (
    EDGE,
    FRAME,
    KEY,
    QUERY,
    SEEN,
    VALUE,
    WORDS,
    arrow,
    box,
    brace,
    canvas,
    cell,
    corner,
    grid,
    key,
    query,
    say,
    tensor,
    token,
    tokens,
    value,
)

ASKED = torch.tensor([[3.0, 0]])  # the query of "lamp?"
LOOKS = {"q": QUERY, "k": KEY, "v": VALUE}
SENTENCE = ["Mia", "found", "the", "lamp"]
OFFERED = {"lamp": (1.0, 0), "box": (2, 0), "Tom": (0, 1)}  # the keys of three words


def query_meets_keys() -> Figure:
    """One query, three keys: scores, their softmax, and the values mixed by it."""
    ax = canvas(NORMAL)
    keys = torch.tensor(list(OFFERED.values()))
    scores = (ASKED @ keys.T / math.sqrt(ASKED.size(1)))[0].tolist()
    weights = attention_weights(ASKED, keys)[0].tolist()
    for x, text in {2.8: "1  compare", 4.75: "2  softmax", 7.3: "3  mix"}.items():
        say(ax, x, 4.1, text, WORDS, weight="bold")
    for x, text in {2.8: "keys", 4.0: "scores", 5.05: "weights", 6.5: "values"}.items():
        say(ax, x, 3.7, text)
    token(ax, 0.65, 2.2, "lamp?")
    query(ax, 0.7, 1.8, "3  0", 0.9)
    say(ax, 0.65, 1.4, "its query")
    for y, word, score, weight in zip((2.9, 1.8, 0.7), OFFERED, scores, weights, strict=True):
        numbers = "  ".join(f"{number:g}" for number in OFFERED[word])
        key(ax, 2.8, y, numbers, 0.9)
        token(ax, 2.8, y + 0.4, word)
        arrow(ax, (1.2, 1.8), (2.3, y))
        say(ax, 4.0, y, f"{score:.1f}", WORDS)
        cell(ax, 4.7 + 0.35 * weight, y, 0.7 * weight, 0.26, facecolor=EDGE)
        say(ax, 5.65, y, f"{weight:.2f}", WORDS)
        value(ax, 6.5, y, f"“{word}”", 0.9)
        arrow(ax, (7.0, y), (7.75, 1.8 + 0.09 * (y - 1.8)), linewidth=1 + 4 * weight)
    value(ax, 8.3, 1.8, "“box”", 0.9)
    say(ax, 8.3, 1.4, "nearly all")
    return ax.figure


def no_looking_ahead() -> Figure:
    """What one word may look at, and the mask of which this is one row."""
    ax = canvas(SQUARES)
    places = tokens(ax, 0.8, 1.15, SENTENCE, 0.9)
    mask = causal_mask(len(SENTENCE), len(SENTENCE))
    asking = 2
    for place, seen in zip(places, mask[asking], strict=True):
        key(ax, place, 1.75)
        if seen:
            corner(ax, (places[asking], 2.6), (place, 2.6), (place, 2.0))
        else:
            say(ax, place, 2.15, "hidden")
    query(ax, places[asking], 2.82)
    say(ax, places[asking] - 0.45, 2.82, "what does it look at?", ha="right")
    brace(ax, places[0] - 0.4, places[asking] + 0.4, 0.75, "itself and what came before")
    _mask(ax, 6.3, 2.55, mask, asking)
    return ax.figure


def _mask(ax: Axes, x: float, y: float, mask: Tensor, marked: int, size: float = 0.62) -> None:
    """The mask of the sentence, from the middle of its first cell; one row is framed."""
    grid(ax, x, y, mask, size, "−∞")
    for i, word in enumerate(SENTENCE):
        say(ax, x - 0.45, y - i * size, word, WORDS, ha="right", style="italic")
        say(ax, x + i * size, y + 0.48, word, style="italic")
    middle, width = x + (mask.size(1) - 1) * size / 2, mask.size(1) * size
    cell(ax, middle, y - marked * size, width, size, **FRAME)


def one_head() -> Figure:
    """One head from x to its result: every tensor with its shape."""
    ax = canvas(TALL)
    tensor(ax, 0.95, 2.9, (3, 4), ("T", "D"))
    say(ax, 0.95, 2.35, "x", WORDS)
    for name, y in {"q": 4.6, "k": 2.9, "v": 1.2}.items():
        arrow(ax, (1.45, 2.9 + 0.1 * (y - 2.9)), (2.0, y))
        box(ax, 2.4, y, 0.75, 0.5, f"W_{name}")
        arrow(ax, (2.8, y), (3.35, y))
        tensor(ax, 4.0, y, (3, 4), ("T", "D"), colors=[LOOKS[name]])
        say(ax, 4.0, y - 0.55, name, WORDS)
    corner(ax, (4.55, 4.6), (5.65, 4.6), (5.65, 4.4))
    corner(ax, (4.55, 2.9), (5.65, 2.9), (5.65, 3.25))
    say(ax, 6.2, 4.55, "compare, mask,\nsoftmax", ha="left")
    _weights(ax, 5.65, 3.75, 0.28, ("T", ""))
    say(ax, 5.93, 4.3, "T")
    say(ax, 4.5, 3.75, "weights", WORDS)
    arrow(ax, (6.15, 3.75), (7.25, 3.75))
    corner(ax, (4.55, 1.2), (6.6, 1.2), (6.6, 3.55), (7.25, 3.55))
    say(ax, 6.65, 3.95, "mix")
    tensor(ax, 7.95, 3.65, (3, 4), ("T", "D"), colors=[VALUE])
    arrow(ax, (7.95, 3.25), (7.95, 2.8))
    box(ax, 7.95, 2.5, 0.75, 0.5, "W_o")
    arrow(ax, (7.95, 2.2), (7.95, 1.8))
    tensor(ax, 7.95, 1.2, (3, 4), ("T", "D"))
    say(ax, 7.95, 0.65, "the result", WORDS)
    return ax.figure


def _weights(ax: Axes, x: float, y: float, size: float, edges: tuple[str, str]) -> None:
    """Weights of three tokens on three: dark where the causal mask lets a query look."""
    mask = causal_mask(3, 3)
    tensor(ax, x, y, (3, 3), edges, size)
    for i, j in mask.nonzero().tolist():
        cell(ax, x + (j - 1) * size, y - (i - 1) * size, size, size, **SEEN)


def many_heads() -> Figure:
    """Two heads: each takes its columns of q, k and v, and the results are put side by side."""
    ax = canvas(TALL)
    for name, y in {"q": 4.3, "k": 2.8, "v": 1.3}.items():
        _halves(ax, 1.2, y, name)
        say(ax, 0.3, y, name, WORDS)
    for head, y in enumerate((4.1, 1.5)):
        arrow(ax, (1.85, 2.8 + 0.25 * (y - 2.8)), (2.5, y))
        say(ax, 4.6, y + 0.95, f"head {head}", WORDS, weight="bold")
        for name, x in {"q": 3.0, "k": 3.85, "v": 4.7}.items():
            tensor(ax, x, y, (3, 2), ("", "d"), colors=[LOOKS[name]])
            say(ax, x, y - 0.52, name, WORDS)
        arrow(ax, (5.05, y), (5.4, y))
        _weights(ax, 5.85, y, 0.24, ("", ""))
        say(ax, 5.85, y - 0.55, "weights")
        arrow(ax, (6.3, y), (6.65, y))
        tensor(ax, 7.0, y, (3, 2), ("", "d"), colors=[VALUE])
        arrow(ax, (7.3, y), (7.75, 2.8 + 0.35 * (y - 2.8)))
    _halves(ax, 8.35, 2.8, "v")
    arrow(ax, (8.35, 2.35), (8.35, 1.8))
    box(ax, 8.35, 1.5, 0.75, 0.5, "W_o")
    return ax.figure


def _halves(ax: Axes, x: float, y: float, name: str) -> None:
    """A tensor (T, D), its columns in two groups: those of head 0 and those of head 1."""
    tensor(ax, x - 0.26, y, (3, 2), ("T", ""), colors=[LOOKS[name]])
    tensor(ax, x + 0.26, y, (3, 2), colors=[LOOKS[name]])
    say(ax, x, y + 0.46, "D")
