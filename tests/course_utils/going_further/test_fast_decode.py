"""The fast decoder: the same numbers as the plain one, and the path that it should take."""

import copy
import time
from collections import defaultdict

import pytest
import torch
from helpers import cases_for, random_ids, small_model

from course_utils.evaluation import Feed, New, kv_evaluate, replay
from course_utils.generation import beam_search
from course_utils.going_further.speed import fast_decode, products
from course_utils.going_further.speed.fast_decode import FastTransformer, fast
from course_utils.transformer import load_model

WAYS = list(products.ways(torch.float32))
EVERYWHERE = ["by rows", "by columns", "by rows, one thread", "by columns, one thread", "in parts"]


@pytest.fixture
def three_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(threads)


def always(monkeypatch, name):
    """Every product goes this way, also for numbers for which it is never chosen."""
    monkeypatch.setattr(
        fast_decode, "choose", lambda groups: defaultdict(lambda: name) if groups else {}
    )
    every = products.ways(torch.float32)
    monkeypatch.setattr(fast_decode, "ways", lambda dtype: every)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", WAYS)
def test_a_product_is_added_or_written(three_threads, rows, batch, name):
    torch.manual_seed(0)
    weight, x = torch.randn(rows, 5), torch.randn(batch, 5)
    way = products.ways(torch.float32)[name]
    stored = weight.T.contiguous().T if way.by_columns else weight
    expected, stream, bias = x @ weight.T, torch.randn(batch, rows), torch.randn(rows)
    with torch.no_grad():
        product = way.of(stored)
        kept = stream.clone(), bias.clone()
        assert torch.allclose(product(x, stream), stream + expected, rtol=0, atol=1e-5)
        assert torch.allclose(product(x, bias), bias + expected, rtol=0, atol=1e-5)
        assert torch.equal(stream, kept[0]) and torch.equal(bias, kept[1])
        room = torch.full((batch, 2, rows), torch.nan)
        product(x, out=room[:, 1])
        assert torch.allclose(room[:, 1], expected, rtol=0, atol=1e-5)
        assert room[:, 0].isnan().all()
    assert torch.get_num_threads() == 3


def test_the_fastest_way_wins_and_a_copy_has_to_pay(monkeypatch):
    times = {"by rows": 1.0, "by columns": 0.8, "oneDNN, packed": 0.7}
    assert products.best_of(times, torch.float32) == "by columns"
    assert products.best_of(times | {"oneDNN, packed": 0.6}, torch.float32) == "oneDNN, packed"

    def made_up(tasks, weights, rounds):
        slow = {"by columns": 1.0, "by rows": 2.0}
        shapes = {tuple(weight.shape) for weight in weights}
        return {s: {n: [slow.get(n, 3.0)] * rounds for n in tasks} for s in shapes}

    monkeypatch.setattr(products, "times_by_shape", made_up)
    monkeypatch.setattr(products, "CHOSEN", {})
    weights = [[torch.randn(6, 4)], [torch.randn(3, 5), torch.randn(4, 5)]]
    assert products.choose(weights) == {(6, 4): "by columns", (7, 5): "by columns"}


def test_the_choice_is_made_once_for_a_shape_a_kind_of_number_and_threads(
    monkeypatch, three_threads
):
    made = []
    times = products.relative_times
    monkeypatch.setattr(products, "CHOSEN", {})
    monkeypatch.setattr(products, "relative_times", lambda w: made.append(1) or times(w))
    model = small_model(dtype=torch.float32)
    decoder = fast(model)
    assert len(made) == 1
    decoder.generate(random_ids(1, 4), 4, temperature=0)
    fast(small_model(seed=1, dtype=torch.float32))
    assert len(made) == 1
    fast(small_model(dtype=torch.float64))
    fast(small_model(dtype=torch.float32, d_ff=20))
    assert len(made) == 3
    torch.set_num_threads(2)
    fast(model)
    assert len(made) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_way_that_fails_or_is_wrong_here_is_left_out(monkeypatch, dtype):
    def wrong(weight):
        return products.plain(weight + 1)

    def missing(weight):
        return torch.ops.mkldnn.no_such_operator

    def refused(weight):
        raise RuntimeError("not on this processor")

    monkeypatch.setattr(
        products,
        "ALL",
        products.ALL | {of.__name__: products.Way(False, of) for of in (wrong, missing, refused)},
    )
    products.ways.cache_clear()
    found = list(products.ways(dtype))
    products.ways.cache_clear()
    assert found[: len(EVERYWHERE)] == EVERYWHERE
    assert not {"wrong", "missing", "refused"} & set(found)


