"""Every wrong cache of the catalogue is told apart from all others, and named; no other is."""

import itertools

import pytest
import torch
from helpers import cases_for, small_model
from torch import nn

from course_utils.cache_bugs import CATALOGUE, CacheBug, WithCache, diagnose
from course_utils.evaluation import Feed, New, kv_evaluate
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.left_padding import LeftPaddedTransformer
from course_utils.transformer import DecoderOnlyTransformer

pytestmark = pytest.mark.authors


def built(model_class, reference):
    return CacheBug("", "", "", "", "", model_class).build(reference)


def pairs():
    """Two bugs in one model, where one is in the positions and the other elsewhere."""
    positions = ("positions_restart", "position_one_too_far")
    others = [
        entry.name
        for entry in CATALOGUE.values()
        if {"attention_class", "cache_class"} & set(vars(entry.model_class))
        and "forward" not in vars(entry.model_class)
    ]
    return list(itertools.product(positions, others))


@pytest.mark.sampled(6)
@pytest.mark.parametrize("names", pairs(), ids="+".join)
def test_two_bugs_at_once_are_never_called_right(names, reference, few_cases):
    classes = tuple(CATALOGUE[name].model_class for name in names)
    report = kv_evaluate(built(type("Both", classes, {}), reference), few_cases, stop=True)
    assert not report.all_passed
    diagnosis = diagnose(report, reference)
    assert not diagnosis.right
    assert diagnosis.bug is None or diagnosis.bug.name in names


def test_there_are_pairs():
    assert len(pairs()) > 20


class Scaled(DecoderOnlyTransformer):
    """A bug that is not in the catalogue: cached values grow by a hundredth."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if past_kv is not None:
            past_kv.values.mul_(1.01)
        return super().forward(input_ids, past_kv, use_cache)


def test_what_is_not_in_the_catalogue_is_not_guessed_at(reference, few_cases):
    report = kv_evaluate(built(Scaled, reference), few_cases)
    diagnosis = diagnose(report, reference)
    assert (diagnosis.right, diagnosis.bug) == (False, None)
    assert f"{report.smallest}." in diagnosis.message
    assert report.smallest.script == [New(), Feed(1), Feed(1)]
    assert "No wrong cache of the catalogue does the same everywhere." in diagnosis.message
    assert "The nearest use that is right: 1 token into an empty cache." in diagnosis.message
    assert "The output of layer 1 is the first that is off." in diagnosis.message
    passed = [result.name for result in report.others if result.passed]
    assert diagnosis.message.endswith(f"Still right: {', '.join(passed)}.")


class SeventyTokensAtMost(GrowingCache):
    """Right in all that the twelve probes look at."""

    def append(self, layer, k, v):
        found = super().append(layer, k, v)
        self.keys[layer], self.values[layer] = (part[:, :, -70:] for part in found)
        return found

    @property
    def length(self):
        return self.count

    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.layers_done, self.count = 0, 0


class Windowed(WithCache):
    cache_class = SeventyTokensAtMost

    def forward(self, input_ids, past_kv=None, use_cache=False):
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        if past_kv is not None:
            past_kv.count += input_ids.size(1)
        return logits, past_kv

    def new_cache(self, batch_size):
        return SeventyTokensAtMost(self, batch_size)


def test_the_report_that_failed_is_explained_and_no_other():
    """A fault that shows after 70 cached tokens: once, the diagnosis called such a model right."""
    reference = small_model(max_seq_len=100)
    report = kv_evaluate(built(Windowed, reference), cases_for(reference, [(1, 5)]))
    diagnosis = diagnose(report, reference)
    assert not diagnosis.right
    assert "wrong from position 7" in diagnosis.message
    assert "Still right: " in diagnosis.message
    assert "Around the ends of blocks" not in diagnosis.message


def test_a_model_that_is_wrong_without_its_cache_is_told_so(reference):
    diagnosis = diagnose(small_model(seed=1), reference)
    assert not diagnosis.right
    assert "wrong without its cache" in diagnosis.message


class Unfinished(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        raise NotImplementedError("to be done")


def test_what_is_not_done_yet_is_not_an_illness(reference):
    with pytest.raises(NotImplementedError, match="to be done"):
        diagnose(built(Unfinished, reference), reference)


class OtherNames(nn.Module):
    """Not the course's parameters: nothing of the catalogue can be compared with it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.token_embedding, self.pos_embedding = inner.token_embedding, inner.pos_embedding

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


def test_without_a_reference_there_is_evidence(reference, few_cases):
    report = kv_evaluate(OtherNames(CATALOGUE["stale"].build(reference)), few_cases)
    diagnosis = diagnose(report)
    assert (diagnosis.right, diagnosis.bug) == (False, None)
    assert diagnosis.message.startswith("3 tokens, 1 at a time from an empty cache: wrong from")
    assert "catalogue" not in diagnosis.message


class Crashes(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if past_kv is not None:
            raise RuntimeError("no second call")
        return super().forward(input_ids, past_kv, use_cache)


def test_a_crash_is_evidence_and_not_a_match(reference):
    model = built(Crashes, reference)
    diagnosis = diagnose(model, reference)
    assert (diagnosis.right, diagnosis.bug) == (False, None)
    assert "RuntimeError: no second call" in diagnosis.message


@pytest.mark.parametrize("kind", [GrowingCache, PreallocatedCache])
@pytest.mark.parametrize("seed", range(3))
def test_the_right_caches_are_called_right(kind, seed):
    reference = small_model(seed=seed)

    class Own(DecoderOnlyTransformer):
        def new_cache(self, batch_size):
            return kind(self, batch_size)

    model = built(Own, reference)
    assert diagnose(model, reference).right


class LooksAtValues(DecoderOnlyTransformer):
    """Right, but it cannot run where there are no values."""

    def embed(self, input_ids, start=0):
        assert input_ids.max().item() < self.token_embedding.num_embeddings
        return super().embed(input_ids, start)


class LooksAtCachedValues(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if past_kv is not None:
            assert input_ids.min().item() >= 0
        return super().forward(input_ids, past_kv, use_cache)


@pytest.mark.parametrize("model_class", [LooksAtValues, LooksAtCachedValues, LeftPaddedTransformer])
def test_right_models_of_other_kinds_are_called_right(model_class, reference):
    model = built(model_class, reference)
    assert kv_evaluate(model, cases_for(reference)).all_passed
    assert diagnose(model, reference).right


class StaleTupleCache:
    """The mistake of `stale` in a cache that is written otherwise and cannot be rolled back."""

    def __init__(self, model, batch_size):
        self.batch_size, self.length = batch_size, 0
        self.stored = [None] * model.num_layers

    def append(self, layer, k, v):
        self.length += k.size(2) if layer == 0 else 0
        if self.stored[layer] is None:
            self.stored[layer] = k, v
            return k, v
        return tuple(
            torch.cat(pair, dim=2) for pair in zip(self.stored[layer], (k, v), strict=True)
        )


class StaleTuples(WithCache):
    cache_class = StaleTupleCache


def test_a_known_mistake_is_named_in_a_cache_without_rollback(reference):
    assert diagnose(built(StaleTuples, reference), reference).bug.name == "stale"
