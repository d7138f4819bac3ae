"""Chapter 09: each smaller cache is what its rule says."""

import inspect
from functools import partial

import pandas as pd
import pytest
import torch
from helpers import random_ids, small_model
from source import code_of, definitions

from course_utils.attention import attention, causal_mask
from course_utils.evaluation import in_chunks, kv_evaluate, uncached
from course_utils.going_further.smaller import (
    cache_quality,
    grouped_heads,
    packed_numbers,
    smaller_caches,
)
from course_utils.going_further.smaller import figures as plots
from course_utils.going_further.smaller.eviction import (
    EvictingCache,
    evicting,
    eviction_mask,
    victim,
)
from course_utils.going_further.smaller.packed_numbers import CHANNEL, TOGETHER, TOKEN, quantized
from course_utils.going_further.smaller.window import (
    WindowCache,
    band_mask,
    window_rule,
    windowed,
)
from course_utils.kv_cache import GrowingCache
from course_utils.transformer import ROOT, DecoderOnlyTransformer, load_model

CHAPTER = ROOT / "notebooks" / "going_further" / "09_smaller_caches.ipynb"


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """Groups of 4 positions, so that short sequences fill several."""
    monkeypatch.setitem(TOGETHER, CHANNEL, (4, -2))


SMALLER = {
    "window": lambda m: windowed(m, 3),
    "window, sinks": lambda m: windowed(m, 3, sinks=2),
    "a window for each layer": lambda m: windowed(m, [8, 2]),
    "8 bits": lambda m: quantized(m, 8, CHANNEL, TOKEN),
    "4 bits, per channel": lambda m: quantized(m, 4, CHANNEL, CHANNEL),
    "4 bits, per token": lambda m: quantized(m, 4, TOKEN, TOKEN),
    "2 bits, the other way": lambda m: quantized(m, 2, TOKEN, CHANNEL),
    "eviction": lambda m: evicting(m, 4),
    "eviction, one recent": lambda m: evicting(m, 3, recent=1),
    "one head": lambda m: grouped_heads.grouped(m, 1),
    "one head, 4 bits": lambda m: quantized(grouped_heads.grouped(m, 1), 4),
}


def judged(model):
    return kv_evaluate(model, smaller_caches.cases_by_rule(model, random_ids(2, 7)))


@pytest.mark.authors
@pytest.mark.parametrize("name", SMALLER)
def test_the_cache_computes_what_its_rule_says_however_it_is_fed(name):
    """Groups of 4 need d_head * bits to fill bytes: 8 numbers at 2 bits are two."""
    report = judged(SMALLER[name](small_model(max_seq_len=8)))
    assert report.all_passed, report.problems


@pytest.mark.parametrize("name", [n for n in SMALLER if "head" not in n])
def test_the_rule_is_not_the_plain_model_s(name):
    model, ids = small_model(), random_ids(1, 12)
    if name == "8 bits":
        assert 1e-6 < (uncached(SMALLER[name](model), ids) - uncached(model, ids)).abs().max() < 0.1
    else:
        assert (uncached(SMALLER[name](model), ids) - uncached(model, ids)).abs().max() > 0.01


class Broken:
    """Caches that are wrong as the approximation that they claim to be."""

    class RingTooLarge(WindowCache):
        def __init__(self, model, batch_size, window, sinks=0):
            super().__init__(model, batch_size, window + 1, sinks)

    class SinksOverwritten(WindowCache):
        def append(self, layer, k, v):
            sinks, self.sinks = self.sinks, 0
            window = self.windows[layer]
            self.windows[layer] = window + sinks
            found = super().append(layer, k, v)
            self.sinks, self.windows[layer] = sinks, window
            return found

    class LengthOfWhatIsKept(WindowCache):
        @property
        def length(self):
            return min(self.lengths[0], self.sinks + self.windows[0])

    class MassOfTheDead(EvictingCache):
        """The newcomer inherits what its predecessor in the slot had received."""

        def append(self, layer, k, v):
            before = self.mass[layer].clone()
            found = super().append(layer, k, v)
            self.mass[layer] = before
            return found

    class LastWeightsOnly(EvictingCache):
        def saw(self, layer, weights):
            self.mass[layer].zero_()
            super().saw(layer, weights)

    class NewestRounded(packed_numbers.QuantizedCache):
        def append(self, layer, k, v):
            keys, values = super().append(layer, k, v)
            return packed_numbers.rounded(keys[:, :, -1:], 4, TOKEN).expand_as(keys), values

    class LowBitsLost(packed_numbers.QuantizedCache):
        def append(self, layer, k, v):
            keys, values = super().append(layer, k, v)
            return keys, packed_numbers.rounded(values, 2, TOKEN)