@pytest.mark.parametrize(
    "name, many",
    [(name, many) for name in WAYS for many in products.ways_for_many(torch.float32, False)]
    + [(name, "packed") for name, way in products.ways(torch.float32).items() if way.copies],
)
def test_a_prefill_of_many_rows_goes_its_own_way(monkeypatch, name, many):
    always(monkeypatch, name)
    taken, by_number = [], products.by_number

    def noted(one, product_for_many):
        return by_number(
            one, lambda x, *more, **o: taken.append(1) or product_for_many(x, *more, **o)
        )

    every = products.ways_for_many

    def only(*kind):
        return {many: every(*kind)[many]} if many != "packed" else {}

    monkeypatch.setattr(products, "ways_for_many", only)
    monkeypatch.setattr(fast_decode, "by_number", noted)
    model = small_model(seed=1, d_model=18, num_heads=3, max_seq_len=64, dtype=torch.float32)
    decoder, ids = fast(model), random_ids(1, products.MANY + 8)
    with torch.no_grad():
        for length, found in ((products.MANY - 1, 0), (products.MANY, 4), (products.MANY + 8, 8)):
            logits, _ = decoder(ids[:, :length], use_cache=True)
            assert len(taken) == found * model.num_layers
            assert torch.allclose(logits, model(ids[:, :length])[0], rtol=0, atol=1e-3)


def test_what_is_fastest_for_many_rows_is_found_once(monkeypatch, three_threads):
    slept, made = [], products.plain

    def slow(weight):
        def product(x, base=None, out=None):
            slept.append(x.size(0))
            time.sleep(0.05)
            return made(weight)(x, base, out)

        return product

    monkeypatch.setattr(products, "CHOSEN_FOR_MANY", {})
    monkeypatch.setattr(products, "ways_for_many", lambda *_: {"plain": slow, "other": made})
    weight, x = torch.randn(6, 4), torch.randn(40, 4)
    products.for_many(weight)
    assert slept == [products.TIMED] * 5
    assert torch.equal(products.for_many(weight)(x, torch.zeros(6)), x @ weight.T)
    products.for_many(torch.randn(6, 4))
    assert len(slept) == 5
    products.for_many(weight.T.contiguous().T)
    products.for_many(weight.double())
    products.for_many(weight, packed=slow(weight))
    assert len(slept) == 5 * (1 + 1 + 1 + 2)
    torch.set_num_threads(2)
    products.for_many(weight)
    assert set(products.CHOSEN_FOR_MANY.values()) == {"other"} and len(slept) == 5 * 6


@pytest.mark.parametrize("dims", [1, 2])
def test_a_way_that_is_wrong_for_one_kind_of_base_is_left_out(dims):
    def wrong(weight):
        return lambda x, base: products.plain(weight)(x, base) + (base.dim() == dims)

    assert products.is_right(products.plain, torch.float32, 5)
    assert not products.is_right(wrong, torch.float32) and not products.is_right(
        wrong, torch.float32, 5
    )


@pytest.mark.parametrize("by_columns", [False, True])
def test_a_way_that_is_wrong_for_many_rows_is_left_out(monkeypatch, by_columns):
    def wrong(weight):
        return lambda x, *more: products.plain(weight)(x, *more) + (x.size(0) > 1)

    products.ways_for_many.cache_clear()
    monkeypatch.setattr(products, "by_onednn", wrong)
    assert list(products.ways_for_many(torch.float32, by_columns)) == ["plain"]
    products.ways_for_many.cache_clear()


def test_what_is_timed_overflows_the_caches_and_has_every_shape(monkeypatch):
    weights = [torch.empty(2, 3), torch.empty(2, 5), torch.empty(2, 3), torch.empty(9, 3)]
    assert products.enough(weights) == weights
    monkeypatch.setattr(products, "ENOUGH", 0)
    assert [w.shape for w in products.enough(weights)] == [(2, 3), (2, 5), (9, 3)]


def test_its_cache_is_right():
    model = small_model()
    report = kv_evaluate(fast(model), cases_for(model))
    assert report.all_passed, report.problems


