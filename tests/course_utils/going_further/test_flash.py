"""Chapter 08: tiles are exact for any shape, counts are right, and the checks see errors."""

import inspect
import math
import os
import subprocess
import sys
from importlib.util import find_spec

import matplotlib
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from source import bodies, code_of

from course_utils.attention import attention, causal_mask
from course_utils.going_further.flash import checks
from course_utils.going_further.flash import figures as plots
from course_utils.going_further.flash import flash_attention as room
from course_utils.going_further.flash.checks import plain
from course_utils.going_further.flash.flash_attention import Memory
from course_utils.transformer import ROOT

matplotlib.use("Agg")
CHAPTER = ROOT / "notebooks" / "going_further" / "08_flash_attention.ipynb"
CLOSE = {"rtol": 0, "atol": 1e-10}


@st.composite
def cases(draw):
    """q, k, v in float64, a mask or None, causal or not, and a tile that need not fit."""
    size = st.integers(1, 17)
    num_queries, num_keys, d = draw(size), draw(size), draw(st.integers(1, 6))
    leading = draw(st.sampled_from([(), (2,), (2, 3)]))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    loud = draw(st.sampled_from([1, 30]))
    q = loud * torch.randn(*leading, num_queries, d, dtype=torch.float64)
    k, v = torch.randn(2, *leading, num_keys, d, dtype=torch.float64)
    visible = draw(st.sampled_from([None, 0.0, 0.3, 0.9]))
    mask = None if visible is None else torch.rand(num_queries, num_keys) < visible
    tile = draw(size), draw(size)
    return q, k, v, mask, draw(st.booleans()), tile


def both_masks(q, k, mask, causal):
    everything = torch.ones(q.size(-2), k.size(-2), dtype=torch.bool)
    mask = everything if mask is None else mask
    return mask & causal_mask(*everything.shape) if causal else mask


@settings(max_examples=100, deadline=None)
@given(cases())
def test_tiles_are_exact(case):
    q, k, v, mask, causal, tile = case
    found = room.flash_attention(q, k, v, mask, causal, tile)
    for part, expected in zip(found, plain(q, k, v, both_masks(q, k, mask, causal)), strict=True):
        assert torch.allclose(part, expected, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(1, 20))
def test_any_parts_of_the_keys_merge_to_the_whole(case, splits):
    q, k, v, mask, _, _ = case
    assert torch.allclose(room.flash_decode(q, k, v, splits), plain(q, k, v)[0], **CLOSE)
    seen = both_masks(q, k, mask, causal=False)
    parts = [t.tensor_split(splits, dim) for t, dim in ((k, -2), (v, -2), (seen, -1))]
    found = [room.flash_attention(q, *part) for part in zip(*parts, strict=True)]
    merged = room.merge(*(torch.stack(t) for t in zip(*found, strict=True)))
    for part, expected in zip(merged, plain(q, k, v, seen), strict=True):
        assert torch.allclose(part, expected, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_gradients_are_those_of_the_plain_attention(case):
    q, k, v, _, causal, tile = case
    inputs = [t.requires_grad_() for t in (q, k, v)]
    expected = plain(*inputs, both_masks(q, k, None, causal))[0]
    grad = torch.randn_like(expected)
    right = torch.autograd.grad(expected, inputs, grad)
    found = torch.autograd.grad(room.FlashAttention.apply(*inputs, causal, tile), inputs, grad)
    for gradient, wanted in zip(found, right, strict=True):
        assert torch.allclose(gradient, wanted, rtol=1e-10, atol=1e-10)


def test_plain_is_the_attention_of_notebook_01():
    q, k, v = torch.randn(3, 2, 7, 4, dtype=torch.float64)
    mask = causal_mask(7, 7)
    assert torch.allclose(plain(q, k, v, mask)[0], attention(q, k, v, mask), **CLOSE)


@pytest.mark.parametrize("tile", [(0, 4), (4, 0), (-1, 4)])
def test_a_tile_of_nothing_is_refused(tile):
    q = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="at least 1"):
        room.flash_attention(q, q, q, tile=tile)