@pytest.mark.authors
@pytest.mark.parametrize(
    ("like", "cache"),
    [
        ("window, sinks", partial(Broken.RingTooLarge, window=3, sinks=2)),
        ("window, sinks", partial(Broken.SinksOverwritten, window=3, sinks=2)),
        ("window, sinks", partial(Broken.LengthOfWhatIsKept, window=3, sinks=2)),
        ("eviction", partial(Broken.MassOfTheDead, budget=4, recent=2)),
        ("eviction", partial(Broken.LastWeightsOnly, budget=4, recent=2)),
        ("4 bits, per token", partial(Broken.NewestRounded, bits=4, keys=TOKEN, values=TOKEN)),
        ("4 bits, per token", partial(Broken.LowBitsLost, bits=4, keys=TOKEN, values=TOKEN)),
    ],
)
def test_a_cache_that_is_another_approximation_is_seen(like, cache):
    model = SMALLER[like](small_model(max_seq_len=8))
    model.cache = cache
    assert not judged(model).all_passed


def test_a_window_in_the_course_s_own_model_one_token_at_a_time():
    """`new_cache` is all it takes, as long as tokens come singly; several at once are refused."""

    class Windowed(DecoderOnlyTransformer):
        def new_cache(self, batch_size):
            return WindowCache(self, batch_size, window=4, sinks=1)

    model, ids = small_model(Windowed), random_ids(2, 15)
    expected = uncached(windowed(model, 4, sinks=1), ids)
    assert torch.allclose(in_chunks(model, ids, (1,) * 15), expected, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="3 positions came at once"):
        model(ids[:, :3], use_cache=True)
    told = windowed(model, 4, sinks=1).generate(ids, 5, temperature=0)
    for column in range(15, 20):
        likeliest = uncached(windowed(model, 4, sinks=1), told[:, :column])[:, -1].argmax(-1)
        assert torch.equal(told[:, column], likeliest)


@pytest.mark.parametrize("name", ["window", "eviction", "heads"])
def test_what_is_large_enough_is_the_plain_cache(name):
    model, ids = small_model(), random_ids(2, 20)
    smaller = {
        "window": lambda: windowed(model, 20, sinks=3),
        "eviction": lambda: evicting(model, 20),
        "heads": lambda: grouped_heads.grouped(model, model.num_heads),
    }[name]()
    plain = in_chunks(model, ids, (5,) + (1,) * 15)
    assert torch.allclose(in_chunks(smaller, ids, (5,) + (1,) * 15), plain, rtol=0, atol=1e-9)
    assert torch.allclose(uncached(smaller, ids), plain, rtol=0, atol=1e-9)


def test_eviction_that_protects_all_it_keeps_is_a_window():
    model, ids = small_model(), random_ids(2, 20)
    expected = uncached(windowed(model, 5), ids)
    assert torch.allclose(uncached(evicting(model, 5, recent=5), ids), expected, atol=1e-9)


def test_eviction_by_hand():
    """Two slots, one of them for the newest: the other goes to whom position 1 looked at."""
    q = k = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]]).double()[None, None]
    seen = eviction_mask(q, k, budget=2, recent=1)[0, 0]
    assert seen.tolist() == [[True, False, False], [True, True, False], [True, False, True]]


