"""Every wrong cache of the catalogue is caught, told apart from all others, and named."""

import itertools
import random
import re

import nbformat
import pytest
import torch
from helpers import cases_for, random_ids, small_model

from course_utils import cache_bugs
from course_utils.cache_bugs import CATALOGUE, diagnose
from course_utils.evaluation import evaluate, in_portions, kv_evaluate, uncached
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.left_padding import LeftPaddedTransformer
from course_utils.transformer import ROOT, DecoderOnlyTransformer, attention_maps


@pytest.fixture(scope="module")
def reference():
    return small_model()


@pytest.fixture(scope="module")
def few_cases(reference):
    """Enough to see every wrong cache: two different rows of five tokens."""
    return cases_for(reference, [(2, 5)])


BUILD, OUTCOME = cache_bugs.CacheBug.build, cache_bugs._outcome


def built(model_class, reference):
    return BUILD(cache_bugs.CacheBug("", "", "", "", "", model_class), reference)


class Replay:
    """Takes the place of a model of the catalogue; remembers what that ran for earlier diagnoses.

    Every diagnosis asks each of them for the same probes in the same order, up to some probe.
    """

    known = {}

    def __init__(self, entry, reference):
        key = entry.name, reference.token_embedding.weight.sum().item()
        self.model, self.outcomes = self.known.setdefault(key, (BUILD(entry, reference), []))
        self.asked = 0

    def outcome(self, run):
        if self.asked == len(self.outcomes):
            self.outcomes.append(OUTCOME(run, self.model))
        self.asked += 1
        return self.outcomes[self.asked - 1]


@pytest.fixture
def replayed(monkeypatch):
    """Inside `diagnose`, the models of the catalogue are `Replay`s."""

    def outcome(run, model):
        return model.outcome(run) if isinstance(model, Replay) else OUTCOME(run, model)

    monkeypatch.setattr(
        cache_bugs.CacheBug, "build", lambda entry, reference: Replay(entry, reference)
    )
    monkeypatch.setattr(cache_bugs, "_outcome", outcome)


def test_there_are_at_least_twenty():
    assert len(CATALOGUE) >= 20


@pytest.mark.parametrize("name", CATALOGUE)
def test_it_is_right_without_a_cache_and_kv_evaluate_catches_it(name, reference, few_cases):
    assert evaluate(CATALOGUE[name].build(reference), few_cases).all_passed
    assert not kv_evaluate(CATALOGUE[name].build(reference), few_cases).all_passed


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
def test_two_bugs_at_once_are_never_called_right(names, reference, few_cases, replayed):
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


def test_a_rollback_and_padding_are_judged_only_where_they_are_offered(reference):
    def judged(model):
        return {result.name for result in kv_evaluate(model, cases_for(reference)).others}

    always = {"Filled to max_seq_len", "On another device"}
    assert judged(CATALOGUE["prompt_dropped"].build(reference)) == always
    assert judged(reference) == always | {"After a rollback"}
    padded = built(LeftPaddedTransformer, reference)
    assert judged(padded) == always | {"After a rollback", "Prompts of different length"}


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


class StaleTuples(cache_bugs.WithCache):
    cache_class = StaleTupleCache


def test_a_known_mistake_is_named_in_a_cache_without_rollback(reference):
    assert diagnose(built(StaleTuples, reference), reference).bug.name == "stale"


def test_notebook_04_says_what_each_probe_feeds(reference):
    notebook = nbformat.read(ROOT / "notebooks" / "04_kv_cache.ipynb", as_version=4)
    (table,) = re.findall(
        r"^\| way \|.*\n\|---\|---\|\n((?:\|.*\n)+)",
        "\n".join(cell.source for cell in notebook.cells),
        re.M,
    )
    ways = [line.split("|")[1].strip() for line in table.splitlines()]
    assert ways == list(cache_bugs.probes(reference))


def test_symptoms_say_from_where_on_it_is_wrong(reference):
    table = cache_bugs.symptoms(CATALOGUE["stale"].build(reference), reference)["the logits"]
    assert table["at once"] == "right"
    assert table["one by one"].startswith("differs from position 7 on")
    assert table["one by one from the start"].startswith("differs from position 2 on")
    leaking = cache_bugs.symptoms(CATALOGUE["leaks_into_the_next"].build(reference), reference)
    wrong = leaking["the logits"][leaking["the logits"] != "right"]
    assert list(wrong.index) == ["a second time", "two at the same time"]
    healthy = cache_bugs.symptoms(reference, reference)["the logits"]
    assert (healthy == "right").all()


def test_looks_are_the_attention_weights(reference):
    ids = random_ids(1, 9)
    whole = attention_maps(reference, ids).mean((0, 1))
    for portions in ((9,), (4, 1, 1, 1, 1, 1), (5, 4)):
        rows = cache_bugs.looks(reference, ids, portions)
        assert [len(row) for row in rows[: portions[0]]] == [portions[0]] * portions[0]
        for position, row in enumerate(rows):
            seen = row[: position + 1]
            assert torch.allclose(seen, whole[position, : position + 1], 0, 1e-12)
            assert row[position + 1 :].abs().sum() == 0


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
    for probe, names in (
        ("after a rollback", {"rollback_of_one_layer", "rollback_keeps_position"}),
        ("prompts of different length", {"padding_in_sight", "padding_counted"}),
        ("on another device", {"cache_on_the_cpu"}),
    ):
        assert {name for name, c in seen.items() if c[probe] and sum(c.values()) == 1} == names
