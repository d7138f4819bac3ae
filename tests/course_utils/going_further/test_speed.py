"""The rooms of chapter 07: what they count is right, and their checks see what is wrong."""

import inspect
from functools import partial

import pandas as pd
import pytest
import torch
from helpers import small_model
from source import bodies, code_of

from course_utils.going_further.speed import checks, roofline
from course_utils.going_further.speed import figures as plots
from course_utils.kv_cache import GrowingCache
from course_utils.transformer import ROOT, DecoderOnlyTransformer

CHAPTERS = ROOT / "notebooks" / "going_further"


def test_a_token_reads_what_its_forward_pass_reads():
    """Every parameter is read whole but the tables, of which one row is."""
    model = DecoderOnlyTransformer(50, 16, 32, 2, 24, 2, dropout=0.0)
    linear = 2 * (4 * 16 * 16 + 2 * 16 * 32 + 32 + 16) + 50 * 16 + 50
    norms = (2 * 2 + 1) * 2 * 16
    assert roofline.weight_bytes(model) == 4 * (linear + norms + 2 * 16)
    assert roofline.weight_bytes(model.half()) == 2 * (linear + norms + 2 * 16)
    assert roofline.cache_bytes(model, 7) == 2 * (2 * 2 * 7 * 16)


def test_tasks_take_turns_and_the_first_round_is_not_counted():
    done = []
    tasks = {"a": lambda: done.append("a"), "b": lambda: done.append("b")}
    seconds = roofline.in_turns(tasks, rounds=2, calls=2)
    assert "".join(done) == "aabb" * 3
    assert seconds.shape == (2, 2)
    assert list(seconds) == ["a", "b"]
    assert (seconds > 0).all(axis=None)


def test_what_settles_a_task_is_not_counted(monkeypatch):
    clock = [0.0]
    before = []

    def task(name):
        clock[0] += 5.0 if before[-1:] != [name] else 1.0
        before.append(name)

    monkeypatch.setattr(roofline, "timer", lambda: clock[0])
    tasks = {name: partial(task, name) for name in "ab"}
    assert (roofline.in_turns(tasks, rounds=2, settled=True) == 1).all(axis=None)
    assert "".join(before) == "aabb" * 3
    assert (roofline.in_turns(tasks, rounds=2) == 5).all(axis=None)


def test_bandwidth_is_bytes_over_seconds(monkeypatch):
    times = pd.DataFrame({"sum": [0.5, 0.25, 0.1], "copy": [0.5, 0.5, 1]})
    monkeypatch.setattr(roofline, "in_turns", lambda *_: times)
    assert roofline.bandwidth([1000]).loc[1000].to_dict() == {"sum": 4000, "copy": 2000}


@pytest.mark.parametrize("size", [4096, 40_960, 45_000])
def test_every_reader_moves_so_many_bytes(monkeypatch, size):
    """Less what a row of 1024 numbers leaves over."""
    made = []
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *shape: made.append(ones(*shape)) or made[-1])
    ways = roofline.readers(size)
    assert set(ways) >= {"sum", "by rows", "by columns", "in parts"}
    words = made[0]
    assert size - 4096 < words.nbytes <= size
    for name, read in ways.items():
        with torch.no_grad():
            found = read()
        if name == "sum":
            assert found == words.numel()
        elif name == "copy":
            assert 2 * found.nbytes == words.nbytes // 8192 * 8192
        else:
            assert (found == 1024).all() and found.shape == (1, len(words))


def test_what_a_growing_cache_copies_is_counted():
    model = small_model()
    cache, token = GrowingCache(model, 1), torch.ones(1, 1, dtype=torch.long)
    with torch.no_grad(), roofline.Calls() as calls:
        for _ in range(5):
            model(token, cache, use_cache=True)
    assert calls.copied == sum(roofline.cache_bytes(model, n) for n in range(1, 6))
    assert calls.count["cat"] == 5 * 2 * model.num_layers


