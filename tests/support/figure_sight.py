"""Every figure of the course, looked at as a reader does who sees fewer colours, or none.

A pair of curves, or of bars, in one panel that mean different things must be told apart

- by colour, by people without one of the three kinds of cones (simulated at full severity): the
  colours are at least `APART` away from each other in CAM02-UCS, where 1 is about the least that
  can be noticed side by side. Only if the two are of one colour on purpose, marker, dashes or hatch
  must tell them apart there too;
- in grey: their lightness (CIELAB L*) differs by at least `LIGHTER`, or marker, dashes or hatch do.

Words must not touch each other, nor leave the figure, nor be small or pale.
"""

import base64
import inspect
import io
import itertools
import json
import struct

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from colorspacious import cspace_convert, deltaE
from figure_samples import FIGURES, sweep
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from course_utils import look, plots
from course_utils.benchmark import NO_CACHE, PREALLOCATED
from course_utils.going_further import plots_06, plots_07, plots_08, plots_09, plots_10, plots_11

APART, LIGHTER = 14, 6
BLIND = ("deuteranomaly", "protanomaly", "tritanomaly")
CONTRAST = {"words": 4.5, "lines": 3.0}  # WCAG 2.2, 1.4.3 and 1.4.11
SMALLEST = 9  # points
ROOMS = (plots, plots_06, plots_07, plots_08, plots_09, plots_10, plots_11)
# Axes with a time whose spread is not drawn, and why.
NO_SPREAD = {
    "fooled_clocks: time (ms)": "single calls: that is the subject",
    "06 bandwidth: bytes per second (GB/s)": "roofline.bandwidth returns medians",
    "06 growth: total time (s)": "one generation",
    "06 products, medians: weights read (GB/s)": "drawn without on purpose",
    "06 steps, medians: time for one token (ms)": "drawn without on purpose",
    "10 shares, medians: times as long as alone on one thread": "drawn without on purpose",
    "09 company: time for a step (ms)": "the fastest of the rounds",
    "09 company: tokens per second": "the fastest of the rounds",
    "09 load: tokens per second": "simulated",
    "09 load: tokens asked for, per second": "what was asked",
    "09 load: wait per token (ms)": "simulated; the 95th percentile is drawn",
    "09 speculation: times as fast as without": "the fastest of the rounds",
    "09 widths: time, in passes over one token": "the fastest of the rounds",
    "09 timelines: time (steps)": "counted",
}
TIMES = ("time", "(ms)", "(s)", "second", "GB/s", "faster")


@pytest.fixture(scope="module", params=FIGURES)
def drawn(request):
    """Name, figure, and the texts that its renderer really drew, each with its box in pixels."""
    with plt.rc_context():
        figure = FIGURES[request.param]()
        yield request.param, figure, texts_of(figure)
        plt.close(figure)


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


# Words


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


def test_no_words_touch_and_none_leave_the_figure(drawn):
    _, figure, texts = drawn
    assert texts
    assert touching(texts) == []
    assert outside(figure, texts) == []


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


def test_words_can_be_read(drawn):
    """White words stand on dark cells; the figures with cells choose by the cell's darkness."""
    _, _, texts = drawn
    for text, _ in texts:
        assert text.get_fontsize() >= SMALLEST, text
        if to_hex(text.get_color()) != "#ffffff":
            assert contrast(text.get_color()) >= CONTRAST["words"], text


def crossed(ax) -> list[str]:
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


def test_no_curve_runs_through_words(drawn):
    name, figure, _ = drawn
    if name != "08 quality_against_bytes":  # there a label may stand on a line if all else is taken
        assert {ax.get_title("left"): crossed(ax) for ax in figure.axes if crossed(ax)} == {}


def test_nearly_all_caches_have_their_label_beside_their_point():
    figure = FIGURES["08 quality_against_bytes"]()
    for ax, points in zip(figure.axes, (22, 20), strict=True):
        assert points - 2 <= len([text for text in ax.texts if text.get_text()]) <= points


# Colours


def is_drawn(line) -> bool:
    return line.get_visible() and (line.get_linestyle() != "None" or line.get_marker() != "None")


def series(ax) -> list[tuple[str, tuple]]:
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


def dashes(line) -> object:
    return line._unscaled_dash_pattern


def face(line) -> str:
    return to_hex(line.get_markerfacecolor()) if line.get_markerfacecolor() != "none" else "hollow"


def seen_by(color: str, cones: str) -> np.ndarray:
    view = {"name": "sRGB1+CVD", "cvd_type": cones, "severity": 100}
    return np.clip(cspace_convert(to_rgb(color), view, "sRGB1"), 0, 1)


def lightness(color: str) -> float:
    return cspace_convert(to_rgb(color), "sRGB1", "CIELab")[0]


def shape(cue: tuple) -> tuple:
    """What tells two apart in grey: a marker's filling is a colour, unless it is hollow."""
    return (*cue[:2], cue[2] in ("#ffffff", "hollow"), cue[3]) if len(cue) == 4 else cue


