"""What the drawings are made of: words, queries, keys, values, boxes, arrows, tensors, braces.

A thing keeps its colour and its shape in every drawing, so that it is known without its colour:

- a token is a word in italics, in a white box with square corners;
- a query is yellow and has a point; a key is green and has the notch that the point fits into; a
  value is violet and has round ends;
- what is written in this step is hatched, what an earlier step has stored is not;
- work that is done although it had been done before is pale orange and cross-hatched.

All lengths are inches from the lower left corner, and x and y are the middle of a thing.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path
from matplotlib.text import Text
from torch import Tensor

from ..look import CENTRED, GREEN, LOW, ORANGE, PALE, WIDTH, panels

WORDS, NOTE = 14, 12  # points: what a thing is called, what is said about it
EDGE = "0.25"  # outlines and arrows
PAPER = {"facecolor": "white", "edgecolor": EDGE, "linewidth": 1.3}
SEEN = {"facecolor": EDGE, "edgecolor": "white", "linewidth": 1.0}  # a cell of a mask
FRAME = {"fill": False, "edgecolor": "black", "linewidth": 3}  # around what is spoken of
STORE = {"fill": False, "edgecolor": EDGE, "linewidth": 1.3, "linestyle": "--"}  # a cache
WRONG = {"facecolor": "white", "edgecolor": ORANGE, "linewidth": 3}
AGAIN = {"facecolor": PALE[ORANGE], "edgecolor": ORANGE, "hatch": "xxx", "linewidth": 1.3}
QUERY = {"facecolor": "#F7DE8B", "edgecolor": "#7A6200", "linewidth": 1.3}
KEY = {"facecolor": "#6BB48C", "edgecolor": GREEN, "linewidth": 1.3}
VALUE = {"facecolor": "#BDBBF6", "edgecolor": "#3E3A8C", "linewidth": 1.3}
NEW = {"hatch": "//"}


def canvas(height: float = LOW) -> Axes:
    """An empty sheet of the course's width, without axes: a unit is an inch."""
    figure, (ax,) = panels(height=height)
    figure.set_layout_engine("none")
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, height))
    ax.axis("off")
    return ax


def say(
    ax: Axes, x: float, y: float, text: str, size: float = NOTE, ha: str = "center", **more: object
) -> Text:
    """Words on the sheet, in the middle of (x, y), or left or right of it by `ha`."""
    return ax.text(x, y, text, fontsize=size, **(CENTRED | {"ha": ha} | more))


def box(
    ax: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    text: str = "",
    rotation: float = 0,
    **look: object,
) -> None:
    """A part of a model or of a program: round corners, upright words."""
    inner = {"boxstyle": "round,pad=0,rounding_size=0.1"}
    corner = (x - width / 2, y - height / 2)
    ax.add_patch(FancyBboxPatch(corner, width, height, **inner, **(PAPER | look)))
    say(ax, x, y, text, WORDS, rotation=rotation)


def cell(
    ax: Axes, x: float, y: float, width: float, height: float, text: str = "", **look: object
) -> None:
    """A rectangle: a place in memory, a number, a stretch of time."""
    corner = (x - width / 2, y - height / 2)
    ax.add_patch(Rectangle(corner, width, height, **(PAPER | look)))
    if text:
        say(ax, x, y, text, color="white" if look.get("facecolor") == EDGE else "black")


def token(ax: Axes, x: float, y: float, word: str, width: float = 0.8, **look: object) -> None:
    """A word of the text."""
    cell(ax, x, y, width, 0.36, **look)
    label(ax, x, y, word, look, style="italic")


def tokens(ax: Axes, x: float, y: float, row: Sequence[str], width: float = 0.8) -> np.ndarray:
    """A row of words, the first in the middle of (x, y); returns the middles of all."""
    places = x + np.arange(len(row)) * width
    for place, word in zip(places, row, strict=True):
        token(ax, place, y, word, width)
    return places


def query(
    ax: Axes, x: float, y: float, text: str = "q", width: float = 0.62, height: float = 0.36
) -> None:
    """What a token asks: a tag whose point looks to the right, for a key's notch."""
    left, right, low, high = _edges(x, y, width, height)
    point = height / 2
    corners = [(left, low), (right - point, low), (right, y), (right - point, high), (left, high)]
    ax.add_patch(Polygon(corners, closed=True, **QUERY))
    say(ax, x - 0.25 * point, y, text, WORDS)


def key(
    ax: Axes,
    x: float,
    y: float,
    text: str = "k",
    width: float = 0.62,
    height: float = 0.36,
    **look: object,
) -> None:
    """What a token can be found by: a tag with a notch on its left."""
    left, right, low, high = _edges(x, y, width, height)
    corners = [(left, low), (right, low), (right, high), (left, high), (left + height / 2, y)]
    ax.add_patch(Polygon(corners, closed=True, **(KEY | look)))
    label(ax, x + 0.25 * height / 2, y, text, look)


