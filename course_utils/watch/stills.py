"""The watch as a strip of stills, for paper and wherever no script runs."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..plots.look import BLUE, GREEN, NORMAL, ORANGE, PURPLE, SMALL, panels
from .record import Call, Record
from .rows import KINDS, LEFT_OVER, MISSING, READ, WRITTEN
from .words import fed, summary

PALEST = "0.75"
STYLES = {
    WRITTEN: {"facecolor": GREEN, "edgecolor": GREEN, "linewidth": 0.5},
    READ: {"facecolor": PALEST, "edgecolor": PALEST, "linewidth": 0.5},
    "W": {"facecolor": ORANGE, "edgecolor": ORANGE, "linewidth": 0.5},
    "R": {"facecolor": ORANGE, "edgecolor": ORANGE, "linewidth": 0.5},
    MISSING: {"facecolor": "none", "edgecolor": ORANGE, "linewidth": 0.8},
    LEFT_OVER: {"facecolor": "white", "edgecolor": PURPLE, "hatch": "////", "linewidth": 0.5},
}
NAMES = {
    WRITTEN: "written",
    READ: "read",
    "R": "other numbers than without a cache",
    MISSING: "missing",
    LEFT_OVER: "left over",
}
GAP, ROOM = 0.6, 5.0  # between layers; for the looks, in cells


def chosen(records: Sequence[Record]) -> list[tuple[Record, int]]:
    """Which calls are shown: all of one record; of several, the first wrong one of each."""
    if len(records) == 1:
        return [(records[0], number) for number in range(len(records[0].calls))]
    calls = []
    for record in records:
        if record.calls:
            number = record.first_wrong
            calls.append((record, len(record.calls) - 1 if number is None else number))
    return calls


def stills(records: Sequence[Record]) -> Figure:
    """One still per call: rows are words, columns K and V of each layer, then where it looks."""
    calls = chosen(records)
    figure, axes = panels(len(calls), height=NORMAL + 0.5)
    for ax, (record, number) in zip(axes, calls, strict=True):
        _still(ax, record, number, several=len(records) > 1)
    found = {c for r, n in calls for layer in r.calls[n].cells for kind in KINDS for c in layer[kind]}
    found = {"R" if letter == "W" else letter for letter in found}
    handles = [Patch(label=NAMES[c], **STYLES[c]) for c in NAMES if c in found]
    handles.append(Patch(label="looks at (last layer)", facecolor=BLUE))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=SMALL)
    return figure


def _still(ax: Axes, record: Record, number: int, several: bool) -> None:
    call = record.calls[number]
    right = 0.0
    for number_of_layer, layer in enumerate(call.cells):
        for column, kind in enumerate(KINDS):
            left = number_of_layer * (2 + GAP) + column
            right = left + 1
            _column(ax, left, layer[kind])
    seen = call.looks[-1][-1]
    bars = [ROOM * share / 100 for share in seen]
    ax.barh([row + 0.5 for row in range(len(seen))], bars, 0.6, right + GAP, color=BLUE)
    name = f"{record.name}\n" if several else ""
    where = f"{number + 1}: {fed(record, call)}"
    color = ORANGE if call.wrong else "black"
    ax.set_title(f"{name}{where}", fontsize=SMALL, color=color)
    ax.set(xlim=(-0.2, right + GAP + ROOM), ylim=(len(record.rows), 0), xticks=[])
    shown = _named(call, record)
    ax.set_yticks([row + 0.5 for row in shown], [record.rows[row] for row in shown], fontsize=6)
    ax.tick_params(length=0, pad=1)
    ax.spines[:].set_visible(False)
    ax.grid(False)


def _named(call: Call, record: Record) -> range:
    return range(record.earlier + call.end)


def _column(ax: Axes, left: float, letters: str) -> None:
    for row, letter in enumerate(letters):
        if letter in STYLES:
            ax.broken_barh([(left + 0.05, 0.9)], (row + 0.1, 0.8), **STYLES[letter])


def in_words(records: Sequence[Record]) -> str:
    """What the stills show, for those who cannot see them."""
    if len(records) == 1:
        calls = records[0].calls
        return (
            f"{len(calls)} stills, one per call, rows of K and V by layer. The first writes "
            f"{calls[0].end} rows; each further one reads what is there and writes only its own. "
            f"{summary(records[0])}."
        )
    return (
        "One still for each cache, rows of K and V by layer, at its first wrong call. "
        + "; ".join(map(summary, records))
        + "."
    )
