"""The watch as a strip of stills, for paper and wherever no script runs."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ..plots.look import BLUE, GREEN, ORANGE, PURPLE, SMALL, TALL, ink, panels
from .record import Call, Record
from .rows import KINDS, LEFT_OVER, MISSING, READ, WRITTEN
from .words import fed, summary

WORDS = 7.5  # points
OTHER = {"facecolor": ORANGE, "linewidth": 0}
STYLES = {
    WRITTEN: {"facecolor": GREEN, "linewidth": 0},
    READ: {"facecolor": "0.75", "linewidth": 0},
    WRITTEN.upper(): OTHER,
    READ.upper(): OTHER,
    MISSING: {"facecolor": "none", "edgecolor": ORANGE, "linewidth": 0.9},
    LEFT_OVER: {"facecolor": "white", "edgecolor": PURPLE, "hatch": "/////", "linewidth": 0.5},
}
NAMES = {
    WRITTEN: "written",
    READ: "read",
    READ.upper(): "other numbers",
    MISSING: "missing",
    LEFT_OVER: "left over",
}
GAP, ROOM = 0.6, 5.0  # in cells: between layers; for the longest look


def chosen(records: Sequence[Record]) -> list[tuple[Record, int]]:
    """Which calls are shown: all of one record; of several, the first wrong one of each."""
    if len(records) == 1:
        return [(records[0], number) for number in range(len(records[0].calls))]
    shown = []
    for record in records:
        if record.calls:
            first = record.first_wrong
            shown.append((record, len(record.calls) - 1 if first is None else first))
    return shown


def stills(records: Sequence[Record]) -> Figure:
    """One still per call: rows are words, columns K and V of each layer, then where it looks."""
    calls = chosen(records)
    figure, axes = panels(len(calls), height=TALL)
    top = max(record.earlier for record in records)
    bottom = max(len(record.rows) - record.earlier for record in records)
    letters: set[str] = set()
    for ax, (record, number) in zip(axes, calls, strict=True):
        call = record.calls[number]
        letters |= _draw(ax, record, call)
        name = f"{record.name}\n" if len(records) > 1 else ""
        color = ink(ORANGE) if call.wrong else "black"
        ax.set_title(f"{name}{number + 1}: {fed(record, call)}", fontsize=SMALL, color=color)
        rows = range(-record.earlier, bottom if ax is axes[0] else 0)
        words = [record.rows[row + record.earlier] for row in rows]
        ax.set_yticks([row + 0.5 for row in rows], words, fontsize=WORDS)
        ax.set_ylim(bottom, -top)
    letters = {READ.upper() if letter == WRITTEN.upper() else letter for letter in letters}
    handles = [Patch(label=NAMES[c], **STYLES[c]) for c in NAMES if c in letters]
    handles.append(Patch(label="looks at, in the last layer", facecolor=BLUE))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=SMALL)
    axes[0].set_xlabel("K and V of layer", fontsize=WORDS, loc="left")
    return figure


def _draw(ax: Axes, record: Record, call: Call) -> set[str]:
    """Draw one call; the letters that were in it. The text's first word is at height 0."""
    cells: dict[str, list[Rectangle]] = {}
    for number, layer in enumerate(call.cells):
        for column, kind in enumerate(KINDS):
            left = number * (len(KINDS) + GAP) + column
            for row, letter in enumerate(layer[kind], -record.earlier):
                cells.setdefault(letter, []).append(Rectangle((left + 0.07, row + 0.1), 0.86, 0.8))
    for letter in cells.keys() & STYLES.keys():
        ax.add_collection(PatchCollection(cells[letter], **STYLES[letter]))
    width = len(call.cells) * (len(KINDS) + GAP)
    seen = call.looks[-1][-1]
    rows = [row - record.earlier + 0.5 for row in range(len(seen))]
    ax.barh(rows, [ROOM * share / 100 for share in seen], 0.6, width, color=BLUE)
    middles = [number * (len(KINDS) + GAP) + 1 for number in range(len(call.cells))]
    ax.set_xticks(middles, range(1, len(call.cells) + 1), fontsize=WORDS)
    ax.set_xlim(-0.2, width + ROOM)
    ax.tick_params(length=0, pad=1)
    ax.spines[:].set_visible(False)
    ax.grid(False)
    return set(cells)


def in_words(records: Sequence[Record]) -> str:
    """What the stills show, for those who cannot see them."""
    what = "rows of K and V by word and layer, and what the last word looks at"
    if len(records) > 1:
        found = "; ".join(map(summary, records))
        return f"One still for each cache at its first wrong call: {what}. {found}."
    calls = records[0].calls
    return (
        f"{len(calls)} stills, one for each call: {what}. The first call writes {calls[0].end} "
        f"rows; each one after it reads what is there and writes only its own. "
        f"{summary(records[0])}."
    )
