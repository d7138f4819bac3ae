"""Greedy and sampled decoding, and the requests that are refused."""

import pytest
import torch
from helpers import random_ids, small_model

from course_utils.generation import beam_search, generate, keep_top_k, keep_top_p, stream
from course_utils.kv_cache import GrowingCache, PreallocatedCache


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_takes_the_likeliest_token(use_cache):
    model = small_model()
    expected = random_ids(2, 5)
    prompt = expected
    for _ in range(10):
        expected = torch.cat([expected, model(expected)[0][:, -1:].argmax(-1)], dim=1)
    assert torch.equal(model.generate(prompt, 10, temperature=0, use_cache=use_cache), expected)


def test_a_generator_makes_sampling_reproducible():
    model = small_model()
    prompt = random_ids(2, 3)

    def draw(seed, use_cache):
        generator = torch.Generator().manual_seed(seed)
        return generate(model, prompt, 15, 1.0, use_cache, generator=generator)

    assert torch.equal(draw(0, True), draw(0, True))
    assert torch.equal(draw(0, True), draw(0, False))
    assert not torch.equal(draw(0, True), draw(1, True))


def test_top_k_by_hand():
    kept = keep_top_k(torch.tensor([[1.0, 4.0, 3.0, 2.0]]), 2)
    assert kept.isfinite().tolist() == [[False, True, True, False]]
    assert keep_top_k(torch.zeros(1, 3), 10).isfinite().all()


def test_top_p_by_hand():
    logits = torch.tensor([[0.1, 0.4, 0.3, 0.2]]).log()
    assert keep_top_p(logits, 0.3).isfinite().tolist() == [[False, True, False, False]]
    assert keep_top_p(logits, 0.5).isfinite().tolist() == [[False, True, True, False]]
    assert keep_top_p(logits, 0.8).isfinite().tolist() == [[False, True, True, True]]
    assert keep_top_p(logits, 1.0).isfinite().all()
    torch.testing.assert_close(keep_top_p(logits, 1.0), logits)


def test_top_k_1_is_greedy():
    model = small_model()
    prompt = random_ids(1, 4)
    greedy = model.generate(prompt, 8, temperature=0)
    assert torch.equal(model.generate(prompt, 8, temperature=3.0, top_k=1), greedy)
    assert torch.equal(model.generate(prompt, 8, temperature=3.0, top_p=1e-9), greedy)


def test_stop_token_ends_a_row_and_then_the_batch():
    model = small_model(seed=8)
    prompt = random_ids(2, 4)
    free = model.generate(prompt, 12, temperature=0)[:, 4:].tolist()
    stop = 31
    ends = [row.index(stop) + 1 for row in free]
    assert ends[1] < ends[0] < 12
    assert set(free[1][ends[1] : ends[0]]) != {stop}
    stopped = model.generate(prompt, 12, temperature=0, stop_token=stop)[:, 4:].tolist()
    assert stopped[0] == free[0][: ends[0]]
    assert stopped[1] == free[1][: ends[1]] + [stop] * (ends[0] - ends[1])


def test_stream_yields_tokens_as_they_come():
    model = small_model()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    tokens = stream(model, random_ids(2, 4), 6, temperature=0)
    assert next(tokens).shape == (2,)
    assert len(calls) == 1
    assert len(list(tokens)) == 5


