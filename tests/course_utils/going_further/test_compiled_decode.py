"""The compiled decoding step: the same numbers, and the program where it should run."""

import pytest
import torch
from helpers import cases_for, random_ids, small_model
from torch._inductor.exc import InvalidCxxCompiler

from course_utils.evaluation import kv_evaluate
from course_utils.generation import beam_search
from course_utils.going_further.speed import compiled_decode
from course_utils.going_further.speed.compiled_decode import (
    CompiledTransformer,
    StepCache,
    compiled,
    has_compiler,
)


@pytest.fixture(scope="module")
def model():
    return small_model(seed=4)


@pytest.fixture(scope="module")
def decoder(model):
    if not has_compiler():
        pytest.skip("needs a C++ compiler")
    return compiled(model)


def count_steps(monkeypatch):
    """A list that gets an entry for each step that the program does."""
    taken = []
    step = CompiledTransformer.step
    monkeypatch.setattr(
        CompiledTransformer, "step", lambda self, *a: taken.append(1) or step(self, *a)
    )
    return taken


@pytest.mark.authors
def test_its_cache_is_right(model, decoder, monkeypatch):
    """The harness works on copies, which have the program's weights elsewhere: that is allowed."""
    taken = count_steps(monkeypatch)
    monkeypatch.setattr(CompiledTransformer, "weights", lambda self: (self.device, self.dtype))
    monkeypatch.setattr(decoder, "made_for", decoder.weights())
    report = kv_evaluate(decoder, cases_for(model))
    assert report.all_passed, report.problems
    assert len(taken) > 50


def test_the_program_decodes_one_token_of_one_sequence_and_nothing_else(
    decoder, model, monkeypatch
):
    taken = count_steps(monkeypatch)
    ids = random_ids(2, 9)
    decoder.generate(ids, 5, temperature=0)
    assert not taken
    decoder.generate(ids[:1], 3, temperature=0)
    assert len(taken) == 2
    decoder.generate(ids[:1, :1], 3, temperature=0)
    assert len(taken) == 4
    decoder.generate(ids[:1, :1], 5, temperature=0.7, generator=torch.Generator().manual_seed(0))
    assert len(taken) == 8
    with torch.no_grad():
        _, past_kv = decoder(ids[:1, :6], use_cache=True)
        decoder(ids[:1, 6:], past_kv, use_cache=True)
        assert len(taken) == 8
        last, _ = decoder.last_logits(ids[:1, :1], past_kv, use_cache=True)
        assert len(taken) == 9
    assert last.shape == (1, 1, 50)
    past_kv.truncate(9)
    logits, _ = decoder(ids[:1, :1], past_kv, use_cache=True)
    assert len(taken) == 9
    assert torch.allclose(logits, last, rtol=0, atol=1e-12)
    decoder.train()
    with torch.no_grad():
        past_kv.truncate(9)
        decoder(ids[:1, :1], past_kv, use_cache=True)
    decoder.eval()
    assert len(taken) == 9


def test_it_says_the_same_up_to_a_full_cache(model, decoder):
    for length in (1, 2, 7):
        ids = random_ids(1, length, seed=length)
        room = model.max_seq_len - length
        for new in (0, 1, room):
            told = model.generate(ids, new, temperature=0)
            assert torch.equal(decoder.generate(ids, new, temperature=0), told)
        with pytest.raises(ValueError, match="do not fit"):
            decoder.generate(ids, room + 1, temperature=0)
    options = {"temperature": 0.9, "top_k": 5}
    drawn = [
        m.generate(ids, 9, generator=torch.Generator().manual_seed(1), **options)
        for m in (model, decoder)
    ]
    assert torch.equal(*drawn)


def test_a_beam_search_is_refused_and_one_beam_is_not(model, decoder):
    prompt = random_ids(1, 5)
    with pytest.raises(NotImplementedError, match=r"use fast\(model\)"):
        beam_search(decoder, prompt, 4, 3)
    assert torch.equal(beam_search(decoder, prompt, 4, 1)[0], beam_search(model, prompt, 4, 1)[0])


def test_other_weights_are_not_decoded_by_the_program(model, decoder, monkeypatch):
    ids = random_ids(1, 6)
    with torch.no_grad():
        decoder.norm.weight.mul_(-1)
    assert not isinstance(decoder.new_cache(1), StepCache)
    other = small_model()
    other.load_state_dict(decoder.state_dict())
    told = other.generate(ids, 9, temperature=0)
    assert not torch.equal(told, model.generate(ids, 9, temperature=0))
    assert torch.equal(decoder.generate(ids, 9, temperature=0), told)
    with torch.no_grad():
        decoder.norm.weight.mul_(-1)
    monkeypatch.setattr(decoder, "made_for", decoder.weights())
    assert isinstance(decoder.new_cache(1), StepCache)


def test_its_cache_has_room_for_one_more_position(model):
    heads, d_head = model.num_heads, model.d_head
    expected = 2 * model.num_layers * heads * (model.max_seq_len + 1) * d_head * 8
    assert StepCache(model).nbytes == expected


def test_without_a_compiler_it_says_what_to_do(model, monkeypatch):
    def missing():
        raise InvalidCxxCompiler()

    monkeypatch.setattr(compiled_decode, "get_cpp_compiler", missing)
    with pytest.raises(RuntimeError, match="No C\\+\\+ compiler was found"):
        compiled(model)


def test_a_space_in_the_path_is_said(model, monkeypatch):
    monkeypatch.setattr(compiled_decode.torch, "__file__", "/my course/torch/__init__.py")
    with pytest.raises(RuntimeError, match="has a space in it.* move the course"):
        compiled(model)


def test_it_is_for_the_cpu(model):
    with pytest.raises(ValueError, match="is on meta"):
        compiled(small_model().to("meta"))
