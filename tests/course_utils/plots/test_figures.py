"""Every figure of the course, looked at as a reader does who sees fewer colours, or none.

What is asked of curves, bars and words is in `tests/support/figure_sight.py`.
"""

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType

import matplotlib.pyplot as plt
import pytest
from figure_samples import FIGURES
from figure_sight import (
    CONTRAST,
    confused,
    contrast,
    crossed,
    dashes,
    is_drawn,
    outside,
    series,
    spreads,
    texts_of,
    timed,
    touching,
)
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from course_utils import going_further, plots
from course_utils.plots import look

pytestmark = pytest.mark.authors

SMALLEST = 10  # points
# Axes with a time whose spread is not drawn, and why.
NO_SPREAD = {
    "fooled_clocks: time (ms)": "single calls: that is the subject",
    "07 bandwidth: bytes per second (GB/s)": "roofline.bandwidth returns medians",
    "07 growth: total time (s)": "one generation",
    "07 products, medians: weights read (GB/s)": "drawn without on purpose",
    "07 steps, medians: time for one token (ms)": "drawn without on purpose",
    "11 shares, medians: times as long as alone on one thread": "drawn without on purpose",
    "10 company: time for a step (ms)": "the fastest of the rounds",
    "10 company: tokens per second": "the fastest of the rounds",
    "10 load: tokens per second": "simulated",
    "10 load: tokens asked for, per second": "what was asked",
    "10 load: wait per token (ms)": "simulated; the 95th percentile is drawn",
    "10 speculation: times as fast as without": "the fastest of the rounds",
    "10 widths: time, in passes over one token": "the fastest of the rounds",
    "10 timelines: time (steps)": "counted",
}


@pytest.fixture(scope="module", params=FIGURES)
def drawn(request):
    """Name, figure, and the texts that its renderer really drew, each with its box in pixels."""
    with plt.rc_context():
        figure = FIGURES[request.param]()
        yield request.param, figure, texts_of(figure)
        plt.close(figure)


# Words


def test_no_words_touch_and_none_leave_the_figure(drawn):
    _, figure, texts = drawn
    assert texts
    assert touching(texts) == []
    assert outside(figure, texts) == []


def test_words_can_be_read(drawn):
    """White words are on dark cells; the figures with cells choose by the cell's darkness."""
    _, _, texts = drawn
    for text, _ in texts:
        assert text.get_fontsize() >= SMALLEST, text
        if to_hex(text.get_color()) != "#ffffff":
            assert contrast(text.get_color()) >= CONTRAST["words"], text


def test_no_curve_runs_through_words(drawn):
    name, figure, _ = drawn
    if name != "09 quality_against_bytes":  # there a label may lie on a line if all else is taken
        assert {ax.get_title("left"): crossed(ax) for ax in figure.axes if crossed(ax)} == {}


def test_nearly_all_caches_have_their_label_beside_their_point():
    figure = FIGURES["09 quality_against_bytes"]()
    for ax, points in zip(figure.axes, (22, 20), strict=True):
        assert points - 2 <= len([text for text in ax.texts if text.get_text()]) <= points


# Colours


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
        if ax.get_label() == "<colorbar>" or ax.get_images() or name in ("10 blocks", "filling"):
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


def test_where_a_time_was_measured_its_spread_is_drawn(drawn):
    name, figure, _ = drawn
    for ax in figure.axes:
        for label in timed(ax):
            if f"{name}: {label}" not in NO_SPREAD:
                assert spreads(ax), f"{name}: {label}"
        for bars in spreads(ax):
            if isinstance(bars, LineCollection):
                assert bars.get_linewidth()[0] > 1


def rooms() -> Iterator[ModuleType]:
    """The modules that draw: those of `plots`, its drawings, and `figures` of each chapter."""
    for room in pkgutil.walk_packages(plots.__path__, f"{plots.__name__}."):
        yield import_module(room.name)
    for chapter in pkgutil.iter_modules(going_further.__path__, f"{going_further.__name__}."):
        yield import_module(f"{chapter.name}.figures")


def drawing(room: ModuleType) -> set[Callable]:
    """The public functions of a module that return a figure, without those that it imports."""
    return {
        function
        for name, function in inspect.getmembers(room, inspect.isfunction)
        if function.__module__ == room.__name__ and not name.startswith("_")
        if function.__annotations__.get("return") in (Figure, "Figure")
    }


def called(sample: Callable) -> set[Callable]:
    """What a sample calls of `plots`, `drawings` or `figures`, itself or by another sample."""
    names = sample.__globals__
    others = (names.get(name) for name in sample.__code__.co_names)
    sources = map(inspect.getsource, [sample, *filter(inspect.isfunction, others)])
    return {
        getattr(names[room], function)
        for source in sources
        for room, function in re.findall(r"\b(plots|figures|drawings)\.(\w+)\(", source)
    }


def test_every_figure_has_a_sample():
    """So that a new figure is looked at here too."""
    asked = set().union(*map(drawing, rooms()))
    assert set().union(*map(called, FIGURES.values())) == asked
