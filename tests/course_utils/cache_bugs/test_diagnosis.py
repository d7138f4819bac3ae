"""Every wrong cache of the catalogue is told apart from all others, and named; no other is."""

import itertools

import pytest
import torch
from helpers import cases_for, small_model

from course_utils.cache_bugs import CATALOGUE, CacheBug, WithCache, diagnose
from course_utils.cache_bugs.probes import outcome
from course_utils.evaluation import kv_evaluate
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.left_padding import LeftPaddedTransformer
from course_utils.transformer import DecoderOnlyTransformer

BUILD = CacheBug.build


def built(model_class, reference):
    return BUILD(CacheBug("", "", "", "", "", model_class), reference)


def weights_of(reference):
    return reference.token_embedding.weight.sum().item()


class Replay:
    """Takes the place of a model of the catalogue; remembers what that ran for earlier diagnoses.

    Every diagnosis asks each of them for the same probes in the same order, up to some probe.
    """

    known = {}

    def __init__(self, entry, reference):
        key = entry.name, weights_of(reference)
        if key not in self.known:
            self.known[key] = BUILD(entry, reference), []
        self.model, self.outcomes = self.known[key]
        self.asked = 0

    def outcome(self, run):
        if self.asked == len(self.outcomes):
            self.outcomes.append(outcome(run, self.model))
        self.asked += 1
        return self.outcomes[self.asked - 1]


@pytest.fixture
def replayed(monkeypatch):
    """Inside `diagnose`, the models of the catalogue are `Replay`s.

    The reference keeps nothing from run to run: each of its probes runs once.
    """

    def replay(run, model):
        if isinstance(model, Replay):
            return model.outcome(run)
        if type(model) is not DecoderOnlyTransformer:
            return outcome(run, model)
        key = run.__code__, weights_of(model)
        if key not in Replay.known:
            Replay.known[key] = outcome(run, model)
        return Replay.known[key]

    monkeypatch.setattr(CacheBug, "build", lambda entry, reference: Replay(entry, reference))
    monkeypatch.setattr("course_utils.cache_bugs.diagnosis.outcome", replay)


@pytest.mark.parametrize("name", CATALOGUE)
def test_it_is_told_apart_from_every_other(name, reference, replayed):
    """`diagnose` tries the entries in order: to be named, it must differ from all before it."""
    diagnosis = diagnose(BUILD(CATALOGUE[name], reference), reference)
    assert not diagnosis.right
    assert diagnosis.bug.name == name
    assert CATALOGUE[name].symptom in diagnosis.message


def test_it_is_told_apart_on_other_weights_too(replayed):
    reference = small_model(seed=5)
    for entry in CATALOGUE.values():
        assert diagnose(BUILD(entry, reference), reference).bug is entry


def test_a_replay_gives_the_diagnoses_of_a_real_run(reference, replayed, monkeypatch):
    patients = [CATALOGUE["padding_counted"].model_class, Scaled]  # the last one, and none
    replays = [str(diagnose(built(patient, reference), reference)) for patient in patients]
    monkeypatch.undo()
    assert replays == [str(diagnose(built(patient, reference), reference)) for patient in patients]


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
def test_two_bugs_at_once_are_never_called_right(
    names, reference, few_cases, replayed, on_no_other_device
):
    classes = tuple(CATALOGUE[name].model_class for name in names)
    both = type("Both", classes, {})
    model = built(both, reference)
    assert not kv_evaluate(model, few_cases).all_passed
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
