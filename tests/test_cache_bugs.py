"""Every wrong cache of the catalogue is caught, told apart from all others, and named."""

import itertools
import random

import pytest
import torch
from helpers import cases_for, small_model

from course_utils import cache_bugs
from course_utils.cache_bugs import CATALOGUE, diagnose
from course_utils.evaluation import evaluate, in_portions, kv_evaluate, uncached
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.transformer import DecoderOnlyTransformer


@pytest.fixture(scope="module")
def reference():
    return small_model()


def built(model_class, reference):
    return cache_bugs.CacheBug("", "", "", "", "", model_class).build(reference)


def test_there_are_at_least_twenty():
    assert len(CATALOGUE) >= 20


@pytest.mark.parametrize("name", CATALOGUE)
def test_it_is_right_without_a_cache_and_kv_evaluate_catches_it(name, reference):
    cases = cases_for(reference)
    assert evaluate(CATALOGUE[name].build(reference), cases).all_passed
    assert not kv_evaluate(CATALOGUE[name].build(reference), cases).all_passed


@pytest.mark.parametrize("name", CATALOGUE)
def test_it_is_told_apart_from_every_other(name, reference):
    """`diagnose` tries the entries in order: to be named, it must differ from all before it."""
    diagnosis = diagnose(CATALOGUE[name].build(reference), reference)
    assert not diagnosis.right
    assert diagnosis.bug.name == name
    assert CATALOGUE[name].symptom in diagnosis.message


def test_it_is_told_apart_on_other_weights_too():
    reference = small_model(seed=5)
    for entry in CATALOGUE.values():
        assert diagnose(entry.build(reference), reference).bug is entry


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=list(CATALOGUE))
def test_every_entry_says_what_where_and_why(entry):
    for text in (entry.mistake, entry.symptom, entry.look):
        assert len(text) > 15
        assert not text.endswith(".")


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


@pytest.mark.parametrize("names", pairs(), ids="+".join)
def test_two_bugs_at_once_are_never_called_right(names, reference):
    classes = tuple(CATALOGUE[name].model_class for name in names)
    both = type("Both", classes, {})
    model = built(both, reference)
    assert not kv_evaluate(model, cases_for(reference)).all_passed
    diagnosis = diagnose(model, reference)
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


def test_what_is_not_in_the_catalogue_is_not_guessed_at(reference):
    model = built(Scaled, reference)
    diagnosis = diagnose(model, reference)
    assert (diagnosis.right, diagnosis.bug) == (False, None)
    assert "one by one: differs from position 6 on" in diagnosis.message
    assert "No wrong cache of the catalogue behaves like this" in diagnosis.message
    assert "output of layer 1 is the first that is off" in diagnosis.message
    assert "Still right: at once" in diagnosis.message


def test_a_model_that_is_wrong_without_its_cache_is_told_so(reference):
    diagnosis = diagnose(small_model(seed=1), reference)
    assert not diagnosis.right
    assert "wrong without its cache" in diagnosis.message


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
        portions, left = [], seq_len
        while left:
            portions.append(rng.randint(1, left))
            left -= portions[-1]
        found = in_portions(model, ids, portions)
        assert torch.allclose(found, uncached(model, ids), 0, tolerance), (trial, portions)


@pytest.mark.parametrize("kind", [GrowingCache, PreallocatedCache])
@pytest.mark.parametrize("seed", range(3))
def test_the_right_caches_are_called_right(kind, seed):
    reference = small_model(seed=seed)

    class Own(DecoderOnlyTransformer):
        def new_cache(self, batch_size):
            return kind(self, batch_size)

    model = built(Own, reference)
    assert diagnose(model, reference).right


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [GrowingCache, PreallocatedCache])
def test_in_16_bits_the_right_caches_are_right_to_16_bits(kind, dtype):
    model = small_model().to(dtype)
    model.new_cache = lambda batch_size: kind(model, batch_size)
    ids = torch.arange(12).view(1, 12)
    found = in_portions(model, ids, (5, 1, 1, 5))
    assert found.dtype == dtype
    assert torch.allclose(found.float(), uncached(model, ids).float(), rtol=0.05, atol=0.05)


def test_the_check_of_the_assignment_sees_few(reference):
    seen = cache_bugs.survey(reference)
    assert all(any(checks.values()) for checks in seen.values())
    by_assignment = {name for name, checks in seen.items() if checks["at once"]}
    assert by_assignment == {
        "one_layer_for_all",
        "last_block_for_all",
        "prefill_unmasked",
        "cache_in_default_dtype",
    }
    only_past_the_end = {
        name for name, c in seen.items() if c["past the end"] and sum(c.values()) == 1
    }
    assert only_past_the_end == {"last_position_repeats", "positions_wrap_round"}
