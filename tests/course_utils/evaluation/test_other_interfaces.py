"""Models that are right and look a little different: none is accused, none crashes the judge."""

import pytest
import torch
from helpers import SMALL, cases_for, small_model

from course_utils.attention import MultiHeadAttention, causal_mask
from course_utils.cache_bugs import diagnose
from course_utils.evaluation import kv_evaluate
from course_utils.kv_cache import GrowingCache
from course_utils.transformer import DecoderOnlyTransformer

pytestmark = pytest.mark.authors


class LogitsAlone(DecoderOnlyTransformer):
    """Without a cache it returns no pair; its `generate` is greedy, and knows no generator."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        return (logits, past_kv) if use_cache else logits

    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True):
        for _ in range(max_new_tokens):
            input_ids = torch.cat([input_ids, self(input_ids)[:, -1:].argmax(-1)], dim=1)
        return input_ids


class NoGenerate(DecoderOnlyTransformer):
    def generate(self, *given, **options):
        raise NotImplementedError


class NoPadding(DecoderOnlyTransformer):
    def padded_cache(self, padding):
        raise NotImplementedError


class AnotherSeed(DecoderOnlyTransformer):
    """What is drawn depends on nothing that anybody gives it."""

    calls = 0

    def generate(self, *given, generator=None, **options):
        type(self).calls += 1
        own = torch.Generator().manual_seed(self.calls)
        return super().generate(*given, generator=own, **options)


class SaysHowMany(GrowingCache):
    def truncate(self, length):
        super().truncate(length)
        return length


class OneRowMore(GrowingCache):
    """More rows than there were are not offered."""

    def reorder(self, rows):
        if len(rows) > self.batch_size:
            raise NotImplementedError
        super().reorder(rows)


class OneRow(GrowingCache):
    """Several rows are not offered."""

    def __init__(self, model, batch_size):
        if batch_size > 1:
            raise NotImplementedError
        super().__init__(model, batch_size)


class OneRowInWords(GrowingCache):
    def __init__(self, model, batch_size):
        if batch_size != 1:
            raise ValueError(f"This cache takes one sequence at a time, not {batch_size}.")
        super().__init__(model, batch_size)


class OneRowAsserted(GrowingCache):
    def __init__(self, model, batch_size):
        assert batch_size == 1, "one sequence at a time"
        super().__init__(model, batch_size)


class OneRowByAccident(GrowingCache):
    """Several rows end in an error that nobody meant."""

    def __init__(self, model, batch_size):
        super().__init__(model, 1)

    def append(self, layer, k, v):
        (k,), (v,) = k, v
        return super().append(layer, k[None], v[None])


class OneRowAfterwards(GrowingCache):
    """Several rows are refused once there was one row."""

    def __init__(self, model, batch_size):
        model.most = 1 if batch_size == 1 else getattr(model, "most", batch_size)
        if batch_size > model.most:
            raise ValueError("one sequence at a time")
        super().__init__(model, batch_size)


class OnePrompt(DecoderOnlyTransformer):
    def generate(self, input_ids, *given, **options):
        if len(input_ids) > 1:
            raise ValueError("generate takes one prompt")
        return super().generate(input_ids, *given, **options)


class OnlyFloat32(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if self.dtype != torch.float32:
            raise TypeError(f"this model runs in float32, not in {self.dtype}")
        return super().forward(input_ids, past_kv, use_cache)


class NeverDouble(DecoderOnlyTransformer):
    def double(self):
        raise RuntimeError("there is no float64 here")


class SoftmaxInFloat32(DecoderOnlyTransformer):
    """As many public models compute it, whatever their dtype."""

    class Attention(MultiHeadAttention):
        def attend(self, q, k, v):
            mask = causal_mask(q.size(2), k.size(2), q.device)
            scores = (q @ k.transpose(2, 3) / q.size(-1) ** 0.5).masked_fill(~mask, -torch.inf)
            return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v

    def __init__(self, vocab_size, d_model, *args, num_heads=1, **options):
        super().__init__(vocab_size, d_model, *args, num_heads=num_heads, **options)
        for layer in self.layers:
            layer.attention = self.Attention(d_model, num_heads)


class PositionsFromZero:
    """For models in float32 alone, too, a wrong cache is wrong."""

    def embed(self, input_ids, start=0):
        return super().embed(input_ids)


def with_cache(cache_class):
    methods = {"new_cache": lambda model, batch_size: cache_class(model, batch_size)}
    return type(f"With{cache_class.__name__}", (DecoderOnlyTransformer,), methods)


def like(model_class, reference):
    model = model_class(**SMALL, dropout=0.0).to(reference.dtype)
    model.load_state_dict(reference.state_dict())
    return model.eval()


def not_judged(report):
    return {result.name for result in report.others if result.not_judged}


@pytest.mark.parametrize(
    ("model_class", "names"),
    [
        (LogitsAlone, set()),
        (NoGenerate, {"Generations"}),
        (NoPadding, set()),
        (AnotherSeed, {"Drawn tokens"}),
        (with_cache(SaysHowMany), set()),
        (with_cache(OneRowMore), set()),
    ],
)
def test_it_is_right(model_class, names):
    reference = small_model()
    report = kv_evaluate(like(model_class, reference), cases_for(reference))
    assert report.all_passed, report.problems
    assert not_judged(report) == {"Prompts of different length"} | names


@pytest.mark.parametrize("model_class", [OnlyFloat32, NeverDouble, SoftmaxInFloat32])
def test_what_has_float32_only_is_judged_in_it(model_class):
    reference = small_model(dtype=torch.float32)
    report = kv_evaluate(like(model_class, reference), cases_for(reference))
    assert report.all_passed, report.problems
    assert "In float64" in not_judged(report)
    wrong = type("Wrong", (PositionsFromZero, model_class), {})
    report = kv_evaluate(like(wrong, reference), cases_for(reference), stop=True)
    assert report.problems and not report.others


@pytest.mark.parametrize("cache_class", [OneRowByAccident, OneRowAfterwards])
def test_several_rows_that_fail_otherwise_are_wrong(cache_class):
    report = kv_evaluate(like(with_cache(cache_class), small_model()), [], stop=True)
    assert report.problems


def test_a_generate_for_one_prompt_is_judged_by_it():
    reference = small_model()
    report = kv_evaluate(like(OnePrompt, reference), cases_for(reference))
    assert report.all_passed, report.problems


@pytest.mark.parametrize("cache_class", [OneRow, OneRowInWords, OneRowAsserted])
def test_what_has_one_row_only_is_judged_by_it(cache_class):
    reference = small_model()
    report = kv_evaluate(like(with_cache(cache_class), reference), cases_for(reference))
    assert report.all_passed, report.problems
    whole = kv_evaluate(reference, cases_for(reference))
    counts = [result.checks for result in report.cases + report.others]
    most = [result.checks for result in whole.cases + whole.others]
    assert all(some <= more for some, more in zip(counts, most, strict=True))
    assert sum(counts) < 0.8 * sum(most)


class NeverWritten(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        raise NotImplementedError


def test_what_offers_nothing_has_not_passed():
    report = kv_evaluate(like(NeverWritten, small_model()), [])
    assert not report.all_passed and "NotImplementedError" in report.problems[0]


class Greedy(DecoderOnlyTransformer):
    """Draws without a cache, and takes the likeliest with one."""

    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True, **options):
        temperature = 0 if use_cache else temperature
        return super().generate(input_ids, max_new_tokens, temperature, use_cache, **options)


def test_draws_are_compared_where_they_can_be():
    report = kv_evaluate(like(Greedy, small_model()), [])
    assert any("draw" in problem for problem in report.problems)


def test_no_wrong_cache_is_named_if_only_the_stored_logits_are_wrong():
    report = kv_evaluate(small_model(), cases_for(small_model(seed=5)))
    assert not report.all_passed and report.smallest is None
    diagnosis = diagnose(report)
    assert (diagnosis.right, diagnosis.bug) == (False, None)
    assert "stored logits" in diagnosis.message