def test_hidden_tiles_are_left_out():
    q, k, v = torch.randn(3, 32, 4)
    for rows, columns in ((4, 4), (8, 4), (3, 5)):
        with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
            room.flash_attention(q, k, v, causal=True, tile=(rows, columns))
        visible = 0
        for part in room.tiles(32, rows):
            visible += (part.stop - part.start) * part.stop
        assert counter.get_total_flops() == 4 * 4 * visible


def test_bytes_are_counted_as_operations_read_and_write():
    x, y = torch.randn(10, 20), torch.randn(20, 30)  # 800 and 2400 bytes
    with Memory() as memory:
        z = x @ y
    assert (memory.read, memory.written) == (3200, 1200)
    with Memory() as memory:  # a view is free, and reading it costs what it shows
        x[:5].T.sum()
    assert (memory.read, memory.written) == (400, 4)
    with Memory() as memory:  # in place: read and written; a copy only writes where it goes
        z.add_(1.0)
        z[:2] = x[0, 0]
    assert (memory.read, memory.written) == (1200 + 4, 1200 + 240)
    with Memory(fast=1200) as memory:  # a small result stays in fast memory
        (x @ y).exp().sum()
    assert (memory.read, memory.written) == (3200, 0)
    with Memory(fast=1199) as memory:  # and one that is a byte too large does not
        (x @ y).sum()
    assert (memory.read, memory.written) == (3200 + 1200, 1200)
    with Memory(fast=1200) as memory:  # what is made empty is slow, and costs when it is filled
        made = torch.empty(10, 20)
        assert memory.moved == 0
        made[:3].zero_()
    assert (memory.read, memory.written) == (0, 240)


def test_what_is_held_is_forgotten_when_it_is_dropped():
    with Memory() as memory:
        a = torch.ones(100)
        b = a + 1
        view = b[:50]
        del a, b
        c = view * 2
    assert memory.peak == 800
    assert sum(memory.held[False].values()) == 400 + 200
    del view, c
    assert not memory.held[False]


def test_memory_held_is_linear_and_what_the_allocator_says():
    def tiled(*inputs):
        return room.flash_attention(*inputs, tile=(32, 32))

    def held(run, n):
        inputs = torch.randn(3, n, 16)
        with Memory() as memory:
            run(*inputs)
        assert memory.peak == room.peak_bytes(lambda: run(*inputs))
        return memory.peak

    assert held(attention, 256) == 2 * 256 * 256 * 4
    assert held(attention, 512) == 4 * held(attention, 256)
    assert held(tiled, 512) < 2 * held(tiled, 256)


def test_peak_bytes_sees_what_a_kernel_holds_inside():
    x = torch.randn(1, 1, 1024, 32)
    run = lambda: F.scaled_dot_product_attention(x, x, x)  # noqa: E731
    with Memory() as memory:
        run()
    assert room.peak_bytes(run) > memory.peak


def wrong(name):
    """Answers that a student might give, by what is wrong with them."""
    return {
        "absorb": WRONG_ABSORB,
        "flash_attention": WRONG_FLASH,
        "merge": WRONG_MERGE,
        "flash_backward": WRONG_BACKWARD,
    }[name]


def absorb_with(
    decay=True, normalise=False, new_only=False, careless=False, no_max=False, swap=False
):
    def absorb(state, scores, v):
        row_max, total, output = state
        largest = scores.amax(-1, keepdim=True)
        new_max = largest if new_only else torch.maximum(row_max, largest)
        if no_max:
            new_max = torch.zeros_like(row_max)
        shift = new_max if careless else new_max.masked_fill(new_max == -math.inf, 0.0)
        factor = torch.exp(shift - row_max if swap else row_max - shift) if decay else 1.0
        weights = torch.exp(scores - shift)
        total = factor * total + weights.sum(-1, keepdim=True)
        output = factor * output + weights @ v
        return new_max, total, output / total if normalise else output

    return absorb