def confused(ax) -> list[str]:
    """The pairs of a panel that somebody cannot tell apart."""
    found = []
    for (one, cue), (other, other_cue) in itertools.combinations(series(ax), 2):
        alike = shape(cue) == shape(other_cue)
        if one == other:
            if alike:
                found.append(f"{one} twice")
            continue
        for cones in BLIND:
            distance = deltaE(seen_by(one, cones), seen_by(other, cones), input_space="sRGB1")
            bars = cue[0] == other_cue[0] == "bar" and not alike  # hatched beside plain
            if distance < APART and not bars:
                found.append(f"{one} and {other}: {distance:.0f} apart with {cones}")
        if alike and abs(lightness(one) - lightness(other)) < LIGHTER:
            found.append(f"{one} and {other}: alike in grey")
    return found


def test_curves_and_bars_can_be_told_apart(drawn):
    _, figure, _ = drawn
    assert {ax.get_title("left"): confused(ax) for ax in figure.axes if confused(ax)} == {}


def test_lines_stand_out_from_white(drawn):
    name, figure, _ = drawn
    for ax in figure.axes:
        for color, cue in series(ax):
            assert cue[0] == "bar" or contrast(color) >= CONTRAST["lines"], (name, color)


# Size, units, theory, spread


def test_one_width_and_few_heights(drawn):
    _, figure, _ = drawn
    width, height = figure.get_size_inches()
    assert width == look.WIDTH
    assert height in (look.LOW, look.SQUARES, look.NORMAL, look.TALL, look.PAGE)
    assert to_hex(figure.get_facecolor()) == "#ffffff" and figure.patch.get_alpha() is None


def test_axes_are_named(drawn):
    """Each axis with a scale says what it measures; one that shares its scale may leave it out."""
    name, figure, _ = drawn
    for ax in (ax for ax in figure.axes if ax.get_visible() and ax.axison):
        if ax.get_label() == "<colorbar>" or ax.get_images() or name in ("09 blocks", "filling"):
            continue
        words = [label.get_text() for label in ax.get_yticklabels() if label.get_text()]
        numbers = all(word.replace("−", "").replace(".", "").isdigit() for word in words)
        first = ax.get_subplotspec().is_first_col()
        if words and numbers and first:
            assert ax.get_ylabel(), f"{name}: no unit beside {words}"
        if ax.get_subplotspec().is_last_row() and ax.get_xlabel() == "":
            ticks = [label.get_text() for label in ax.get_xticklabels()]
            assert not all(t.replace(".", "").isdigit() for t in ticks if t), (name, ticks)


def test_theory_is_drawn_in_one_style(drawn):
    """Black and thin is theory, and theory is dashed; the one dotted law is what nobody does."""
    _, figure, _ = drawn
    for ax in figure.axes:
        for line in ax.get_lines():
            if is_drawn(line) and to_hex(line.get_color()) == "#000000":
                theory = line.get_linewidth() == look.THEORY["linewidth"]
                dashed = dashes(line) in ((0, [4, 3]), (0, (4, 3)), (0.0, [4.0, 3.0]))
                dotted = ax.get_title("left") == "What each process sends"
                assert not theory or dashed or dotted, (ax.get_title("left"), dashes(line))
                assert theory or not dashed


def timed(ax) -> list[str]:
    labels = (ax.get_ylabel(), ax.get_xlabel())
    return [label for label in labels if any(word in label for word in TIMES)]


def spreads(ax) -> list:
    found = [
        c for c in ax.collections if c.get_label() == "_spread" or isinstance(c, PolyCollection)
    ]
    return [c for c in found if c.get_paths()]


def test_where_a_time_was_measured_its_spread_is_drawn(drawn):
    name, figure, _ = drawn
    for ax in figure.axes:
        for label in timed(ax):
            if f"{name}: {label}" not in NO_SPREAD:
                assert spreads(ax), f"{name}: {label}"
        for bars in spreads(ax):
            if isinstance(bars, LineCollection):
                assert bars.get_linewidth()[0] > 1


def test_every_figure_has_a_sample():
    """So that a new figure is looked at here too."""
    asked = set()
    for room in ROOMS:
        for name, function in inspect.getmembers(room, inspect.isfunction):
            public = function.__module__ == room.__name__ and not name.startswith("_")
            if public and function.__annotations__.get("return") in (Figure, "Figure"):
                asked.add((room.__name__.rpartition(".")[2], name))
    samples = set()
    for name, sample in FIGURES.items():
        called = sample.__code__.co_names + (FIGURES.get(name, sample).__name__,)
        made = inspect.getsource(sample)
        samples |= {(room, function) for room, function in asked if f"{room}.{function}(" in made}
        samples |= {
            (room, function)
            for room, function in asked
            for inner in called
            if callable(found := sample.__globals__.get(inner))
            and inspect.isfunction(found)
            and f"{room}.{function}(" in inspect.getsource(found)
        }
    assert samples == asked


# The signature picture says what was measured


def finding(times: pd.DataFrame) -> str:
    return plots._finding(1000, plots._ratio(times, PREALLOCATED).loc[1000])