def value(
    ax: Axes,
    x: float,
    y: float,
    text: str = "v",
    width: float = 0.62,
    height: float = 0.36,
    **look: object,
) -> None:
    """What a token has to tell: a tag with round ends."""
    left, right, low, high = _edges(x, y, width, height)
    r, k = height / 2, 0.5523 * height / 2  # a quarter of a circle as one cubic curve
    ends = [(right - r + k, high), (right, y + k), (right, y), (right, y - k), (right - r + k, low)]
    back = [(left + r - k, low), (left, y - k), (left, y), (left, y + k), (left + r - k, high)]
    points = [(left + r, high), (right - r, high), *ends, (right - r, low), (left + r, low)]
    points += [*back, (left + r, high)]
    curve = [Path.CURVE4] * 6
    codes = [Path.MOVETO, Path.LINETO, *curve, Path.LINETO, *curve]
    ax.add_patch(PathPatch(Path(points, codes), **(VALUE | look)))
    label(ax, x, y, text, look)


def arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    bend: float = 0.0,
    **look: object,
) -> None:
    """From here to there; `bend` is the height of the arc as a share of its length."""
    style = {"arrowstyle": "-|>", "mutation_scale": 13, "shrinkA": 0, "shrinkB": 0}
    style |= {"color": EDGE, "linewidth": 1.4, "connectionstyle": f"arc3,rad={bend}"}
    ax.add_patch(FancyArrowPatch(start, end, **(style | look)))


def corner(ax: Axes, *points: tuple[float, float], head: bool = True) -> None:
    """An arrow with right angles, along these points."""
    codes = [Path.MOVETO, *[Path.LINETO] * (len(points) - 1)]
    style = {"arrowstyle": "-|>" if head else "-", "mutation_scale": 13, "linewidth": 1.4}
    ax.add_patch(FancyArrowPatch(path=Path(points, codes), color=EDGE, fill=head, **style))


def tensor(
    ax: Axes,
    x: float,
    y: float,
    shape: tuple[int, int],
    edges: tuple[str, str] = ("", ""),
    size: float = 0.22,
    colors: Sequence[dict] = (PAPER,),
) -> tuple[float, float]:
    """A grid of cells with the names of its two lengths on its edges: rows left, columns above.

    `colors` holds the looks of its columns, from the left, each for an equal share of them. Returns
    half its width and half its height.
    """
    rows, columns = shape
    left, high = x - columns * size / 2, y + rows * size / 2
    for row, column in np.ndindex(rows, columns):
        look = colors[column * len(colors) // columns] | {"linewidth": 0.9}
        place = (left + column * size, high - (row + 1) * size)
        ax.add_patch(Rectangle(place, size, size, **look))
    for edge, place in zip(edges, ((left - 0.16, y), (x, high + 0.13)), strict=True):
        if edge:
            say(ax, *place, edge)
    return columns * size / 2, rows * size / 2


def grid(ax: Axes, x: float, y: float, mask: Tensor, size: float, hidden: str = "") -> None:
    """A mask, dark where a query may look; (x, y) is the middle of its first cell."""
    for i, j in np.ndindex(*mask.shape):
        look, text = (SEEN, "sees") if mask[i, j] else ({}, hidden)
        cell(ax, x + j * size, y - i * size, size, size, text, **look)


def cache(ax: Axes, x: float, y: float, kept: int, written: int, room: int = 4) -> None:
    """A layer's keys and values, a pair for each position, upwards; the last `written` are new."""
    for row in range(kept + written):
        height, look = y + 0.5 * (row - (room - 1) / 2), NEW if row >= kept else {}
        key(ax, x - 0.3, height, "", 0.5, 0.32, **look)
        value(ax, x + 0.27, height, "", 0.5, 0.32, **look)
    cell(ax, x, y, 1.25, 0.5 * room + 0.1, **STORE)


def brace(ax: Axes, start: float, end: float, y: float, text: str, below: bool = True) -> None:
    """A bracket along what lies between start and end, with words below it or above."""
    tip = -0.1 if below else 0.1
    corner(ax, (start, y - tip), (start, y), (end, y), (end, y - tip), head=False)
    say(ax, (start + end) / 2, y + 1.8 * tip, text)


def _edges(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return x - width / 2, x + width / 2, y - height / 2, y + height / 2


def label(
    ax: Axes, x: float, y: float, text: str, look: dict, size: float = WORDS, **more: object
) -> None:
    """Words on a thing; on hatching they get a plain ground."""
    if text and "hatch" in look:
        more["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.85}
    say(ax, x, y, text, size, **more)
