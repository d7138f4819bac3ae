"""The drawings of the cache: what is kept, where new tokens go, and its memory (notebook 04)."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...attention import causal_mask
from ..look import NORMAL, SQUARES
from .grammar import (
    AGAIN,
    FRAME,
    KEY,
    NEW,
    STORE,
    WORDS,
    WRONG,
    arrow,
    box,
    brace,
    cache,
    canvas,
    cell,
    corner,
    grid,
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
    places = tokens(ax, 1.9, 3.75, TEXT[:4], 1.5)
    old, new = places[:-1], places[-1]
    for place in places:
        look = NEW if place == new else {}
        value(ax, place, 2.95, **look)
        key(ax, place, 2.3, **look)
        corner(ax, (new, 1.6), (place, 1.6), (place, 2.08))
    for place in old:
        cell(ax, place, 1.1, 0.62, 0.36, "q", linestyle=":")
    query(ax, new, 1.1)
    corner(ax, (new, 1.3), (new, 1.6), head=False)
    middle = (old[0] + old[-1]) / 2
    cell(ax, middle, 2.62, 4.2, 1.3, **STORE)
    brace(ax, old[0] - 0.4, old[-1] + 0.4, 0.72, "asked once, never needed again")
    say(ax, 0.45, 2.62, "the\nKV\ncache", WORDS)
    say(ax, 7.9, 2.62, "made now,\nand added", WORDS)
    say(ax, 7.9, 1.1, "asks now", WORDS)
    return ax.figure


def mask_offset(stored: int = 3, new: int = 2) -> Figure:
    """The mask of two new words on three stored ones: the last rows of the square."""
    ax = canvas(NORMAL)
    row = TEXT[: stored + new]
    left, right, top, size = 1.3, 5.9, 3.2, 0.52
    along = (len(row) - 1) * size / 2
    low = top - (stored + (new - 1) / 2) * size
    for i, word in enumerate(row):
        say(ax, left - 0.4, top - i * size, word, WORDS, ha="right", style="italic")
    grid(ax, left, top, causal_mask(len(row), len(row)), size)
    cell(ax, left + along, low, len(row) * size, new * size, **FRAME)
    say(ax, left + along, 3.9, "without a cache: the square", WORDS)
    arrow(ax, (4.1, low), (4.8, low))
    for i, word in enumerate(row[stored:], start=stored):
        say(ax, right - 0.4, top - i * size, word, WORDS, ha="right", style="italic")
    grid(ax, right, top - stored * size, causal_mask(new, len(row)), size)
    cell(ax, right + along, low, len(row) * size, new * size, **FRAME)
    for j in range(len(row)):
        look = NEW if j >= stored else {}
        key(ax, right + j * size, top - (stored - 0.9) * size, "", 0.42, 0.3, **look)
    say(ax, right + along, 3.9, "with a cache: its last rows", WORDS)
    brace(ax, right - 0.2, right + (stored - 0.6) * size, 0.6, "stored")
    brace(ax, right + (stored - 0.4) * size, right + (len(row) - 0.6) * size, 0.6, "new")
    return ax.figure


def positions(stored: int = 4) -> Figure:
    """Where a word comes that is fed alone: after the cache, not at the start again."""
    ax = canvas(SQUARES)
    for y, title, start in ((2.6, "right", stored), (1.0, "wrong", 0)):
        say(ax, 0.3, y, title, WORDS, ha="left", weight="bold")
        places = tokens(ax, 1.7, y, TEXT[:stored], 1.1)
        for position, place in enumerate(places):
            say(ax, place, y + 0.4, str(position), WORDS)
        token(ax, 6.7, y, TEXT[stored], 1.1, **({} if start else WRONG))
        say(ax, 6.7, y + 0.4, str(start), WORDS, weight="bold")
        said = "comes after all\nthat is cached" if start else "takes itself for\nthe first word"
        say(ax, 7.35, y, said, ha="left")
    say(ax, 3.35, 3.4, "cached, with their positions")
    say(ax, 6.7, 3.4, "new, fed alone")
    return ax.figure


def prefill_and_decode() -> Figure:
    """One layer in the two kinds of step, and the cache beside it."""
    ax = canvas(NORMAL)
    _call(ax, 0.3, "prefill: the prompt, once", TEXT[:3], 0)
    _call(ax, 4.75, "decode: one token at a time", TEXT[3:4], 3)
    return ax.figure


def _call(ax: Axes, left: float, title: str, fed: list[str], stored: int) -> None:
    """A pass of the tokens that are fed through a layer whose cache holds `stored` positions."""
    say(ax, left + 1.9, 4.05, title, WORDS, weight="bold")
    middle, store = left + 1.1, left + 3.25
    places = tokens(ax, middle - 0.36 * (len(fed) - 1), 0.45, fed, 0.72)
    for place in places:
        arrow(ax, (place, 0.66), (place, 1.02))
        arrow(ax, (place, 2.48), (place, 2.86))
        cell(ax, place, 3.03, 0.55, 0.3)
    box(ax, middle, 1.75, 2.1, 1.4, "one layer")
    say(ax, middle, 3.42, "a result for each token fed")
    cache(ax, store, 1.75, stored, len(fed))
    say(ax, store, 3.03, "its cache", WORDS)
    arrow(ax, (left + 2.2, 2.05), (left + 2.57, 2.05))
    say(ax, left + 2.38, 2.27, "k, v")
    arrow(ax, (left + 2.57, 1.4), (left + 2.2, 1.4))
    say(ax, left + 2.38, 1.15, "all")
    say(ax, store, 0.45, f"kept {stored}, written {len(fed)}")


def memory(stored: int = 3, added: tuple[str, ...] = ("red", "lamp"), room: int = 8) -> Figure:
    """What two caches do with their memory while tokens are added to `stored` positions."""
    ax = canvas(NORMAL)
    say(ax, 0.75, 3.4, "at first", WORDS)
    say(ax, 1.6, 0.5, "each cell: the keys and values of one position", ha="left")
    for x, title in ((1.6, "growing"), (4.9, "preallocated")):
        say(ax, x, 4.0, title, WORDS, ha="left", weight="bold")
    for step, word in enumerate(("", *added)):
        y, held = 3.4 - 1.0 * step, stored + step
        for place in range(room):
            cell(ax, 5.125 + 0.45 * place, y, 0.45, 0.36, **_slot(place, held, bool(step), False))
        for place in range(held):
            cell(ax, 1.825 + 0.45 * place, y, 0.45, 0.36, **_slot(place, held, bool(step), True))
        if word:
            token(ax, 0.75, y, word)
            say(ax, 1.6, y - 0.38, f"copied {held - 1}, written 1", ha="left")
            say(ax, 4.9, y - 0.38, "copied 0, written 1", ha="left")
    return ax.figure


def _slot(place: int, held: int, added: bool, grows: bool) -> dict:
    """The look of a place in memory: free, just written, copied in this step, or left alone."""
    if place >= held:
        return {"linestyle": ":"}
    if added and place == held - 1:
        return KEY | NEW
    return AGAIN if added and grows else KEY
