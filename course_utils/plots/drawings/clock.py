"""The drawings of time: prefill and decode, and a clock that is read too early (notebook 06)."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..look import NORMAL, SQUARES
from .grammar import (
    AGAIN,
    WORDS,
    brace,
    canvas,
    cell,
    say,
)

PROMPT, WRITTEN = 4, 4  # tokens


def passes(prompt: int = PROMPT, written: int = WRITTEN) -> dict[str, list[tuple[int, int]]]:
    """Tokens that each pass of a generation runs, as (for the first time, again), by contender."""
    cached = [(prompt, 0)] + [(1, 0)] * (written - 1)
    uncached = [(prompt, 0)] + [(1, prompt + i) for i in range(written - 1)]
    return {"no cache": uncached, "with a cache": cached}


def what_runs() -> Figure:
    """The passes of one generation in a row, each as long as the tokens that it runs."""
    ax = canvas(NORMAL)
    for y, (name, rows) in zip((3.0, 1.3), passes().items(), strict=True):
        say(ax, 1.6, y, name, WORDS, ha="right")
        ends = [_pass(ax, 1.8, y, *rows[0])]
        for new, again in rows[1:]:
            ends.append(_pass(ax, ends[-1] + 0.12, y, new, again))
        brace(ax, 1.83, ends[0] - 0.03, y - 0.48, "prefill")
        brace(ax, ends[0] + 0.15, ends[-1] - 0.03, y - 0.48, "decode")
        say(ax, ends[-1] + 0.25, y, f"{sum(map(sum, rows))} run", WORDS, ha="left")
    cell(ax, 6.1, 1.3, 0.25, 0.4, **AGAIN)
    say(ax, 6.4, 1.3, "run before, and run again", ha="left")
    return ax.figure


def _pass(ax: Axes, left: float, y: float, new: int, again: int) -> float:
    """A pass as a row of cells, their number above it; returns where it ends."""
    size = 0.25
    for place in range(again + new):
        look = AGAIN if place < again else {}
        cell(ax, left + (place + 0.5) * size, y, size, 0.4, **look)
    right = left + (again + new) * size
    say(ax, (left + right) / 2, y + 0.4, str(again + new), WORDS)
    return right


def asked_and_done() -> Figure:
    """Python asks for three operations and is free; the device is at work until much later."""
    ax = canvas(SQUARES)
    start = 2.2
    say(ax, start - 0.15, 3.0, "Python asks", WORDS, ha="right")
    say(ax, start - 0.15, 2.2, "the device works", WORDS, ha="right")
    for number in range(3):
        cell(ax, start + 0.2 + 0.42 * number, 3.0, 0.42, 0.42, str(number + 1))
        cell(ax, start + 1.35 + 1.9 * number, 2.2, 1.9, 0.42, str(number + 1), facecolor="0.8")
    for end, y, text in ((1.26, 1.6, "does not wait"), (6.05, 0.85, "waits")):
        brace(ax, start + 0.02, start + end, y, "")
        word = "asked" if end < 2 else "done"
        say(ax, start, y - 0.25, f"{word}: what a clock shows that {text}", ha="left")
    return ax.figure