WRONG_ABSORB = {
    "no decay": (absorb_with(decay=False), "not scaled down"),
    "divided at once": (absorb_with(normalise=True), "very end"),
    "largest of the new ones": (absorb_with(new_only=True), "largest"),
    "careless": (absorb_with(careless=True), "subtract 0"),
    "no largest": (absorb_with(no_max=True), "largest"),
    "decay upside down": (absorb_with(swap=True), "exp(old largest - new largest)"),
    "no dimension kept": (lambda s, x, v: (room.absorb(s, x, v)[0][..., 0], *s[1:]), "shape"),
    "output only": (lambda s, x, v: room.absorb(s, x, v)[2], "1 of 3 results"),
    "sum left alone": (
        lambda s, x, v: (room.absorb(s, x, v)[0], s[1], room.absorb(s, x, v)[2]),
        "l, the sum",
    ),
    "values of the old largest": (
        lambda s, x, v: (*room.absorb(s, x, v)[:2], s[2] + torch.softmax(x, -1) @ v),
        "a, the weighted sum",
    ),
}


def flash_with(scale=None, corner=False, drop_last=False, first_tile=False):
    def flash_attention(q, k, v, mask=None, causal=False, tile=(64, 64)):
        past = 0 if corner else k.size(-2) - q.size(-2)
        output, lse = torch.zeros_like(q), q.new_zeros(q.shape[:-1])
        for rows in room.tiles(q.size(-2), tile[0]):
            query = q[..., rows, :] * (scale(q) if scale else q.size(-1) ** -0.5)
            state = room.nothing_yet(query)
            end = k.size(-2) // tile[1] * tile[1] if drop_last else k.size(-2)
            for columns in room.tiles(end, tile[1]):
                if first_tile:
                    state = room.nothing_yet(query)
                scores = query @ k[..., columns, :].transpose(-2, -1)
                if mask is not None:
                    scores = scores.masked_fill(~mask[..., rows, columns], -math.inf)
                if causal:
                    scores = scores.masked_fill(room.later(rows, columns, past), -math.inf)
                state = room.absorb(state, scores, v[..., columns, :])
            output[..., rows, :], lse[..., rows] = room.finish(state)
        return output, lse

    return flash_attention


def all_at_once(q, k, v, mask=None, causal=False, tile=(64, 64)):
    return plain(q, k, v, both_masks(q, k, mask, causal))


def without(mask=True, causal=True):
    """`flash_attention` that ignores one of its arguments."""

    def flash_attention(q, k, v, given=None, is_causal=False, tile=(64, 64)):
        given, is_causal = given if mask else None, is_causal and causal
        return room.flash_attention(q, k, v, given, is_causal, tile)

    return flash_attention


def sum_for_lse(*given):
    output, lse = room.flash_attention(*given)
    return output, lse.exp()


def keys_in_tiles_only(q, k, v, mask=None, causal=False, tile=(64, 64)):
    return room.flash_attention(q, k, v, mask, causal, (q.size(-2), tile[1]))


def changes_q(q, k, v, mask=None, causal=False, tile=(64, 64)):
    found = room.flash_attention(q, k, v, mask, causal, tile)
    q /= 2
    return found


def nan_rows(q, k, v, mask=None, causal=False, tile=(64, 64)):
    output, lse = room.flash_attention(q, k, v, mask, causal, tile)
    return output.masked_fill(lse.isinf().unsqueeze(-1), math.nan), lse


WRONG_FLASH = {
    "not divided": (flash_with(scale=lambda q: 1.0), "square root"),
    "divided by d": (flash_with(scale=lambda q: 1 / q.size(-1)), "divided by d"),
    "mask from the corner": (flash_with(corner=True), "corner"),
    "the rest is left out": (flash_with(drop_last=True), "smaller than the others"),
    "only the last tile counts": (flash_with(first_tile=True), "Only the last tile of keys counts"),
    "nothing is skipped": (flash_with(), "1024 scores are computed"),
    "all at once": (all_at_once, "bytes at a time"),
    "queries not in tiles": (keys_in_tiles_only, "bytes at a time"),
    "mask ignored": (without(mask=False), "no effect"),
    "causal ignored": (without(causal=False), "no effect"),
    "output only": (lambda *a: room.flash_attention(*a)[0], "1 of 2 results"),
    "sum for log-sum-exp": (sum_for_lse, "finish"),
    "q is changed": (changes_q, "changes a tensor"),
    "NaN where nothing is seen": (nan_rows, "NaN"),
}


