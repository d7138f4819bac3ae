"""The look of every figure: size, fonts, colours, lines, ticks, and names at the lines.

The colours differ from each other for people who lack one kind of cone, and, with the markers and
dashes that always go with them, in grey; `tests/course_utils/plots/test_figures.py` looks at the
figures that way. Importing this module sets matplotlib's defaults.
"""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from matplotlib.transforms import blended_transform_factory

from ..benchmark import GROWING, NO_CACHE, PREALLOCATED

WIDTH = 9.0  # inches, of every figure
LOW, SQUARES, NORMAL, TALL, PAGE = 3.2, 3.7, 4.4, 5.6, 9.0  # inches: the heights that there are
DPI = 144
SMALL = 10  # points, for words and numbers in cells

ORANGE = "#E54E15"  # the costly way: no cache, plain attention, one batch after the other
BLUE = "#1C6BBA"  # a way in between: the growing cache, small tiles
GREEN = "#055F36"  # what the course builds: the preallocated cache, tiles
SKY = "#199ED0"  # its faster versions
PURPLE = "#561168"  # made by others: CTranslate2, ONNX Runtime, PyTorch's own attention
GOLD = "#A88700"  # another: transformers
BLACK, GREY = "black", "0.55"  # the whole cache; what is only there to compare with
PALE = {ORANGE: "#FAD5C5", BLUE: "#CBDFF3", GREEN: "#A9D3BE", SKY: "#D0ECF7", PURPLE: "#E3CCEA"}
MARKERS = {ORANGE: "o", BLUE: "s", GREEN: "^", SKY: "v", PURPLE: "D", GOLD: "o", BLACK: "o"}
GLYPHS = {"o": "●", "s": "■", "^": "▲", "v": "▼", "D": "◆", "x": "×", "*": "★", "P": "✚"}

THEORY = {"color": BLACK, "linestyle": (0, (4, 3)), "linewidth": 1.2, "marker": ""}
PLACE = {"color": "0.4", "linewidth": 0.8}  # a line that only marks a place on the x axis
SOLID = {"facecolor": GREEN, "edgecolor": GREEN}  # bars
BUILT = {"facecolor": PALE[GREEN], "edgecolor": GREEN}
MARKED = BUILT | {"hatch": "//"}
COSTLY = {"facecolor": PALE[ORANGE], "edgecolor": ORANGE, "hatch": "//"}
OFFSET = {"textcoords": "offset points"}  # of a note from its point
AT_X = {"xycoords": ("data", "axes fraction")} | OFFSET  # at an x, and a share of the height
AT_Y = {"xycoords": ("axes fraction", "data")} | OFFSET  # at a y, and a share of the width
CENTRED = {"ha": "center", "va": "center"}

plt.rcParams.update(
    {
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 11,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "legend.fontsize": 10,
        "legend.frameon": False,
        "lines.linewidth": 2,
        "lines.markersize": 6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.alpha": 0.3,
        "hatch.linewidth": 0.8,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
    }
)


def panels(
    columns: int = 1, rows: int = 1, height: float = NORMAL, **options: object
) -> tuple[Figure, np.ndarray]:
    """A figure of the course's width, and its axes: (columns,), or (rows, columns) if rows > 1."""
    size = {"figsize": (WIDTH, height), "layout": "constrained", "squeeze": False}
    figure, axes = plt.subplots(rows, columns, **size, **options)
    return figure, axes if rows > 1 else axes[0]


def curve(
    color: str, linestyle: str | tuple = "-", marker: str | None = None
) -> dict[str, str | tuple]:
    """The look of a curve: solid, with the marker of its colour, if nothing else is said."""
    marker = MARKERS[color] if marker is None else marker
    return {"color": color, "linestyle": linestyle, "marker": marker}


CONTENDERS = {NO_CACHE: curve(ORANGE), GROWING: curve(BLUE), PREALLOCATED: curve(GREEN)}


def log_x(ax: Axes, ticks: Iterable[float], base: int = 10) -> None:
    """Logarithmic from left to right, with these ticks and no others."""
    ax.set_xscale("log", base=base)
    ax.set_xticks(list(ticks), [str(tick) for tick in ticks])
    ax.minorticks_off()


def log_ticks(axis: Axis, subs: tuple[float, ...] = (1, 2, 5)) -> None:
    """Ticks of a logarithmic axis: these, and these times 10, 100, ..., without exponents."""
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.axes.minorticks_off()


