"""The fast decoder: the same numbers as the plain one, and the path that it should take."""

import copy

import pytest
import torch
from helpers import cases_for, random_ids, small_model

from course_utils import fast_decode
from course_utils.evaluation import kv_evaluate
from course_utils.fast_decode import FastTransformer, fast, product, store
from course_utils.generation import beam_search
from course_utils.transformer import load_model


@pytest.fixture
def split_all(monkeypatch):
    """No weights count as kept by the processor, and there are three threads."""
    monkeypatch.setattr(fast_decode, "IN_CACHE", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("by_columns", [False, True])
def test_a_product_is_added_or_written(split_all, rows, batch, by_columns):
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(5, rows).double(), torch.randn(batch, 5).double()
    expected = x @ linear.weight.detach().T.clone()
    with torch.no_grad():
        add = product(store(by_columns, linear))
        y = torch.ones(batch, rows).double()
        add(y, x)
        assert torch.allclose(y, 1 + expected, rtol=0, atol=1e-12)
        y = torch.full((batch, rows), torch.nan).double()
        add(y, x, beta=0)
        assert torch.allclose(y, expected, rtol=0, atol=1e-12)


def test_its_cache_is_right():
    model = small_model()
    report = kv_evaluate(fast(model), cases_for(model))
    assert report.all_passed, report.problems


def test_its_cache_is_right_with_every_matrix_split(split_all):
    model = small_model(seed=1, vocab_size=47, d_model=18, num_heads=3)
    ids = random_ids(1, 24, vocab_size=47)
    decoder, past_kv, found = fast(model), None, []
    with torch.no_grad():
        for token in ids.split(1, dim=1):
            logits, past_kv = decoder.last_logits(token, past_kv, use_cache=True)
            found.append(logits)
        expected = model(ids)[0]
    assert torch.allclose(torch.cat(found, dim=1), expected, rtol=0, atol=1e-9)


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


def test_weights_that_change_are_used_and_none_is_kept_twice():
    first, second = small_model(seed=1), small_model(seed=2)
    decoder, ids = fast(first), random_ids(1, 6)
    decoder.generate(ids, 6, temperature=0)
    heads = decoder.layers[0].attention
    stored = heads.W_q.stored
    assert stored.shape == (3 * heads.W_q.in_features, heads.W_q.in_features)
    assert stored.data_ptr() == heads.W_q.weight.data_ptr()
    assert heads.W_v.weight.untyped_storage().data_ptr() == stored.untyped_storage().data_ptr()
    for change in (
        lambda: decoder.load_state_dict(second.state_dict()),
        lambda: decoder.to(torch.float32).to(torch.float64).load_state_dict(second.state_dict()),
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
