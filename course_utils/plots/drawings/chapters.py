"""Drawings for two chapters: requests in rows, a page table (10), a model in two processes (11)."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...transformer import load_config
from ..look import LOW, NORMAL, TALL
from .grammar import (
    KEY,
    NEW,
    NOTE,
    QUERY,
    STORE,
    VALUE,
    WORDS,
    arrow,
    box,
    brace,
    canvas,
    cell,
    key,
    label,
    say,
    tensor,
    tokens,
    value,
)

ONE_BY_ONE = ["AAAAAAAABBBCCCCC"]  # a row of a batch, and who has it in each step
SIDE_BY_SIDE = ["AAAAAAAA", "BBBCCCCC"]
BLOCK = 2  # positions in a block
READERS = {"A": ["Mia", "found", "the", "lamp", "."], "B": ["Tom", "hid", "a"]}
TABLES = {"A": [3, 0, 4], "B": [1, 5]}  # the blocks of a text, in its order


def one_by_one_or_side_by_side() -> Figure:
    """Three requests in one row, one after the other, and in two rows, one of them used twice."""
    ax = canvas(LOW)
    size, looks = 0.4, {"A": {}, "B": NEW, "C": {"facecolor": "0.8"}}
    for high, name, rows in ((2.6, "one by one", ONE_BY_ONE), (1.45, "side by side", SIDE_BY_SIDE)):
        say(ax, 1.75, high - size * (len(rows) - 1) / 2, name, WORDS, ha="right")
        for row, steps in enumerate(rows):
            for step, request in enumerate(steps):
                x, y = 2.1 + size * step, high - size * row
                cell(ax, x, y, size, size, **looks[request])
                label(ax, x, y, request, looks[request])
        low, steps = high - size * (len(rows) - 0.5) - 0.2, len(rows[0])
        brace(ax, 1.92, 1.88 + size * steps, low, f"{steps} steps of the model")
    say(ax, 5.35, 1.05, "B is done, and C gets its row", ha="left")
    return ax.figure


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


def one_layer_two_processes() -> Figure:
    """A layer in two processes: what each holds of it, and the two places where they add up."""
    ax = canvas(NORMAL)
    heads = load_config()["num_heads"]
    middle = 2.1
    say(ax, 0.35, middle, "x", WORDS)
    for process, y in enumerate((3.2, 1.0)):
        side = 1 - 2 * process
        say(ax, 0.95, y + 0.9, f"process {process}", WORDS, ha="left", weight="bold")
        cell(ax, 4.05, y, 6.3, 1.4, **STORE)
        held = range(heads // 2 * process, heads // 2 * (process + 1))
        box(ax, 2.1, y + 0.3, 1.6, 0.5, f"heads {', '.join(map(str, held))}")
        for number in range(len(held)):
            key(ax, 1.36 + 1.04 * number, y - 0.38, "", 0.42, 0.32)
            value(ax, 1.8 + 1.04 * number, y - 0.38, "", 0.42, 0.32)
        box(ax, 5.85, y, 1.9, 0.8, "half of the\nhidden units")
        arrow(ax, (0.5, middle + 0.1 * side), (1.2, y + 0.3 - 0.1 * side))
        for start, end in ((2.95, 3.55), (6.85, 7.65)):
            arrow(ax, (start, y + (0.3 if start < 3 else 0)), (end, middle + 0.3 * side))
        arrow(ax, (4.05, middle + 0.3 * side), (4.85, y))
    for x in (3.8, 7.9):
        box(ax, x, middle, 0.5, 0.5, "+")
    arrow(ax, (8.2, middle), (8.65, middle))
    return ax.figure


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