def test_the_title_of_the_sweep_is_computed():
    times = sweep()
    for factor in (1, 3):
        slower = times.copy()
        slower.loc[slower["contender"] == NO_CACHE, "total"] *= factor
        ratio = plots._ratio(slower, PREALLOCATED).loc[1000].median()
        assert finding(slower) == f"1000 tokens: {ratio:.1f} times faster with a KV cache"
    cached = times["contender"] == PREALLOCATED
    slow = times.assign(total=times["total"].where(~cached, 100 * times["total"]))
    assert "times slower" in finding(slow)
    same = times.assign(total=1.0 + 0.1 * ((times["round"] == 1) & cached) - 0.1 * (
        (times["round"] == 2) & cached))  # fmt: skip
    assert finding(same) == "1000 tokens: no clear difference with a KV cache"


def test_a_curve_through_a_word_is_seen():
    ax = bad(a={"color": look.GREEN})
    ax.text(1.5, 1.5, "on the line")
    ax.text(1.2, 1.8, "beside it")
    texts_of(ax.figure)
    assert crossed(ax) == ["on the line"]


# In a notebook


def test_a_figure_is_shown_with_its_alt_text_and_is_not_transparent(monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "display", lambda *data, **how: shown.append((*data, how)))
    plots.show(FIGURES["recall_bars"](), alt="four bars")
    ((data, how),) = shown
    assert how["metadata"]["image/png"]["alt"] == "four bars"
    assert json.dumps(data)
    picture = base64.b64decode(data["image/png"])
    width, height = struct.unpack(">II", picture[16:24])
    assert (width, height) == (int(look.WIDTH * look.DPI), int(look.LOW * look.DPI))
    image = Image.open(io.BytesIO(picture))
    assert "transparency" not in image.info
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert plt.get_fignums() == []


# The checks see what they are there for


def bad(**lines: dict) -> plt.Axes:
    _, (ax,) = look.panels()
    for name, style in lines.items():
        ax.plot([1, 2], [1, 2], label=name, **style)
    return ax


def test_red_and_green_of_the_same_lightness_are_confused():
    ax = bad(a={"color": "#B36A00", "marker": "o"}, b={"color": "#6E8B00", "marker": "s"})
    assert any("deuteranomaly" in pair for pair in confused(ax))


def test_colours_of_one_lightness_are_confused_in_grey_unless_markers_differ():
    one, other = "#C75000", "#0072B2"
    assert abs(lightness(one) - lightness(other)) < LIGHTER
    assert confused(bad(a={"color": one}, b={"color": other})) == [
        f"{one.lower()} and {other.lower()}: alike in grey"
    ]
    assert confused(bad(a={"color": one, "marker": "o"}, b={"color": other, "marker": "s"})) == []


def test_one_colour_twice_needs_another_dash_or_marker():
    color = look.GREEN
    assert confused(bad(a={"color": color}, b={"color": color, "marker": "o"})) == []
    assert confused(bad(a={"color": color, "linestyle": ":"}, b={"color": color})) == []
    _, (ax,) = look.panels()
    ax.plot([1, 2], color=color)
    ax.plot([2, 1], color=color)
    assert series(ax) == series(ax)[:1]


def test_the_palette_that_the_course_had_would_be_seen_to_fail(monkeypatch):
    """Okabe and Ito's orange beside the vermilion, as two of the engines."""
    peers = {name: {**style, "marker": "o"} for name, style in plots_06.PEERS.items()}
    peers["transformers"]["color"], peers["CTranslate2"]["color"] = "#E69F00", "#CC9F20"
    monkeypatch.setattr(plots_06, "PEERS", peers)
    figure = FIGURES["06 peers"]()
    assert all(confused(ax) for ax in figure.axes)


def test_words_on_top_of_each_other_or_beyond_the_edge_are_seen():
    figure, (ax,) = look.panels()
    ax.text(0.5, 0.5, "one")
    ax.text(0.51, 0.5, "other")
    ax.text(2, 0.5, "far away", in_layout=False)
    texts = texts_of(figure)
    assert touching(texts) == ["'one' and 'other'"]
    assert outside(figure, texts) == ["far away"]


def test_names_that_would_touch_are_moved_apart_and_keep_their_order():
    figure, (ax,) = look.panels()
    for i in range(6):
        ax.plot([0, 1], [0, 1 + 0.001 * i], label=f"line {i}", color=look.GREEN)
    ax.set_ylim(0, 20)
    look.name_lines(ax)
    texts = texts_of(figure)
    assert touching(texts) == [] and outside(figure, texts) == []
    names = [(box.y0, text.get_text()) for text, box in texts if "line" in text.get_text()]
    assert [name for _, name in sorted(names)] == [f"line {i}" for i in range(6)]


def test_a_time_without_spread_is_seen():
    _, (ax,) = look.panels()
    ax.plot([1, 2])
    ax.set_ylabel("time (ms)")
    assert timed(ax) == ["time (ms)"] and not spreads(ax)
    look.spread(ax, [0, 1], [0.5, 1], [1.5, 3], look.GREEN)
    assert spreads(ax)
