"""Notebook 06 fails where it should: its own cells, run with faults that change no logit."""

import functools
import time

import nbformat
import pytest
import torch

from course_utils import benchmark
from course_utils.attention import FusedAttention, MultiHeadAttention
from course_utils.benchmark import CACHES, GROWING, NO_CACHE, PREALLOCATED
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.transformer import (
    ROOT,
    DecoderLayer,
    DecoderOnlyTransformer,
    FeedForward,
    fuse_attention,
)

pytestmark = pytest.mark.authors

NOTEBOOK = nbformat.read(ROOT / "notebooks" / "06_latency_sweep.ipynb", as_version=4)
CELLS = {cell.id: cell.source for cell in NOTEBOOK.cells}


@pytest.fixture(scope="module")
def before():
    """What the notebook has defined when it begins to measure."""
    threads = torch.get_num_threads()
    names = {}
    for cell in ("cell-01", "cell-03"):
        exec(CELLS[cell], names)
    yield names
    torch.set_num_threads(threads)


@pytest.fixture
def run(before):
    """Runs one cell of the notebook: raises what it raises."""
    made = {"operations": benchmark.operations, "rate": 1e9}  # in cells that are left out here
    return lambda cell, **names: exec(CELLS[cell], before | made | names)


@pytest.fixture
def only_once(monkeypatch):
    """Measures once, where the notebook would up to three times: enough to fail."""
    once = functools.partial(benchmark.measure_until, attempts=1)
    monkeypatch.setattr(benchmark, "measure_until", once)


def test_without_a_fault_the_cells_pass(run):
    run("counts")
    run("parts")


def switch_off_in_stream(monkeypatch):
    """Whoever asks for a cache gets none."""
    stream = benchmark.stream
    monkeypatch.setattr(
        benchmark,
        "stream",
        lambda *args, use_cache, past_kv=None, **rest: stream(*args, use_cache=False, **rest),
    )


def switch_off_in_the_contender(monkeypatch):
    generation = benchmark.generation
    monkeypatch.setattr(benchmark, "generation", lambda *args: generation(*args[:-1], NO_CACHE))


def switch_off_in_the_model(monkeypatch):
    """Keeps the ids where the keys should be, and runs all of them again."""
    forward = DecoderOnlyTransformer.forward

    def whole(self, input_ids, past_kv=None, use_cache=False):
        if use_cache:
            past_kv.ids = torch.cat([getattr(past_kv, "ids", input_ids[:, :0]), input_ids], dim=1)
        logits, _ = forward(self, past_kv.ids if use_cache else input_ids)
        return logits[:, -input_ids.size(1) :], past_kv

    monkeypatch.setattr(DecoderOnlyTransformer, "forward", whole)


SWITCHED_OFF = [switch_off_in_stream, switch_off_in_the_contender, switch_off_in_the_model]


@pytest.mark.parametrize("fault", SWITCHED_OFF)
def test_a_cache_switched_off_is_seen_by_counting(fault, run, monkeypatch):
    fault(monkeypatch)
    with pytest.raises(AssertionError, match=r"growing cache, token \d: .* expected"):
        run("counts")


@pytest.mark.parametrize("fault", [None, switch_off_in_stream])
def test_a_cache_switched_off_is_seen_by_the_clock(fault, run, monkeypatch, only_once):
    """On a small model and in one round, to be quick."""
    torch.manual_seed(0)
    model = fuse_attention(DecoderOnlyTransformer(50, 64, 256, 1, 1024, 2, dropout=0.0))
    short = functools.partial(benchmark.sweep, rounds=(1000,), contenders=(NO_CACHE, PREALLOCATED))
    monkeypatch.setattr(benchmark, "sweep", short)
    small = {"model": model, "prompt": torch.ones(1, 10, dtype=torch.long)}
    if fault is None:
        return run("cell-23", **small)
    fault(monkeypatch)
    with pytest.raises(AssertionError, match="preallocated cache"):
        run("cell-23", **small)


def growing_under_its_name(monkeypatch):
    monkeypatch.setitem(CACHES, PREALLOCATED, GrowingCache)


def growing_inside(monkeypatch):
    """A preallocated cache that copies all that it holds for every token."""
    append = PreallocatedCache.append

    def copied(self, layer, k, v):
        return tuple(torch.cat([each[:, :, :-1], each[:, :, -1:]], 2)
                     for each in append(self, layer, k, v))  # fmt: skip

    monkeypatch.setattr(PreallocatedCache, "append", copied)


def preallocated_under_its_name(monkeypatch):
    monkeypatch.setitem(CACHES, GROWING, PreallocatedCache)


@pytest.mark.parametrize(
    "fault", [growing_under_its_name, growing_inside, preallocated_under_its_name]
)
def test_another_cache_than_the_one_named_is_seen_by_counting(fault, run, monkeypatch):
    fault(monkeypatch)
    with pytest.raises(AssertionError, match="cache, token .* bytes copied"):
        run("counts")


@pytest.fixture(scope="module")
def pause(before):
    """Seconds: three times what the calls of a layer take on this machine."""
    table = benchmark.undisturbed(benchmark.parts(before["model"], position=500))
    return 3 * table["direct"].filter(like="layer").max()


def slowed(method, pause, only_cached=False):
    """The method after a pause; if `only_cached`, only when it is given a cache."""

    def slow(self, *args):
        if not only_cached or len(args) > 1 and args[1] is not None:
            time.sleep(pause)
        return method(self, *args)

    return slow


@pytest.mark.parametrize(
    ("kind", "name", "only_cached"),
    [
        (DecoderLayer, "forward", False),
        (DecoderLayer, "forward", True),
        (FeedForward, "forward", False),
        (MultiHeadAttention, "forward", True),
        (FusedAttention, "attend", False),
        (PreallocatedCache, "append", False),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_sleep_in_every_layer_is_seen(
    kind, name, only_cached, run, pause, monkeypatch, only_once
):
    monkeypatch.setattr(kind, name, slowed(getattr(kind, name), pause, only_cached))
    with pytest.raises(AssertionError, match=" ms; the calls that it makes take "):
        run("parts")


@pytest.mark.parametrize("layer", range(4))
def test_a_sleep_in_one_layer_is_seen(layer, before, run, pause, monkeypatch, only_once):
    part = before["model"].layers[layer]
    forward = part.forward
    monkeypatch.setattr(part, "forward", lambda *args: time.sleep(pause) or forward(*args))
    with pytest.raises(AssertionError, match=f"layer {layer + 1} takes "):
        run("parts")