def test_only_queries_that_attend_to_what_they_saw_see_it():
    """Band and causal mask against a loop of single queries."""
    q, k, v = torch.randn(3, 1, 2, 9, 4).double().unbind()
    found = window_rule(3, 1)(q, k, v)
    for t in range(9):
        kept = [s for s in range(t + 1) if s > t - 3 or s < 1]
        alone = attention(q[:, :, t : t + 1], k[:, :, kept], v[:, :, kept])
        assert torch.allclose(found[:, :, t : t + 1], alone, atol=1e-12)
    plain = attention(q, k, v, causal_mask(9, 9))
    assert torch.allclose(smaller_caches.causal_rule(q, k, v), plain, atol=1e-12)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("dim", [-1, -2])
def test_rounding_is_wrong_by_half_a_step_and_no_more(bits, dim):
    torch.manual_seed(0)
    x = 5 * torch.randn(2, 3, 4, 8).double() + 1
    codes, low, step = packed_numbers.quantize(x, bits, dim)
    error = (low + step * codes - x).abs()
    sixteen = 2.0**-11 * (low.abs() + step * 2**bits)
    assert (error <= step / 2 + sixteen).all()
    assert error.max() > 0.4 * step.min()
    assert codes.max() == 2**bits - 1
    assert codes.min() == 0


def test_equal_numbers_are_rounded_to_themselves():
    x = torch.full((1, 1, 4, 8), 0.75)
    assert torch.equal(packed_numbers.rounded(x, 4, TOKEN), x)
    assert torch.equal(packed_numbers.rounded(x, 4, CHANNEL), x)