def log_axes(ax: Axes, ticks: tuple[int, ...]) -> None:
    """Logarithmic both ways, with these ticks below and 1, 2, 5, 10, ... beside."""
    ax.set_yscale("log")
    log_x(ax, ticks)
    log_ticks(ax.yaxis)


def in_cell(
    ax: Axes, row: int, column: int, text: str, dark: bool = False, size: float | None = SMALL
) -> None:
    """Write into a cell of a drawn matrix: white if the cell is dark."""
    color = "white" if dark else "black"
    ax.text(column, row, text, fontsize=size, color=color, **CENTRED)


def ink(color: str) -> tuple[float, ...]:
    """The colour, darkened so that words in it can be read on white."""
    return tuple(0.75 * part for part in to_rgb(color))


def name_lines(ax: Axes, *extra: tuple[float, str, str], size: float | None = None) -> None:
    """Write each line's label right of the axes, at its last point, in its colour.

    The line's marker comes before it. Lines without a label stay without a name. `extra` are
    (y, text, colour) to be written too. Call it when all is drawn and the limits are final: names
    that would touch are moved apart.
    """
    size = size or plt.rcParams["legend.fontsize"]
    names = [*extra, *_labels(ax)]
    ax.figure.draw_without_rendering()
    to_points = 72 / ax.figure.dpi
    heights = [to_points * ax.transData.transform((1, y))[1] for y, *_ in names]
    floor = to_points * ax.get_window_extent().y0
    lines = [text.count("\n") + 1 for _, text, _ in names]
    places = _apart(heights, lines, size, floor)
    beside = blended_transform_factory(ax.transAxes, ax.transData)
    for (y, text, color), now, place in zip(names, heights, places, strict=True):
        note = {"va": "center", "color": ink(color), "fontsize": size, "annotation_clip": False}
        ax.annotate(text, (1, y), (6, place - now), xycoords=beside, **note, **OFFSET)


def _labels(ax: Axes) -> list[tuple[float, str, str]]:
    """Last height, marker with label, and colour of each line that has a label."""
    found = []
    for line in ax.get_lines():
        if line.get_label() and not line.get_label().startswith("_"):
            seen = [y for y in line.get_ydata() if np.isfinite(y)]
            name = f"{GLYPHS.get(line.get_marker(), '')} {line.get_label()}".strip()
            found.append((seen[-1], name, line.get_color()))
    return found


def _apart(heights: list[float], lines: list[int], size: float, floor: float) -> list[float]:
    """Heights of texts (points) moved as little as it takes for them not to touch.

    None reaches below `floor`.
    """
    groups: list[list[int]] = []
    room = [1.3 * size * count for count in lines]

    def start(group: list[int]) -> float:
        middle = float(np.mean([heights[i] for i in group]))
        return max(floor, middle - sum(room[i] for i in group) / 2)

    for i in sorted(range(len(heights)), key=heights.__getitem__):
        groups.append([i])
        while len(groups) > 1:
            below, above = groups[-2:]
            if start(below) + sum(room[i] for i in below) <= start(above):
                break
            groups[-2:] = [below + above]
    places = [0.0] * len(heights)
    for group in groups:
        edge = start(group)
        for i in group:
            places[i] = edge + room[i] / 2
            edge += room[i]
    return places


def spread(
    ax: Axes, x: object, low: object, high: object, color: str, across: bool = False
) -> None:
    """Thin bars from low to high at each x (at each y, if across): how a measurement varied."""
    bars = ax.hlines if across else ax.vlines
    bars(x, low, high, color=ink(color), linewidth=1.4, label="_spread", zorder=3)


def band(ax: Axes, x: object, low: object, high: object, color: str) -> None:
    """A pale band from low to high along x: how a measurement varied, where it has many points."""
    ax.fill_between(x, low, high, color=color, alpha=0.22, linewidth=0)


def quartiles(rounds: pd.DataFrame | pd.Series) -> tuple[pd.Series, pd.Series, pd.Series]:
    """First quartile, median and third of each column; of a series of medians, three times itself.

    `rounds` has a row per round, as `roofline.in_turns` returns it.
    """
    if isinstance(rounds, pd.Series):
        return rounds, rounds, rounds
    return rounds.quantile(0.25), rounds.median(), rounds.quantile(0.75)
