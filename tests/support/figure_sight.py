"""How a figure is seen by a reader who sees fewer colours, or none.

A pair of curves, or of bars, in one panel that mean different things must be told apart

- by colour, by people without one of the three kinds of cones (simulated at full severity): the
  colours are at least `APART` away from each other in CAM02-UCS, where 1 is about the least that
  can be noticed side by side. Only if the two are of one colour on purpose, marker, dashes or hatch
  must tell them apart there too;
- in grey: their lightness (CIELAB L*) differs by at least `LIGHTER`, or marker, dashes or hatch do.

Words must not touch each other, nor leave the figure, nor be small or pale.
"""

import functools
import itertools

import numpy as np
import pytest
from colorspacious import cspace_convert, deltaE
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

APART, LIGHTER = 14, 6
BLIND = ("deuteranomaly", "protanomaly", "tritanomaly")
CONTRAST = {"words": 4.5, "lines": 3.0}  # WCAG 2.2, 1.4.3 and 1.4.11
TIMES = ("time", "(ms)", "(s)", "second", "GB/s", "faster")


# Words


def texts_of(figure: Figure) -> list:
    found, draw = {}, Text.draw

    def noted(self, renderer):
        if self.get_visible() and self.get_text().strip():
            found[id(self)] = self, Text.get_window_extent(self, renderer)
        draw(self, renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", noted)
        FigureCanvasAgg(figure).draw()
    return list(found.values())


def touching(texts: list) -> list[str]:
    return [
        f"{a.get_text()!r} and {b.get_text()!r}"
        for (a, one), (b, other) in itertools.combinations(texts, 2)
        if one.overlaps(other)
    ]


def outside(figure: Figure, texts: list) -> list[str]:
    width, height = figure.canvas.get_width_height()
    return [
        text.get_text()
        for text, box in texts
        if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height
    ]


def contrast(color: object, ground: object = "white") -> float:
    """Contrast ratio as WCAG defines it."""

    def luminance(color):
        c = np.array(to_rgb(color))
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ (
            0.2126,
            0.7152,
            0.0722,
        )

    dark, light = sorted((luminance(color), luminance(ground)))
    return (light + 0.05) / (dark + 0.05)


def crossed(ax: Axes) -> list[str]:
    """Words inside a panel that one of its curves runs through."""
    paths = [
        line.get_transform().transform_path(line.get_path())
        for line in ax.get_lines()
        if is_drawn(line) and line.get_linestyle() != "None" and line.get_linewidth() >= 1
    ]
    boxes = [(text, Text.get_window_extent(text)) for text in ax.texts if text.get_text().strip()]
    boxes = [(text, box) for text, box in boxes if box.x0 < ax.get_window_extent().x1]
    return [
        text.get_text()
        for text, box in boxes
        if text.get_bbox_patch() is None
        and any(p.intersects_bbox(box, filled=False) for p in paths)
    ]


# Colours


def is_drawn(line: Line2D) -> bool:
    return line.get_visible() and (line.get_linestyle() != "None" or line.get_marker() != "None")


def series(ax: Axes) -> list[tuple[str, tuple]]:
    """What has to be told apart in a panel: (colour, all else that tells), of curves and of bars.

    The line of theory and lines that only mark a place (thinner than a point) are not among it.
    """
    found = []
    for line in ax.get_lines():
        theory = to_hex(line.get_color()) == "#000000" and line.get_linewidth() == 1.2
        if is_drawn(line) and not theory and line.get_linewidth() >= 1:
            width = line.get_linewidth()
            found.append((line.get_color(), (line.get_marker(), dashes(line), face(line), width)))
    groups = [bars for bars in ax.containers if isinstance(bars, BarContainer)]
    if len(groups) > 1:  # the bars of a single group have their names on the axis
        found += [(p.get_facecolor(), ("bar", p.get_hatch())) for bars in groups for p in bars]
    bars = {id(bar) for group in groups for bar in group}
    for patch in ax.patches:
        if id(patch) not in bars and patch.get_fill():
            found.append((patch.get_facecolor(), ("bar", patch.get_hatch())))
    return list(dict.fromkeys((to_hex(color), cue) for color, cue in found))


def dashes(line: Line2D) -> object:
    return line._unscaled_dash_pattern


def face(line: Line2D) -> str:
    return to_hex(line.get_markerfacecolor()) if line.get_markerfacecolor() != "none" else "hollow"


@functools.cache
def seen_by(color: str, cones: str) -> np.ndarray:
    view = {"name": "sRGB1+CVD", "cvd_type": cones, "severity": 100}
    return np.clip(cspace_convert(to_rgb(color), view, "sRGB1"), 0, 1)


@functools.cache
def apart(one: str, other: str, cones: str) -> float:
    return deltaE(seen_by(one, cones), seen_by(other, cones), input_space="sRGB1")


@functools.cache
def lightness(color: str) -> float:
    return cspace_convert(to_rgb(color), "sRGB1", "CIELab")[0]


def shape(cue: tuple) -> tuple:
    """What tells two apart in grey: a marker's filling is a colour, unless it is hollow."""
    return (*cue[:2], cue[2] in ("#ffffff", "hollow"), cue[3]) if len(cue) == 4 else cue


def confused(ax: Axes) -> list[str]:
    """The pairs of a panel that somebody cannot tell apart."""
    found = []
    for (one, cue), (other, other_cue) in itertools.combinations(series(ax), 2):
        alike = shape(cue) == shape(other_cue)
        if one == other:
            if alike:
                found.append(f"{one} twice")
            continue
        for cones in BLIND:
            distance = apart(one, other, cones)
            bars = cue[0] == other_cue[0] == "bar" and not alike  # hatched beside plain
            if distance < APART and not bars:
                found.append(f"{one} and {other}: {distance:.0f} apart with {cones}")
        if alike and abs(lightness(one) - lightness(other)) < LIGHTER:
            found.append(f"{one} and {other}: alike in grey")
    return found


# Times


def timed(ax: Axes) -> list[str]:
    labels = (ax.get_ylabel(), ax.get_xlabel())
    return [label for label in labels if any(word in label for word in TIMES)]


def spreads(ax: Axes) -> list:
    found = [
        c for c in ax.collections if c.get_label() == "_spread" or isinstance(c, PolyCollection)
    ]
    return [c for c in found if c.get_paths()]
