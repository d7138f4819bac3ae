"""The checks of the figures see what they are there for: bad figures are found to be bad."""

import matplotlib.pyplot as plt
import pytest
from figure_samples import FIGURES
from figure_sight import (
    LIGHTER,
    confused,
    crossed,
    lightness,
    outside,
    series,
    spreads,
    texts_of,
    timed,
    touching,
)

from course_utils.going_further.speed import figures as speed_figures
from course_utils.plots import look

pytestmark = pytest.mark.authors


def bad(**lines: dict) -> plt.Axes:
    _, (ax,) = look.panels()
    for name, style in lines.items():
        ax.plot([1, 2], [1, 2], label=name, **style)
    return ax


def test_a_curve_through_a_word_is_seen():
    ax = bad(a={"color": look.GREEN})
    ax.text(1.5, 1.5, "on the line")
    ax.text(1.2, 1.8, "beside it")
    texts_of(ax.figure)
    assert crossed(ax) == ["on the line"]


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
    peers = {name: {**style, "marker": "o"} for name, style in speed_figures.PEERS.items()}
    peers["transformers"]["color"], peers["CTranslate2"]["color"] = "#E69F00", "#CC9F20"
    monkeypatch.setattr(speed_figures, "PEERS", peers)
    figure = FIGURES["07 peers"]()
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