@pytest.mark.parametrize("name", WAYS)
def test_its_cache_is_right_by_every_way(monkeypatch, three_threads, name):
    always(monkeypatch, name)
    model = small_model(seed=1, vocab_size=47, d_model=18, num_heads=3, dtype=torch.float32)
    ids = random_ids(1, 24, vocab_size=47)
    decoder, past_kv, found = fast(model), None, []
    with torch.no_grad():
        for token in ids.split(1, dim=1):
            logits, past_kv = decoder.last_logits(token, past_kv, use_cache=True)
            found.append(logits)
        expected = model.double()(ids)[0]
    assert torch.allclose(torch.cat(found, dim=1).double(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", products.ways(torch.bfloat16))
def test_it_is_right_in_bfloat16_too(monkeypatch, three_threads, name):
    always(monkeypatch, name)
    decoder = fast(small_model(seed=1, dtype=torch.float32))
    for rows in (1, 2):
        script = [New(rows), Feed(5), Feed(1), Feed(1), Feed(4)]
        assert replay(decoder, script, torch.bfloat16).problem is None


@pytest.mark.authors
@pytest.mark.parametrize("name", ["by rows", "by columns, one thread", "in parts"])
def test_the_harness_passes_it_by_every_way_that_keeps_no_copy(monkeypatch, three_threads, name):
    always(monkeypatch, name)
    model = small_model(seed=1)
    report = kv_evaluate(fast(model), cases_for(model))
    assert report.all_passed, report.problems


def test_the_trained_model_says_the_same():
    model = load_model(device="cpu")
    decoder = fast(model)
    prompt = random_ids(2, 30, vocab_size=250, seed=3)
    told = model.generate(prompt, 200, temperature=0)
    assert torch.equal(decoder.generate(prompt, 200, temperature=0), told)
    assert torch.equal(decoder.generate(prompt[:1], 200, temperature=0), told[:1])
    options = {"temperature": 0.9, "top_k": 5, "top_p": 0.8}
    drawn = [
        m.generate(prompt, 50, generator=torch.Generator().manual_seed(1), **options)
        for m in (model, decoder)
    ]
    assert torch.equal(*drawn)


def test_beams_are_reordered():
    model = small_model(seed=2)
    prompt = random_ids(1, 5)
    for found, expected in zip(
        beam_search(fast(model), prompt, 8, 4), beam_search(model, prompt, 8, 4), strict=True
    ):
        assert torch.allclose(found, expected)


def test_what_takes_the_short_path_and_what_the_ordinary_one(monkeypatch):
    taken = []
    short = FastTransformer.short_path
    monkeypatch.setattr(
        FastTransformer,
        "short_path",
        lambda self, ids, cache: taken.append(tuple(ids.shape)) or short(self, ids, cache),
    )
    decoder, ids = fast(small_model()), random_ids(2, 9)
    decoder.generate(ids, 3, temperature=0)
    assert taken == [(2, 1)] * 2
    decoder.generate(ids[:1], 3, temperature=0)
    assert taken[2:] == [(1, 9), (1, 1), (1, 1)]
    with torch.no_grad():
        decoder(ids)
        decoder(ids[:1])
        for rows in (ids, ids[:1]):
            _, past_kv = decoder(rows[:, :6], use_cache=True)
            decoder(rows[:, 6:], past_kv, use_cache=True)
    assert taken[5:] == [(1, 6)]
    decoder(ids[:1, :1], use_cache=True)
    decoder(ids)[0].sum().backward()
    assert decoder.layers[0].attention.W_k.weight.grad is not None
    assert taken[6:] == []


def test_only_the_last_position_of_a_prefill_gets_logits():
    decoder, ids = fast(small_model()), random_ids(2, 9)
    with torch.no_grad():
        last, _ = decoder.last_logits(ids, use_cache=True)
        assert last.shape == (2, 1, 50)
        assert torch.allclose(last, decoder(ids)[0][:, -1:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", WAYS)
def test_weights_that_change_are_used_and_none_is_kept_twice(monkeypatch, name):
    always(monkeypatch, name)
    first, second = (small_model(seed=seed, dtype=torch.float32) for seed in (1, 2))
    decoder, ids = fast(first), random_ids(1, 6)
    decoder.generate(ids, 6, temperature=0)
    heads = decoder.layers[0].attention
    stored = heads.W_q.stored
    assert stored.shape == (3 * heads.W_q.in_features, heads.W_q.in_features)
    assert stored.data_ptr() == heads.W_q.weight.data_ptr()
    assert heads.W_v.weight.untyped_storage().data_ptr() == stored.untyped_storage().data_ptr()
    for change in (
        lambda: decoder.load_state_dict(second.state_dict()),
        lambda: decoder.to(torch.float64).to(torch.float32).load_state_dict(second.state_dict()),
        lambda: heads.W_v.weight.data.copy_(second.layers[0].attention.W_v.weight),
    ):
        decoder.load_state_dict(first.state_dict())
        change()
        plain = copy.deepcopy(second)
        plain.load_state_dict(decoder.state_dict())
        told = plain.generate(ids, 18, temperature=0)
        assert torch.equal(decoder.generate(ids, 18, temperature=0), told)
        assert torch.equal(copy.deepcopy(decoder).generate(ids, 18, temperature=0), told)
    assert list(decoder.state_dict()) == list(first.state_dict())


@pytest.mark.parametrize("name", WAYS)
def test_a_copy_keeps_its_weights_when_those_of_the_first_change(monkeypatch, name):
    always(monkeypatch, name)
    first, second = (small_model(seed=seed, dtype=torch.float32) for seed in (1, 2))
    decoder, ids = fast(first), random_ids(1, 6)
    told = decoder.generate(ids, 18, temperature=0)
    copied = copy.deepcopy(decoder)
    copied.generate(ids, 2, temperature=0)
    decoder.load_state_dict(second.state_dict())
    assert torch.equal(copied.generate(ids, 18, temperature=0), told)
    assert not torch.equal(decoder.generate(ids, 18, temperature=0), told)
