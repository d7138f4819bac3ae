"""Drawings of what others have made: GPT-2's tensors (12), the library's models (13)."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...evaluation import Feed
from ...evaluation.steps import Script
from ..look import SQUARES, TALL
from .grammar import KEY, QUERY, STORE, VALUE, WORDS, arrow, box, canvas, cell, say, tensor

LENGTHS = {"D": 2, "3D": 6, "F": 5, "V": 4}  # cells along the edges of a matrix, by their names
FED: Script = [Feed(4), Feed(1), Feed(5)]
TOKENS = sum(step.tokens for step in FED)
KEPT = {"Llama": TOKENS, "Mistral": 7, "Mamba": 0}  # keys of the latest tokens


def names_and_shapes() -> Figure:
    """Three matrices of GPT-2's, and the course's that are made of them."""
    ax = canvas(TALL)
    say(ax, 2.0, 5.3, "GPT-2's file", WORDS, weight="bold")
    say(ax, 7.0, 5.3, "the course's model", WORDS, weight="bold")
    parts = [QUERY, KEY, VALUE]
    _matrix(ax, 2.0, 4.1, "wte", ("V", "D"))
    _matrix(ax, 7.0, 4.1, "token_embedding", ("V", "D"))
    _matrix(ax, 2.0, 2.5, "h.0.attn.c_attn", ("D", "3D"), parts)
    say(ax, 7.0, 3.1, "layers.0.attention", WORDS)
    for x, name, look in zip((5.8, 7.0, 8.2), ("W_q", "W_k", "W_v"), parts, strict=True):
        _matrix(ax, x, 2.5, "", ("D", "D"), [look])
        say(ax, x, 2.1, name, WORDS)
    _matrix(ax, 2.0, 0.95, "h.0.mlp.c_fc", ("D", "F"))
    _matrix(ax, 7.0, 0.75, "layers.0.feed_forward.fc1", ("F", "D"))
    said = {4.1: "as it is", 2.5: "cut in three,\neach turned", 0.85: "turned"}
    for y, text in said.items():
        arrow(ax, (3.6, y), (5.1, y))
        say(ax, 4.3, y + (0.4 if "\n" in text else 0.25), text)
    return ax.figure


def _matrix(
    ax: Axes,
    x: float,
    y: float,
    name: str,
    edges: tuple[str, str],
    looks: list[dict] | None = None,
) -> None:
    shape = LENGTHS[edges[0]], LENGTHS[edges[1]]
    options = {"colors": looks} if looks else {}
    _, half = tensor(ax, x, y, shape, edges, 0.2, **options)
    say(ax, x, y + half + 0.4, name, WORDS)


def one_adapter() -> Figure:
    """A script on one side of an adapter, on the other three models, each with its own cache."""
    ax = canvas(SQUARES)
    heads = {0.95: "a script", 2.9: "an adapter", 4.75: "any model", 7.35: "and its cache"}
    for x, text in heads.items():
        say(ax, x, 3.35, text, WORDS, weight="bold")
    for number, step in enumerate(FED):
        cell(ax, 0.95, 2.5 - 0.8 * number, 1.2, 0.5, repr(step))
    box(ax, 2.9, 1.7, 0.6, 2.6, "the course's interface", 90)
    arrow(ax, (1.65, 2.0), (2.5, 2.0))
    say(ax, 2.07, 2.22, "tokens")
    arrow(ax, (2.5, 1.4), (1.65, 1.4))
    say(ax, 2.07, 1.18, "logits")
    for number, (name, kept) in enumerate(KEPT.items()):
        y = 2.65 - 0.95 * number
        arrow(ax, (3.3, y), (3.95, y), arrowstyle="<|-|>")
        box(ax, 4.75, y, 1.5, 0.6, name)
        arrow(ax, (5.6, y), (6.05, y), arrowstyle="<|-|>")
        cell(ax, 7.35, y, 2.5, 0.6, **STORE)
        if kept:
            _latest(ax, 7.35, y, kept)
        else:
            cell(ax, 7.35, y, 1.2, 0.36, "a state", facecolor="0.8")
    return ax.figure


def _latest(ax: Axes, x: float, y: float, kept: int) -> None:
    """A cell for each token; green where its key is kept."""
    for place in range(TOKENS):
        look = KEY if place >= TOKENS - kept else {"linestyle": ":", "edgecolor": "0.6"}
        cell(ax, x + 0.23 * (place - (TOKENS - 1) / 2), y, 0.23, 0.36, **look)