def weighted(shares, outputs):
    return (shares.unsqueeze(-1) * outputs).sum(0)


WRONG_MERGE = {
    "mean": (lambda o, x: (o.mean(0), x.logsumexp(0)), "mean"),
    "sum": (lambda o, x: (o.sum(0), x.logsumexp(0)), "sum"),
    "overflow": (lambda o, x: (weighted(x.exp() / x.exp().sum(0), o), x.exp().sum(0).log()), "NaN"),
    "nothing seen": (lambda o, x: (weighted(x.softmax(0), o), x.logsumexp(0)), "NaN"),
    "another dimension": (
        lambda o, x: (weighted(x.softmax(-1), o), x.logsumexp(0)),
        "over the parts",
    ),
    "largest": (lambda o, x: (room.merge(o, x)[0], x.amax(0)), "largest"),
    "logarithms added": (lambda o, x: (room.merge(o, x)[0], x.sum(0)), "add up"),
    "output only": (lambda o, x: room.merge(o, x)[0], "1 of 2 results"),
    "shape": (lambda o, x: (room.merge(o, x)[0], x.logsumexp(0, keepdim=True)), "shape"),
}


def backward_with(mean=True, scale_q=True, twice_k=False, adds=True, hide="after", skips=False):
    def flash_backward(q, k, v, output, lse, grad, causal=False, tile=(64, 64)):
        past, scale = k.size(-2) - q.size(-2), q.size(-1) ** -0.5
        found = [torch.zeros_like(t) for t in (q, k, v)]
        for rows in room.tiles(q.size(-2), tile[0]):
            query, g = q[..., rows, :] * scale, grad[..., rows, :]
            d = (g * output[..., rows, :]).sum(-1, keepdim=True) if mean else 0.0
            end = past + rows.stop if causal and skips else k.size(-2)
            for columns in room.tiles(end, tile[1]):
                keys, values = k[..., columns, :], v[..., columns, :]
                scores, hidden = query @ keys.mT, room.later(rows, columns, past)
                if causal and hide == "before":
                    scores = scores.masked_fill(hidden, -math.inf)
                weights = torch.exp(scores - lse[..., rows].unsqueeze(-1))
                if causal and hide == "after":
                    weights = weights.masked_fill(hidden, 0.0)
                slope = weights * (g @ values.mT - d)
                new = (
                    slope @ keys * (scale if scale_q else 1),
                    slope.mT @ query * (scale if twice_k else 1),
                    weights.mT @ g,
                )
                for total, part, where in zip(found, new, (rows, columns, columns), strict=True):
                    total[..., where, :] = part + (total[..., where, :] if adds else 0)
        return tuple(found)

    return flash_backward


def remembers(q, k, v, output, lse, grad, causal=False, tile=(64, 64)):
    with torch.enable_grad():
        inputs = [t.clone().requires_grad_() for t in (q, k, v)]
        mask = causal_mask(q.size(-2), k.size(-2)) if causal else None
        return torch.autograd.grad(plain(*inputs, mask)[0], inputs, grad)


WRONG_BACKWARD = {
    "no mean": (backward_with(mean=False), "not subtracted"),
    "scale missing": (backward_with(scale_q=False), "too large"),
    "scale twice": (backward_with(twice_k=True), "too small"),
    "nothing is added up": (backward_with(adds=False), "adds"),
    "no mask": (backward_with(hide="never"), "`causal` has no effect"),
    "hidden before exp": (backward_with(hide="before"), "after"),
    "hidden before exp, tiles left out": (backward_with(hide="before", skips=True), "after"),
    "remembers all": (remembers, "bytes at a time"),
    "two of three": (lambda *a: room.flash_backward(*a)[:2], "2 of 3 results"),
}
WRONG = [
    (name, how)
    for name in ("absorb", "flash_attention", "merge", "flash_backward")
    for how in wrong(name)
]


