"""The drawings of the model: from ids to logits, and the block it repeats (notebook 02)."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from ...stories import Tokenizer
from ...transformer import load_config
from ..look import NORMAL, TALL
from .grammar import (
    PAPER,
    SEEN,
    WORDS,
    arrow,
    box,
    canvas,
    cell,
    corner,
    say,
    tensor,
    token,
)

BEGINNING = ["Mia", "found", "the"]


def whole_model() -> Figure:
    """Words, ids, vectors, the layers, and a row of scores for each position."""
    ax = canvas(NORMAL)
    rows = (3.1, 2.3, 1.5)
    ids = Tokenizer().encode(BEGINNING)
    for y, word, number in zip(rows, BEGINNING, ids, strict=True):
        token(ax, 0.6, y, word)
        arrow(ax, (1.05, y), (1.35, y))
        say(ax, 1.6, y, str(number), WORDS)
        arrow(ax, (1.85, y), (2.15, y))
        tensor(ax, 2.65, y, (1, 4))
        arrow(ax, (3.15, y), (3.52, y))
        arrow(ax, (7.08, y), (7.35, y))
        tensor(ax, 8.05, y, (1, 6), colors=[SEEN if y == rows[-1] else PAPER])
    for x, text in {0.6: "words", 1.6: "ids", 2.65: "D numbers"}.items():
        say(ax, x, 3.75, text)
    say(ax, 8.05, 3.75, "logits: V scores")
    layers = [f"layer {number + 1}" for number in range(load_config()["num_layers"])]
    for number, part in enumerate([*layers, "last norm", "projection"]):
        box(ax, 3.8 + 0.6 * number, 2.3, 0.46, 2.4, part, 90)
    say(ax, 2.65, 0.85, "its word's row\n+ its position's row")
    say(ax, 8.05, 0.95, "the last row scores\nthe next word")
    return ax.figure


def block() -> Figure:
    """The residual stream: each part reads a normed copy and adds what it makes."""
    ax = canvas(TALL)
    stream, parts = 1.3, 2.5
    arrow(ax, (0.8, stream), (8.5, stream), linewidth=5, mutation_scale=24)
    say(ax, 0.6, stream, "x", WORDS)
    for start, norm, part in ((1.2, "norm1", "attention"), (4.8, "norm2", "feed-forward")):
        corner(ax, (start, stream), (start, parts), (start + 0.2, parts))
        box(ax, start + 0.65, parts, 0.85, 0.55, norm)
        arrow(ax, (start + 1.1, parts), (start + 1.3, parts))
        box(ax, start + 2.05, parts, 1.45, 0.55, part)
        corner(ax, (start + 2.8, parts), (start + 3.0, parts), (start + 3.0, stream + 0.2))
        plus(ax, start + 3.0, stream)
    _who_sees_whom(ax, 3.25, across=True)
    _who_sees_whom(ax, 6.85, across=False)
    say(ax, 3.25, 5.1, "fetches from other tokens", WORDS)
    say(ax, 6.85, 5.1, "works on each token alone", WORDS)
    say(ax, 4.6, 0.75, "the stream: D numbers for each token, never replaced, only added to")
    return ax.figure


def plus(ax: Axes, x: float, y: float) -> None:
    """Where something is added to the stream."""
    ax.add_patch(Circle((x, y), 0.18, **PAPER, zorder=4))
    say(ax, x, y, "+", WORDS, weight="bold", zorder=5)


def _who_sees_whom(ax: Axes, x: float, across: bool) -> None:
    """Three tokens before and after a part, and arrows from what each result is made of."""
    places = (x - 0.85, x, x + 0.85)
    for i, after in enumerate(places):
        cell(ax, after, 3.45, 0.4, 0.25)
        cell(ax, after, 4.55, 0.4, 0.25)
        for j, before in enumerate(places):
            if i == j or (across and j < i):
                arrow(ax, (before, 3.6), (after, 4.4), linewidth=1)
