"""The drawings of generation: the loop, and what it does again and again (notebook 03)."""

from matplotlib.figure import Figure

from ..look import NORMAL, SQUARES
from .grammar import (
    AGAIN,
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
    tokens,
)

TEXT = ["Mia", "found", "the", "red", "lamp", "and"]
PROMPT = 3  # words


def generation_loop() -> Figure:
    """A text goes in, one word comes out, and goes in again with the text."""
    ax = canvas(SQUARES)
    places = tokens(ax, 0.75, 2.1, TEXT[:PROMPT], 0.75)
    token(ax, places[-1] + 0.75, 2.1, "?", 0.75, linestyle="--")
    arrow(ax, (3.5, 2.1), (4.0, 2.1))
    box(ax, 4.6, 2.1, 1.1, 0.9, "model")
    arrow(ax, (5.2, 2.1), (5.65, 2.1))
    tensor(ax, 6.3, 2.1, (3, 5), ("", "V"), colors=[PAPER])
    for column in range(5):
        cell(ax, 5.86 + 0.22 * column, 1.88, 0.22, 0.22, **SEEN)
    say(ax, 6.3, 1.5, "the last row")
    arrow(ax, (6.95, 1.88), (7.3, 1.88))
    box(ax, 7.85, 1.88, 1.0, 0.5, "choose")
    corner(ax, (7.85, 2.18), (7.85, 3.1), (5.85, 3.1))
    corner(ax, (4.95, 3.1), (3.0, 3.1), (3.0, 2.35))
    token(ax, 5.4, 3.1, TEXT[PROMPT], 0.75)
    say(ax, 1.5, 1.6, "the text so far")
    say(ax, 4.6, 0.75, "each round runs the whole text, and makes it one word longer", WORDS)
    return ax.figure


def computed_again() -> Figure:
    """The text of each round: what is run for the first time, and what was run before."""
    ax = canvas(NORMAL)
    width = 0.8
    for number in range(len(TEXT) - PROMPT):
        y, length = 3.3 - 0.85 * number, PROMPT + number
        for place, word in enumerate(TEXT[:length]):
            before = number > 0 and place < length - 1
            token(ax, 1.6 + width * place, y, word, width, **(AGAIN if before else {}))
        say(ax, 0.95, y, f"round {number + 1}", WORDS, ha="right")
        arrow(ax, (1.7 + width * (length - 0.45), y), (2.1 + width * (length - 0.4), y))
        say(ax, 2.25 + width * (length - 0.4), y, TEXT[length], WORDS, ha="left", style="italic")
        again = length - 1 if number else 0
        say(ax, 8.75, y, f"new {length - again}, again {again}", WORDS, ha="right")
    cell(ax, 2.0, 0.65, 0.6, 0.3, **AGAIN)
    say(ax, 2.45, 0.65, "run before, with the same result, and run again", ha="left")
    return ax.figure