def storage(cache):
    if isinstance(cache, packed_numbers.QuantizedCache):
        stored = cache.keys + cache.values
        tensors = [t for each in stored for t in (*each.closed, each.rest)]
    else:
        parts = getattr(cache, "parts", ("keys", "values"))
        tensors = [t for part in parts for t in getattr(cache, part)]
    return sum({t.data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.numel()}.values())


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda m: m, 2 * 2 * 16 * 8 * 13),
        (lambda m: grouped_heads.grouped(m, 1), 2 * 2 * 8 * 8 * 13),
        (lambda m: windowed(m, 5, 2), 2 * 2 * 16 * 8 * 7),
        (lambda m: evicting(m, 6), 2 * 2 * 6 * (2 * 8 * 8 + 8 + 4)),
        (lambda m: quantized(m, 4, TOKEN, TOKEN), 2 * 2 * 2 * 13 * (8 // 2 + 2 + 2)),
        (
            lambda m: quantized(m, 4),
            2 * 2 * (12 * 4 + 3 * 8 * 4 + 8 * 8 + 13 * (8 // 2 + 2 + 2)),
        ),
    ],
    ids=["plain", "one head", "window", "eviction", "4 bits per token", "4 bits"],
)
def test_bytes_are_what_the_formula_says_and_what_is_allocated(make, expected):
    """In float64: 2 layers, 2 heads of 8 numbers, 13 positions, groups of 4."""
    model = make(small_model())
    cache = GrowingCache(model, 1) if type(model) is DecoderOnlyTransformer else model.new_cache(1)
    model(random_ids(1, 13), past_kv=cache, use_cache=True)
    assert cache.nbytes == expected
    assert storage(cache) == expected


@pytest.mark.parametrize("name", SMALLER)
def test_rows_can_be_reordered(name):
    model, ids = SMALLER[name](small_model()), random_ids(2, 12)
    expected = uncached(model, ids)[[1, 1, 0], -1]
    cache = model(ids[:, :11], use_cache=True)[1]
    cache.reorder(torch.tensor([1, 1, 0]))
    found = model(ids[[1, 1, 0], 11:], past_kv=cache, use_cache=True)[0][:, -1]
    assert torch.allclose(found, expected, atol=1e-9)


def test_numbers_that_do_not_fit_are_refused():
    model = small_model()
    with pytest.raises(ValueError, match="equally"):
        grouped_heads.grouped(small_model(num_heads=4), 3)
    with pytest.raises(ValueError, match="8, 4 or 2"):
        quantized(model, 3)
    with pytest.raises(ValueError, match="from 1 to budget=4"):
        evicting(model, 4, recent=5).new_cache(1)


def test_the_kept_measurements_are_those_of_this_code(monkeypatch):
    monkeypatch.setitem(TOGETHER, CHANNEL, (packed_numbers.GROUP, -2))
    kept, stories = cache_quality.load_measured(), cache_quality.held_out()
    made = cache_quality.contenders()
    assert list(kept) == list(made)
    for table in kept.values():
        assert [len(a) for a in table["answers"]] == [len(s.questions) for s in stories]
        assert list(table["tokens"]) == [len(s.words) - 1 for s in stories]
    model = load_model(device="cpu")
    for name in ("whole cache", "window 32, sinks", "4 bits, keys per channel, values per token"):
        again = cache_quality.quality(made[name](model), stories[:2])
        assert (again["loss"] - kept[name]["loss"][:2]).abs().max() < 0.01
        assert list(again["answers"]) == list(kept[name]["answers"][:2])


def test_quality_counts_words_and_answers():
    """By the course's own count of right answers, and through a cache as by the rule."""
    from course_utils.evaluation import answers_right

    model, stories = load_model(device="cpu"), cache_quality.held_out()[2:4]
    measured = cache_quality.quality(model, stories)
    expected = ["".join(str(int(r)) for r in answers_right(model, s)) for s in stories]
    assert list(measured["answers"]) == expected
    through = cache_quality.quality(model, stories, use_cache=True, batch=2)
    assert list(through["answers"]) == expected
    assert (through["loss"] - measured["loss"]).abs().max() < 0.01
    table = cache_quality.by_distance(measured, stories)
    assert table["questions"].sum() == sum(len(s.questions) for s in stories)
    zeros = measured.assign(answers=[a.replace("1", "0") for a in expected])
    assert (cache_quality.by_distance(zeros, stories)["recall"] == 0).all()


@pytest.mark.parametrize(
    "thing",
    [
        grouped_heads.pool_heads,
        band_mask,
        WindowCache,
        packed_numbers.pack,
        packed_numbers.unpack,
        victim,
    ],
)
def test_the_chapter_and_the_package_are_the_same_code(thing):
    built = definitions(code_of(CHAPTER))
    assert {thing.__name__: built[thing.__name__]} == definitions(inspect.getsource(thing))


def test_the_figures_draw_what_they_are_given():
    table = pd.DataFrame({"questions": [5, 5], "recall": [1.0, 0.25]}, index=[16, 64])
    figure = plots.recall_by_distance({"a": {"one": table}, "b": {"two": table}}, marks=[32])
    for ax in figure.axes:
        drawn = [list(line.get_ydata()) for line in ax.get_lines()]
        assert [1.0, 0.25] in drawn
        assert any(list(line.get_xdata()) == [32, 32] for line in ax.get_lines())
    rows = [
        {"family": family, "label": "x", "bytes": 1000 * n, "recall": 0.1 * n, "perplexity": n}
        for n, family in enumerate(plots.FAMILIES, start=1)
    ]
    left, right = plots.quality_against_bytes(pd.DataFrame(rows)).axes
    for n in range(1, len(plots.FAMILIES) + 1):
        assert [0.1 * n] in [list(line.get_ydata()) for line in left.get_lines()]
        assert [n] in [list(line.get_ydata()) for line in right.get_lines()]
    bits = pd.DataFrame({"a": [2.0, 2.1], "b": [2.2, 2.5]}, index=[8, 4])
    (ax,) = plots.rounding(bits, 1.9).axes
    assert [2.2, 2.5] in [list(line.get_ydata()) for line in ax.get_lines()]
    (ax,) = plots.grid(torch.tensor([[0.25, 0.75]]), "title").axes
    assert [text.get_text() for text in ax.texts] == ["0.25", "0.75"]
    assert len(plots.stripes(torch.randn(5, 3), torch.randn(5, 3)).axes) == 4
