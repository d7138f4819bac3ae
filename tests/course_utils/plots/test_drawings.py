"""The drawings: nothing lies on anything else, and what they state is what the course does."""

import math
import re

import pytest
import torch
from figure_sight import texts_of
from helpers import random_ids, small_model
from matplotlib.patches import FancyArrowPatch, Polygon, Rectangle
from matplotlib.path import Path
from matplotlib.text import Text

from course_utils.attention import causal_mask
from course_utils.counting import Asked
from course_utils.evaluation import Feed, New, Reorder, RollBack, Uncached, replay
from course_utils.generation import decode_loop
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.plots import drawings
from course_utils.plots.drawings import chapters, clock, grammar, proof
from course_utils.stories import Tokenizer

pytestmark = pytest.mark.authors


@pytest.fixture(scope="module", params=drawings.__all__)
def drawn(request):
    """The axes of a drawing, drawn, and its words with their boxes in pixels."""
    figure = getattr(drawings, request.param)()
    yield figure.axes[0], texts_of(figure)


def things(ax):
    """What is drawn and filled, but arrows."""
    return [p for p in ax.patches if p.get_fill() and not isinstance(p, FancyArrowPatch)]


def holds(outer, inner, slack=1.0):
    return (
        outer.x0 - slack <= inner.x0
        and outer.y0 - slack <= inner.y0
        and outer.x1 + slack >= inner.x1
        and outer.y1 + slack >= inner.y1
    )


def overlap(one, other, slack=1.5):
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return wide > slack and high > slack


def runs_off(ax, texts):
    """Words that reach beyond the thing they are written on, or into one beside them."""
    boxes = [thing.get_window_extent() for thing in things(ax)]
    return [
        text.get_text()
        for text, words in texts
        if any(overlap(words, box) and not holds(box, words) for box in boxes)
    ]


def run_through(ax, texts):
    """Words that an arrow runs through, unless something filled lies between the two."""
    found = []
    for arrow in (p for p in ax.patches if isinstance(p, FancyArrowPatch)):
        path = arrow.get_transform().transform_path(arrow.get_path())
        lines = [Path(line) for line in path.to_polygons(closed_only=False)]
        for text, words in texts:
            above = [t for t in things(ax) if t.get_zorder() > arrow.get_zorder()]
            hidden = any(holds(t.get_window_extent(), words) for t in above)
            if any(p.intersects_bbox(words, filled=False) for p in lines) and not hidden:
                found.append(text.get_text())
    return found


def on_top(ax):
    """Pairs of things of which neither lies within the other, and that overlap."""
    boxes = [thing.get_window_extent() for thing in things(ax)]
    return [
        (one, other)
        for i, one in enumerate(boxes)
        for other in boxes[:i]
        if overlap(one, other) and not holds(one, other) and not holds(other, one)
    ]


def test_words_stay_on_what_they_are_written_on(drawn):
    assert runs_off(*drawn) == []


def test_no_arrow_runs_through_words(drawn):
    assert run_through(*drawn) == []


def test_nothing_lies_on_something_else(drawn):
    ax, _ = drawn
    assert on_top(ax) == []


def test_words_are_larger_than_the_smallest(drawn):
    _, texts = drawn
    assert all(text.get_fontsize() >= grammar.NOTE for text, _ in texts)


def test_a_bad_drawing_is_seen():
    ax = grammar.canvas()
    grammar.box(ax, 2, 2, 0.5, 0.5, "much too long")
    grammar.cell(ax, 6, 2, 1, 1)
    grammar.key(ax, 6.5, 2)
    grammar.say(ax, 4, 1, "in the way")
    grammar.arrow(ax, (3, 1), (5, 1))
    texts = texts_of(ax.figure)
    assert "much too long" in runs_off(ax, texts)
    assert run_through(ax, texts) == ["in the way"]
    assert len(on_top(ax)) == 1


def test_a_querys_point_fits_a_keys_notch():
    ax = grammar.canvas()
    grammar.query(ax, 2, 1)
    grammar.key(ax, 4, 1)
    point, notch = (p.get_xy() for p in ax.patches if isinstance(p, Polygon))
    right, left = point[:, 0].max(), notch[:, 0].min()
    depth = right - point[1, 0]
    assert math.isclose(depth, notch[4, 0] - left)
    assert math.isclose(point[3, 1] - point[1, 1], notch[2, 1] - notch[1, 1])


# What a drawing states


