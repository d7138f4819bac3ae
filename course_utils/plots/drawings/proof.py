"""The drawings of the proof: the check that reads nothing, and a script (notebook 05)."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...evaluation import Feed, New, Reorder, RollBack
from ...evaluation.steps import Script
from ..look import NORMAL
from .grammar import (
    KEY,
    NEW,
    NOTE,
    STORE,
    WORDS,
    arrow,
    box,
    cache,
    canvas,
    cell,
    label,
    say,
    tokens,
)

STEPS: Script = [New(2), Feed(2), Feed(1), RollBack(2), Reorder((1, 0)), Feed(1)]
STORIES = (["Mia", "found", "the", "lamp"], ["Tom", "hid", "a", "coin"])


def nothing_is_read() -> Figure:
    """The check that runs a whole prompt fills the cache; only the next step reads it."""
    ax = canvas(NORMAL)
    for left, title, fed, stored in (
        (0.3, "what the check runs", ["Mia", "found", "the"], 0),
        (4.85, "what the next word runs", ["red"], 3),
    ):
        say(ax, left + 1.9, 4.0, title, WORDS, weight="bold")
        tokens(ax, left + 1.1 - 0.36 * (len(fed) - 1), 0.75, fed, 0.72)
        arrow(ax, (left + 1.1, 0.97), (left + 1.1, 1.4))
        box(ax, left + 1.1, 1.9, 1.6, 0.9, "model")
        arrow(ax, (left + 1.1, 2.4), (left + 1.1, 2.85))
        say(ax, left + 1.1, 3.05, "logits", WORDS)
        cache(ax, left + 3.15, 1.9, stored, len(fed))
        say(ax, left + 3.15, 3.2, "cache", WORDS)
        arrow(ax, (left + 1.95, 2.1), (left + 2.47, 2.1))
        if stored:
            arrow(ax, (left + 2.47, 1.6), (left + 1.95, 1.6), linewidth=3, mutation_scale=20)
        said = "read, and written" if stored else "only written"
        say(ax, left + 3.15, 0.55, said)
    return ax.figure


def script() -> Figure:
    """What a user of a cache does, step by step: what the cache holds, and what is compared."""
    ax = canvas(NORMAL)
    held = after_each(STEPS)
    for column, (step, rows) in enumerate(zip(STEPS, held, strict=True)):
        x = 0.79 + 1.485 * column
        say(ax, x, 4.05, repr(step))
        new = step.tokens if isinstance(step, Feed) else 0
        for place, (story, length) in enumerate(rows):
            _held(ax, x + 0.66 * (place - 0.5), STORIES[story][:length], length - new)
        cell(ax, x, 3.05, 1.4, 1.5, **STORE)
        if new:
            arrow(ax, (x, 2.27), (x, 1.98))
            say(ax, x, 1.82, "logits", WORDS)
            arrow(ax, (x, 1.62), (x, 1.0), arrowstyle="<|-|>")
            say(ax, x + 0.12, 1.31, "equal?", ha="left")
    box(ax, 4.5, 0.7, 8.6, 0.5, "the same words, run without a cache")
    return ax.figure


def _held(ax: Axes, x: float, row: list[str], old: int) -> None:
    """The words of one row of a cache, downwards; those after the first `old` are new."""
    for position, word in enumerate(row):
        y, look = 3.53 - 0.46 * position, NEW if position >= old else {}
        cell(ax, x, y, 0.62, 0.38, **(KEY | look))
        label(ax, x, y, word, look, NOTE, style="italic")


def after_each(steps: Script) -> list[list[tuple[int, int]]]:
    """What a right cache holds after each step: for each row, which story, and how much of it.

    Raises TypeError on a step that is not drawn.
    """
    rows: list[tuple[int, int]] = []
    found = []
    for step in steps:
        match step:
            case New(count):
                rows = [(story, 0) for story in range(count)]
            case Feed(tokens):
                rows = [(story, length + tokens) for story, length in rows]
            case RollBack(length):
                rows = [(story, length) for story, _ in rows]
            case Reorder(old):
                rows = [rows[i] for i in old]
            case _:
                raise TypeError(f"{step!r} is not drawn")
        found.append(rows)
    return found
