"""Drawings for the chapters: a page table (10), and a model cut over two processes (11)."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..look import NORMAL, TALL
from .grammar import (
    KEY,
    NOTE,
    QUERY,
    STORE,
    VALUE,
    WORDS,
    arrow,
    box,
    canvas,
    cell,
    label,
    say,
    tensor,
    tokens,
)

BLOCK = 2  # positions in a block
READERS = {"A": ["Mia", "found", "the", "lamp", "."], "B": ["Tom", "hid", "a"]}
TABLES = {"A": [3, 0, 4], "B": [1, 5]}  # the blocks of a text, in its order


def page_table(blocks: int = 6) -> Figure:
    """Two texts, their tables, and the blocks of one memory in which their positions lie."""
    ax = canvas(TALL)
    say(ax, 1.9, 5.2, "texts", WORDS, weight="bold")
    say(ax, 5.0, 5.2, "tables", WORDS, weight="bold")
    say(ax, 7.7, 5.2, "blocks of memory", WORDS, weight="bold")
    held = {}
    for y, (name, row) in zip((4.0, 1.7), READERS.items(), strict=True):
        say(ax, 0.3, y, name, WORDS, weight="bold")
        tokens(ax, 0.95, y, row, 0.66)
        for number, block in enumerate(TABLES[name]):
            slot = y + 0.46 * (len(TABLES[name]) / 2 - 0.5 - number)
            cell(ax, 5.0, slot, 0.6, 0.46, str(block))
            arrow(ax, (5.35, slot), (6.35, _height(block)), linewidth=1.2)
            held[block] = row[BLOCK * number : BLOCK * (number + 1)]
        arrow(ax, (0.75 + 0.66 * len(row), y), (4.6, y))
    for block in range(blocks):
        y = _height(block)
        say(ax, 6.55, y, str(block), WORDS)
        for place in range(BLOCK):
            words = held.get(block, [])
            filled = place < len(words)
            _slot(ax, 7.2 + 0.8 * place, y, words[place] if filled else "")
        cell(ax, 7.6, y, 1.68, 0.5, **STORE)
    return ax.figure


def _height(block: int) -> float:
    return 4.55 - 0.78 * block


def _slot(ax: Axes, x: float, y: float, word: str) -> None:
    look = KEY if word else {"linestyle": ":"}
    cell(ax, x, y, 0.76, 0.36, **look)
    label(ax, x, y, word, {}, NOTE, style="italic")


def cut_in_two() -> Figure:
    """Attention on two ranks: each has its head, and the keys and values of that head."""
    ax = canvas(NORMAL)
    tensor(ax, 0.85, 2.2, (3, 4), ("T", "D"))
    say(ax, 0.85, 1.65, "x, in both", WORDS)
    for rank, y in enumerate((3.2, 1.2)):
        cell(ax, 4.35, y, 4.7, 1.5, **STORE)
        say(ax, 4.35, y + 0.95, f"rank {rank}", WORDS, weight="bold")
        arrow(ax, (1.4, 2.2 + 0.2 * (y - 2.2)), (1.9, y))
        for name, x, look in (("q", 2.4, QUERY), ("k", 3.1, KEY), ("v", 3.8, VALUE)):
            tensor(ax, x, y, (3, 2), ("", "d"), colors=[look])
            say(ax, x, y - 0.5, name, WORDS)
        arrow(ax, (4.1, y), (4.4, y))
        box(ax, 4.95, y, 0.95, 0.5, f"head {rank}")
        arrow(ax, (5.5, y), (5.75, y))
        box(ax, 6.17, y, 0.75, 0.5, "½ W_o")
        arrow(ax, (6.75, y), (7.0, 2.2 + 0.3 * (y - 2.2)))
    box(ax, 7.3, 2.2, 0.6, 0.6, "+")
    arrow(ax, (7.65, 2.2), (7.9, 2.2))
    tensor(ax, 8.42, 2.2, (3, 4), ("", "D"))
    say(ax, 8.42, 1.65, "in both", WORDS)
    return ax.figure