@pytest.mark.parametrize(("name", "how"), WRONG)
def test_a_wrong_answer_is_told_why(name, how):
    answer, why = wrong(name)[how]
    with pytest.raises(AssertionError) as error:
        getattr(checks, f"check_{name}")(answer)
    assert why in str(error.value)


def test_what_is_raised_is_told_with_the_line():
    with pytest.raises(AssertionError, match="raised RuntimeError at `.*x @ v.mT"):
        checks.check_absorb(lambda s, x, v: (s[0], s[1], x @ v.mT))
    with pytest.raises(AssertionError, match="has shape .*the output"):
        checks.check_merge(lambda o, x: ((x.softmax(0) * o).sum(0), x.logsumexp(0)))
    with pytest.raises(AssertionError, match="2 of 3 results: m, the largest score, l"):
        checks.check_absorb(lambda s, x, v: s[:2])


def test_the_chapter_and_the_package_are_the_same_code():
    built, held = bodies(code_of(CHAPTER)), bodies(inspect.getsource(room))
    exercises = {name for _, names in checks.EXERCISES["08"].values() for name in names}
    shared = set(built) & set(held)
    assert exercises | {"flash_decode", "FlashAttention"} == shared
    for name in shared:
        assert built[name] == held[name], name


def test_the_figure_of_bytes_draws_what_was_counted_and_the_formulas():
    index = pd.Index([8, 16, 32])
    columns = ["plain", "keys outside", "queries outside"]
    counted = pd.DataFrame(2e6, index=index, columns=columns)
    counted["queries outside"] = [4e6, 2e6, 1e6]
    theory = 1.5 * counted
    figure = plots.traffic(counted, theory, counted["plain"] / 4)
    drawn = [list(line.get_ydata()) for line in figure.axes[0].get_lines()]
    assert [4.0, 2.0, 1.0] in drawn and [6.0, 3.0, 1.5] in drawn
    names = {text.get_text().lstrip("●■◆ ") for text in figure.axes[0].texts}
    assert names == {*columns, "proportional to N²d²/M"}


def test_the_figure_of_memory_draws_every_way_and_both_laws():
    ways = [plots.PLAIN, plots.TILES, plots.SDPA]
    table = pd.DataFrame(1e6, index=pd.Index([128, 256]), columns=ways)
    figure = plots.peaks(table, table.assign(other=3e6))
    assert [len(ax.get_lines()) for ax in figure.axes] == [3 + 2, 4 + 2]
    square, line = (line.get_ydata() for line in figure.axes[0].get_lines()[-2:])
    assert (square[1] / square[0], line[1] / line[0]) == (4, 2)


def test_the_figure_of_the_walk_numbers_every_tile():
    visits = [(slice(0, 2), slice(0, 2)), (slice(2, 4), slice(0, 2)), (slice(2, 4), slice(2, 4))]
    figure = plots.walks({"all": visits[:1], "causal": visits}, 4, causal="causal")
    assert [[text.get_text() for text in ax.texts] for ax in figure.axes] == [
        ["1"],
        ["1", "2", "3"],
    ]


def test_the_figure_of_times_draws_milliseconds():
    table = pd.DataFrame({plots.PLAIN: [2.0, 8.0], plots.SDPA: [1.0, 4.0]}, index=[256, 512])
    figure = plots.times(table, pd.Series([3.0, 2.0], index=[1, 2]))
    assert list(figure.axes[0].get_lines()[0].get_ydata()) == [2.0, 8.0]
    assert list(figure.axes[1].get_lines()[0].get_ydata()) == [3.0, 2.0]


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with PyTorch's CUDA build")
def test_the_kernel_is_right_in_triton_s_interpreter():
    """In a process of its own: Triton reads the variable when it is imported."""
    command = [sys.executable, "-m", "course_utils.going_further.flash.flash_triton"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "interpreter" in run.stdout