def right_or(wrong):
    return {
        "bytes_per_token": {
            "all": lambda m, t: sum(p.nbytes for p in m.parameters()) + roofline.cache_bytes(m, t),
            "no cache": lambda m, t: roofline.weight_bytes(m),
            "keys only": lambda m, t: roofline.weight_bytes(m) + roofline.cache_bytes(m, t) // 2,
            "numbers": lambda m, t: (
                (roofline.weight_bytes(m) + roofline.cache_bytes(m, t)) // m.dtype.itemsize
            ),
            "four bytes always": lambda m, t: (
                (roofline.weight_bytes(m) + roofline.cache_bytes(m, t)) // m.dtype.itemsize * 4
            ),
        },
        "in_parts": {
            "shape": lambda w, x, p: roofline.in_parts(w, x, p)[0],
            "interleaved": lambda w, x, p: torch.bmm(
                w.view(-1, p, w.size(1)).transpose(0, 1), x.T.expand(p, -1, -1)
            ).view(1, -1),
            "a loop": lambda w, x, p: torch.cat([x @ part.T for part in w.chunk(p)], dim=1),
            "plain": lambda w, x, p: x @ w.T,
            "copied": lambda w, x, p: torch.bmm(w.view(p, -1, w.size(1)), x.T.repeat(p, 1, 1)).view(
                1, -1
            ),
        },
        "quantize": {
            "one scale": lambda w: ((w / w.abs().max() * 127).round().char(), w[:, :1] * 0 + 1),
            "float": lambda w: (w, torch.ones(len(w), 1)),
            "shape": lambda w: (roofline.quantize(w)[0], roofline.quantize(w)[1][:, 0]),
            "not rounded": lambda w: (
                (w / (w.abs().amax(1, keepdim=True) / 127 + 1e-30)).char(),
                roofline.quantize(w)[1],
            ),
            "zero": lambda w: (roofline.quantize(w)[0], roofline.quantize(w)[1] / 0 * 0),
            "half the range": lambda w: (
                (w / (w.abs().amax(1, keepdim=True) / 63 + 1e-30)).round().char(),
                w.abs().amax(1, keepdim=True) / 63,
            ),
        },
    }[wrong]


WRONG = [
    (name, how) for name in ("bytes_per_token", "in_parts", "quantize") for how in right_or(name)
]


@pytest.mark.parametrize(("name", "how"), WRONG)
def test_a_wrong_answer_is_told_why(name, how):
    with pytest.raises(AssertionError) as error:
        getattr(checks, f"check_{name}")(right_or(name)[how])
    assert len(str(error.value)) > 20


def test_a_count_from_its_two_halves_passes():
    def bytes_per_token(model, tokens):
        return roofline.weight_bytes(model) + roofline.cache_bytes(model, tokens)

    assert "right" in checks.check_bytes_per_token(bytes_per_token)


def divides_by_zero(weight):
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).round().to(torch.int8), scale


def replaces_nan(weight):
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).nan_to_num(0).round().to(torch.int8), scale


def replaces_afterwards(weight):
    values, scale = divides_by_zero(weight)
    return values.where(scale > 0, 0), scale


def in_place(weight):
    values, (right, scale) = torch.empty_like(weight, dtype=torch.int8), roofline.quantize(weight)
    values.copy_(right.float())
    return values, scale


def test_what_is_forgotten_is_named():
    def no_embeddings(model, tokens):
        tables = (model.token_embedding.weight, model.pos_embedding.weight)
        counted = roofline.weight_bytes(model) + roofline.cache_bytes(model, tokens)
        return counted - sum(table[0].nbytes for table in tables)

    with pytest.raises(AssertionError, match="One row of each embedding is read, too"):
        checks.check_bytes_per_token(no_embeddings)
    with pytest.raises(AssertionError, match="A row of zeros must come back as zeros"):
        checks.check_quantize(divides_by_zero)
    for answer in (replaces_nan, replaces_afterwards, in_place):
        assert "right" in checks.check_quantize(answer)
    with pytest.raises(AssertionError, match="returns two tensors"):
        checks.check_quantize(lambda weight: roofline.quantize(weight)[0])