def words_of(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def dark(ax, left, right):
    """The dark cells of a mask between two x: their rows and columns, from the upper left."""
    squares = [p for p in things(ax) if type(p) is Rectangle and p.get_height() == p.get_width()]
    cells = [p for p in squares if left < p.get_x() < right]
    rows = sorted({round(p.get_y(), 3) for p in cells}, reverse=True)
    columns = sorted({round(p.get_x(), 3) for p in cells})
    seen = torch.zeros(len(rows), len(columns), dtype=torch.bool)
    for p in cells:
        row, column = rows.index(round(p.get_y(), 3)), columns.index(round(p.get_x(), 3))
        seen[row, column] = p.get_facecolor()[:3] == (0.25, 0.25, 0.25)
    return seen


@pytest.mark.parametrize(("stored", "new"), [(3, 2), (2, 3), (4, 1)])
def test_the_masks_are_those_of_the_course(stored, new):
    ax = drawings.mask_offset(stored, new).axes[0]
    assert torch.equal(dark(ax, 0, 4.5), causal_mask(stored + new, stored + new))
    assert torch.equal(dark(ax, 4.5, 9), causal_mask(new, stored + new))
    ax = drawings.no_looking_ahead().axes[0]
    assert torch.equal(dark(ax, 4.5, 9), causal_mask(4, 4))


def test_scores_and_weights_are_those_of_the_vectors():
    scores = [3 * first / math.sqrt(2) for first in (1, 2, 0)]
    powers = [math.exp(score) for score in scores]
    words = words_of(drawings.query_meets_keys())
    for score, power in zip(scores, powers, strict=True):
        assert f"{score:.1f}" in words
        assert f"{power / sum(powers):.2f}" in words


def test_the_ids_are_those_of_the_words():
    assert Tokenizer().encode("Mia found the") == [
        int(word) for word in words_of(drawings.whole_model()) if word.isdigit()
    ]


@pytest.mark.parametrize("kind", [GrowingCache, PreallocatedCache])
def test_what_a_cache_copies_is_what_it_copies(kind):
    model = small_model()
    cache = kind(model, 1)
    row = torch.zeros(1, model.num_heads, 1, model.d_head, dtype=model.dtype)
    for _ in range(3):
        cache.append(0, row, row)
    told = []
    for _ in range(2):
        with Asked() as asked:
            cache.append(0, row, row)
        positions = asked.copied // (2 * row.nbytes)
        told.append(f"copied {positions - 1}, written 1")
    said = [text for text in drawings.memory().axes[0].texts if "copied" in text.get_text()]
    said = [t.get_text() for t in said if (t.get_position()[0] < 4) == (kind is GrowingCache)]
    assert said == told


@pytest.mark.parametrize("use_cache", [False, True])
def test_the_passes_are_those_of_a_generation(use_cache):
    model, fed = small_model(), []
    model.register_forward_pre_hook(lambda _, args: fed.append(args[0].size(1)))
    list(decode_loop(model, random_ids(1, 4), 4, use_cache, temperature=0))
    told = clock.passes(4, 4)["with a cache" if use_cache else "no cache"]
    assert [new + again for new, again in told] == fed
    assert f"{sum(fed)} run" in words_of(drawings.what_runs())


def test_the_rounds_of_the_loop_run_as_many_words_as_a_generation_without_a_cache():
    model, fed = small_model(), []
    model.register_forward_pre_hook(lambda _, args: fed.append(args[0].size(1)))
    list(decode_loop(model, random_ids(1, 3), 3, use_cache=False, temperature=0))
    told = re.findall(r"new (\d+), again (\d+)", "\n".join(words_of(drawings.computed_again())))
    assert [int(new) + int(again) for new, again in told] == fed
    assert [int(again) for _, again in told] == [0, *fed[:-1]]


def test_each_word_is_in_the_block_that_its_table_names():
    ax = drawings.page_table().axes[0]
    blocks = {round(t.get_position()[1], 3): int(t.get_text()) for t in ax.texts if numbers(t)}
    found = {t.get_text(): t.get_position() for t in ax.texts if t.get_position()[0] > 7}
    for name, row in chapters.READERS.items():
        for position, word in enumerate(row):
            x, y = found[word]
            assert blocks[round(y, 3)] == chapters.TABLES[name][position // 2]
            assert (x > 7.6) == bool(position % 2)


def numbers(text):
    """Whether it is the number of a block, left of the block."""
    return text.get_text().isdigit() and 6 < text.get_position()[0] < 7


def test_the_script_is_played_as_it_is_drawn():
    """A right cache passes it, and after each step holds what the drawing says."""
    model, texts = small_model(), random_ids(2, 3)
    assert replay(model, proof.STEPS).problem is None
    _, whole = model(texts, use_cache=True)
    rows, cache = [], None
    for step, drawn_rows in zip(proof.STEPS, proof.after_each(proof.STEPS), strict=True):
        match step:
            case New(count):
                cache = model.new_cache(count)
            case Feed(tokens):
                fed = [texts[story, n : n + tokens] for story, n in rows]
                model(torch.stack(fed), past_kv=cache, use_cache=True)
            case RollBack(length):
                cache.truncate(length)
            case Reorder(order):
                cache.reorder(torch.tensor(order))
        rows = drawn_rows
        for row, (story, length) in enumerate(rows):
            assert cache.length == length
            stored = cache.keys[0, row, :, :length]
            assert torch.allclose(stored, whole.keys[0, story, :, :length])


def test_a_step_that_is_not_drawn_is_refused():
    with pytest.raises(TypeError, match="Uncached"):
        proof.after_each([Uncached(3)])