@pytest.mark.parametrize("cache", [GrowingCache, PreallocatedCache])
def test_with_a_cache_only_new_tokens_are_run(cache):
    model = small_model()
    lengths = []
    model.register_forward_pre_hook(lambda _, args: lengths.append(args[0].size(1)))
    list(stream(model, random_ids(1, 5), 4, past_kv=cache(model, 1)))
    assert lengths == [5, 1, 1, 1]
    lengths.clear()
    list(stream(model, random_ids(1, 5), 4, use_cache=False))
    assert lengths == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("prompt_len", "options", "words"),
    [
        (20, {"max_new_tokens": 5}, "at most 4 new tokens"),
        (30, {"max_new_tokens": 1}, "shorten the prompt"),
        (0, {"max_new_tokens": 1}, "at least one token"),
        (3, {"max_new_tokens": -1}, "must be 0 or more"),
        (3, {"max_new_tokens": 1, "temperature": -1.0}, "temperature=-1.0"),
        (3, {"max_new_tokens": 1, "temperature": float("nan")}, "temperature=nan"),
        (3, {"max_new_tokens": 1, "top_k": 0}, "top_k=0"),
        (3, {"max_new_tokens": 1, "top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_impossible_requests_are_refused_before_any_work(prompt_len, options, words):
    model = small_model()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match=words):
        stream(model, random_ids(1, prompt_len), **options)
    assert not calls


@pytest.mark.parametrize("token", [-1, 50])
def test_ids_outside_the_vocabulary_are_refused(token):
    with pytest.raises(ValueError, match=f"token id {token}, expected 0 to 49"):
        small_model().generate(torch.tensor([[1, token]]), 1)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([[1, 2]], r"a list, expected a tensor.*torch\.tensor\(\[ids\]\)"),
        (None, "a NoneType, expected a tensor"),
        (torch.ones(1, 2), "holds torch.float32, expected whole numbers"),
        (torch.ones(1, 2, dtype=torch.bool), "holds torch.bool, expected whole numbers"),
    ],
)
def test_a_prompt_that_holds_no_ids_is_refused(prompt, words):
    for asked in (lambda: stream(small_model(), prompt, 2), lambda: generate(None, prompt, 2)):
        with pytest.raises(ValueError, match=words):
            asked()


def test_the_last_position_can_be_reached():
    model = small_model()
    assert model.generate(random_ids(1, 4), 20, temperature=0).shape == (1, 24)
    assert model.generate(random_ids(1, 24), 0).shape == (1, 24)


@pytest.mark.parametrize("beams", [1, 3, 60])
def test_beam_search_finds_the_same_with_and_without_a_cache(beams):
    model = small_model().double()
    prompt = random_ids(1, 4)
    plain = beam_search(model, prompt, 6, beams, use_cache=False)
    cached = beam_search(model, prompt, 6, beams, use_cache=True)
    assert torch.equal(plain[0], cached[0])
    assert torch.allclose(plain[1], cached[1])
    assert plain[0].shape == (beams, 10)


def test_one_beam_is_greedy():
    model = small_model()
    found, _ = beam_search(model, random_ids(1, 4), 8, 1)
    assert torch.equal(found, model.generate(random_ids(1, 4), 8, temperature=0))


@pytest.mark.parametrize(
    ("batch", "beams", "words"), [(2, 3, "one prompt"), (1, 0, "num_beams=0 must be at least 1")]
)
def test_impossible_beams_are_refused(batch, beams, words):
    with pytest.raises(ValueError, match=words):
        beam_search(small_model(), random_ids(batch, 4), 2, beams)


@pytest.mark.parametrize("kind", [GrowingCache, PreallocatedCache])
def test_reordered_rows_go_on_as_copies(kind):
    model = small_model().double()
    ids = random_ids(3, 6)
    rows = torch.tensor([2, 0, 0, 1, 2])
    with torch.no_grad():
        cache = kind(model, 3)
        model(ids[:, :4], past_kv=cache, use_cache=True)
        cache.reorder(rows)
        logits, _ = model(ids[rows, 4:], past_kv=cache, use_cache=True)
        expected = model(ids[rows])[0][:, 4:]
    assert cache.batch_size == 5
    assert torch.allclose(logits, expected, atol=1e-9)


def test_enough_beams_find_the_likeliest_of_all_texts():
    model = small_model()
    prompt = random_ids(1, 4)
    every = torch.cartesian_prod(torch.arange(50), torch.arange(50))
    texts = torch.cat([prompt.expand(len(every), -1), every], dim=1)
    with torch.no_grad():
        logs = torch.log_softmax(model(texts)[0][:, 3:-1].float(), -1)
    exact = logs.gather(-1, every[..., None]).sum((1, 2))
    ids, scores = beam_search(model, prompt, 2, 50)
    assert torch.equal(ids[0], texts[exact.argmax()])
    assert torch.allclose(scores[0], exact.max())