@pytest.mark.parametrize("name", ["in_parts", "quantize"])
def test_the_chapter_and_the_package_are_the_same_code(name):
    built = bodies(code_of(CHAPTERS / "07_how_fast_can_it_go.ipynb"))
    assert built[name] == bodies(inspect.getsource(roofline))[name]


def test_the_figure_of_the_engines_draws_each_with_its_limit():
    rows = [
        {
            "shape": shape,
            "threads": threads,
            "tokens": tokens,
            "contender": name,
            "decode_ms": threads * n,
            "decode_q25": threads * n * 0.9,
            "decode_q75": threads * n * 1.2,
            "limit_ms": 0.5,
        }
        for shape in "SM"
        for threads in (1, 2)
        for tokens in (10, 100)
        for n, name in enumerate(plots.PEERS, start=1)
    ]
    figure = plots.peers(pd.DataFrame(rows))
    assert len(figure.axes) == 2
    for ax in figure.axes:
        drawn = [list(line.get_ydata()) for line in ax.get_lines() if len(line.get_ydata()) == 2]
        for n in range(1, len(plots.PEERS) + 1):
            assert [2 * n, 2 * n] in drawn
        assert [0.5, 0.5] in drawn


def lines_of(ax):
    """Every curve of a panel as a list of its points."""
    return [list(zip(*line.get_data(), strict=True)) for line in ax.get_lines()]


def test_the_figure_of_the_bandwidth_draws_what_was_read_and_marks_the_models():
    read = pd.DataFrame({"1 thread": [2e9, 3e9], "2 threads": [4e9, 1e9]}, index=[1e6, 8e6])
    (ax,) = plots.bandwidth(read, {"small": 2_000_000}).axes
    curves = lines_of(ax)
    assert [(1, 2), (8, 3)] in curves and [(1, 4), (8, 1)] in curves
    assert [text.get_text() for text in ax.texts] == ["small", "■ 1 thread", "▲ 2 threads"]
    assert any(x == 2 for curve in curves for x, _ in curve)


def test_the_figures_with_bars_have_their_lengths_and_labels():
    rates = pd.DataFrame({"one": [4e9, 8e9], "eighty": [1e9, 2e9]}, index=["F.linear", "in parts"])
    (ax,) = plots.products(rates).axes
    assert [bar.get_height() for bar in ax.patches] == [4, 8, 1, 2]
    assert [text.get_text() for text in ax.texts] == ["4", "8", "1", "2"]

    taken = {"small": {"plain": 3.0, "fast": 1.0, "floor": 0.5}}
    (ax,) = plots.steps(taken).axes
    assert [bar.get_width() for bar in ax.patches] == [3, 1, 0.5]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["plain", "fast", "floor"]

    right, ms = pd.Series({"32 bits": 0.9}), pd.Series({"32 bits": 2.0, "8": 1.0})
    left, last = plots.precision(right, ms, {"32 bits": 51.0, "8": 13.0}).axes
    assert [bar.get_width() for bar in left.patches] == [0.9]
    assert lines_of(last) == [[(2, 0), (1, 1)]]
    assert [text.get_text() for text in last.texts] == ["2 ms for 51 MB", "1 ms for 13 MB"]


def test_the_figure_of_the_growth_draws_the_fitted_power_and_lines():
    totals = pd.Series([1.0, 4.0, 16.0], index=[64, 128, 256])
    steps = pd.DataFrame({"course, fast": [2e-3, 3e-3]}, index=[100, 200])
    left, right = plots.growth(totals, 2.0, steps, {"course, fast": (1e-5, 1e-3)}).axes
    assert [y for _, y in lines_of(left)[1]] == pytest.approx([1, 4, 16])
    assert [y for _, y in lines_of(right)[0]] == [2, 3]
    assert [y for _, y in lines_of(right)[1]] == pytest.approx([2, 3])
