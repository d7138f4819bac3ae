"""However the tokens are fed, a right cache gives the same logits; `ways_to_feed` has them all."""

import random

import pytest
import torch
from helpers import random_ids, small_model
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.evaluation import first_difference, in_chunks, uncached, ways_to_feed
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.transformer import DecoderOnlyTransformer


def with_cache(kind):
    class Own(DecoderOnlyTransformer):
        def new_cache(self, batch_size):
            return kind(self, batch_size)

    return Own


@settings(deadline=None, max_examples=60)
@given(data=st.data(), seed=st.integers(0, 10_000), growing=st.booleans())
def test_any_split_gives_the_same_logits(data, seed, growing):
    model = small_model(with_cache(GrowingCache if growing else PreallocatedCache), seed=seed % 5)
    chunks = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    ids = random_ids(data.draw(st.integers(1, 3)), sum(chunks), seed=seed)
    found = in_chunks(model, ids, chunks)
    assert first_difference(uncached(model, ids), found, 1e-9) is None


@pytest.mark.parametrize("seq_len", [1, 2, 3, 7, 24, 25, 60])
def test_ways_to_feed_cover_every_prefill(seq_len):
    ways = list(ways_to_feed(seq_len))
    assert all(sum(way) == seq_len and min(way) >= 1 for way in ways)
    assert {way[0] for way in ways} >= set(range(1, seq_len + 1))
    assert (1,) * seq_len in ways


@pytest.mark.parametrize("kind", [GrowingCache, PreallocatedCache])
def test_the_right_caches_pass_on_200_random_shapes(kind):
    rng = random.Random(0)
    for trial in range(200):
        heads = rng.choice([1, 2, 3, 4])
        seq_len, batch = rng.randint(1, 14), rng.randint(1, 3)
        dtype, tolerance = rng.choice([(torch.float64, 1e-9), (torch.float32, 1e-3)])
        torch.manual_seed(trial)
        model = DecoderOnlyTransformer(
            30, 4 * heads, rng.randint(1, 20), rng.randint(1, 3), 14, heads, dropout=0.0
        )
        model = model.to(dtype).eval()
        model.new_cache = lambda batch_size, model=model: kind(model, batch_size)
        ids = torch.randint(30, (batch, seq_len))
        chunks, left = [], seq_len
        while left:
            chunks.append(rng.randint(1, left))
            left -= chunks[-1]
        found = in_chunks(model, ids, chunks)
        assert torch.allclose(found, uncached(model, ids), 0, tolerance), (trial, chunks)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [GrowingCache, PreallocatedCache])
def test_in_16_bits_the_right_caches_are_right_to_16_bits(kind, dtype):
    model = small_model().to(dtype)
    model.new_cache = lambda batch_size: kind(model, batch_size)
    ids = torch.arange(12).view(1, 12)
    found = in_chunks(model, ids, (5, 1, 1, 5))
    assert found.dtype == dtype
    assert torch.allclose(found.float(), uncached(model, ids).float(), rtol=0.05, atol=0.05)
