"""The harness sees every wrong cache, names the first wrong position, and trusts a right one."""

import copy
import threading

import pytest
import torch
from helpers import SMALL, cases_for, random_ids, small_model

from course_utils import evaluation
from course_utils.cache_bugs import CATALOGUE
from course_utils.evaluation import (
    Feed,
    Generate,
    New,
    evaluate,
    first_difference,
    in_chunks,
    kv_evaluate,
    replay,
    trial,
    uncached,
    words,
)
from course_utils.evaluation.lane import lane_in
from course_utils.evaluation.systematic import generations
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.left_padding import LeftPaddedTransformer
from course_utils.transformer import DecoderOnlyTransformer

pytestmark = pytest.mark.authors

FIRST_WRONG = {
    "positions_restart": ((4, 1, 1, 1), 4),
    "no_mask_offset": ((4, 1, 1, 1), 4),
    "mask_one_too_far": ((4, 3), 4),
    "self_excluded": ((4, 1, 1, 1), 4),
    "whole_text_again": ((4, 1, 1, 1), 4),
    "prompt_dropped": ((4, 1, 1, 1), 4),
    "values_not_cached": ((4, 1, 1, 1), 4),
    "one_layer_for_all": ((7,), 0),
    "stale": ((4, 1, 1, 1), 5),
    "keys_before_position": ((4, 1, 1, 1), 4),
    "append_unmasked": ((4, 3), 4),
}


def wrong_pair(name, seed=0):
    right = small_model(seed=seed)
    return right, CATALOGUE[name].build(right)


@pytest.mark.parametrize("name", ["positions_restart", "no_mask_offset"])
def test_the_whole_prompt_through_an_empty_cache_shows_nothing(name):
    """The assignment's own check: these two are the README's examples of what passes it."""
    right, wrong = wrong_pair(name)
    for case in cases_for(right):
        found = in_chunks(wrong, case.input_ids, (case.input_ids.size(1),))
        assert first_difference(case.with_cache, found, 1e-9) is None


@pytest.mark.parametrize("name", FIRST_WRONG)
def test_first_wrong_position_is_named(name):
    right, wrong = wrong_pair(name)
    chunks, position = FIRST_WRONG[name]
    ids = random_ids(1, 7)
    difference = first_difference(uncached(right, ids), in_chunks(wrong, ids, chunks), 1e-9)
    assert difference.position == position
    problems = kv_evaluate(wrong, cases_for(right, [(1, 7)]), stop=True).problems
    assert any(f"first differs at position {position} of row 0" in p for p in problems)


def test_shared_rows_show_in_the_second_row_only():
    right, wrong = wrong_pair("rows_shared")
    ids = random_ids(2, 7)
    difference = first_difference(uncached(right, ids), in_chunks(wrong, ids, (4, 1, 1, 1)), 1e-9)
    assert (difference.row, difference.position) == (1, 0)
    result = kv_evaluate(wrong, cases_for(right, [(1, 7)]), stop=True).cases[0]
    assert len(result.problems) == 1
    assert "in a batch with other rows: first differs at position 0 of row 1" in result.problems[0]


def test_a_leak_shows_in_the_second_generation():
    right, wrong = wrong_pair("leaks_into_the_next")
    ids = random_ids(1, 7)
    chunks = (4, 1, 1, 1)
    assert first_difference(uncached(right, ids), in_chunks(wrong, ids, chunks), 1e-9) is None
    again = first_difference(uncached(right, ids), in_chunks(wrong, ids, chunks), 1e-9)
    assert again.position == 0


def with_cache(kind):
    class Own(DecoderOnlyTransformer):
        def new_cache(self, batch_size):
            return kind(self, batch_size)

    return Own


@pytest.mark.sampled(7)
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("cache", [GrowingCache, PreallocatedCache])
def test_no_false_alarm(cache, seed):
    shape = {"num_heads": (1, 2, 4)[seed % 3], "num_layers": 1 + seed % 3}
    model = small_model(with_cache(cache), seed=seed, **shape)
    cases = cases_for(model, [(1, 1), (1 + seed % 3, 2 + seed % 7)], seed=100 * seed)
    report = kv_evaluate(model, cases)
    assert report.all_passed, report
    assert report.smallest is None


class OneCacheForTheModel(DecoderOnlyTransformer):
    """The cache is the model's own and emptied for each new generation: fine, one at a time."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        if past_kv is None:
            self.kept = GrowingCache(self, input_ids.size(0))
        return super().forward(input_ids, self.kept, use_cache)[0], "kept by the model"


class PositionLeaks(DecoderOnlyTransformer):
    """The position reached by the last cached call is where the next uncached call starts."""

    reached = 0

    def embed(self, input_ids, start=0):
        return super().embed(input_ids, start or self.reached)

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if use_cache:
            self.reached = 0
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        self.reached = past_kv.length % 2 if use_cache else 0
        return logits, past_kv


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (OneCacheForTheModel, "two generations at the same time: first differs at position 1"),
        (PositionLeaks, "without cache, after cached calls: first differs at position 0"),
    ],
)
def test_state_shared_between_calls_is_seen(cls, words):
    right, wrong = small_model(), small_model(cls)
    problems = kv_evaluate(wrong, cases_for(right, [(1, 7)]), stop=True).problems
    assert any(words in problem for problem in problems), problems


class Silent(DecoderOnlyTransformer):
    """Past `max_seq_len` it wraps round instead of raising."""

    def check_input(self, input_ids, past_kv, use_cache):
        pass

    def embed(self, input_ids, start=0):
        positions = torch.arange(start, start + input_ids.size(1)) % self.max_seq_len
        return self.token_embedding(input_ids) + self.pos_embedding(positions)

    def new_cache(self, batch_size):
        return GrowingCache(self, batch_size)


def test_one_token_too_many_must_raise():
    model = small_model(Silent)
    report = kv_evaluate(model, cases_for(model))
    assert report.num_passed == 3
    assert not report.all_passed
    assert "token 25 on a full cache: no error was raised" in " ".join(report.problems)


class SilentAfterOnePrefill(Silent):
    """It wraps round only where a prefill has filled all the room at once."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        at_once = past_kv is not None and getattr(past_kv, "at_once", False)
        if not at_once:
            super(Silent, self).check_input(input_ids, past_kv, use_cache)
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        if past_kv is not None:
            past_kv.at_once = at_once or input_ids.size(1) == self.max_seq_len
        return logits, past_kv


def test_a_cache_that_was_filled_at_once_must_refuse_one_token_more():
    model = small_model(SilentAfterOnePrefill)
    report = kv_evaluate(model, cases_for(model, [(1, 3)]))
    filled = next(result for result in report.others if result.name == "Filled to max_seq_len")
    assert filled.problems == [
        "token 25 on a full cache: no error was raised; expected one that says the sequence is too "
        "long"
    ]
    assert words(report.smallest.script) == "prefill 24, then 1 token"


class OnlyLastLogits(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        return (logits[:, -1:] if use_cache else logits), past_kv


class Raises(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if past_kv is not None:
            raise RuntimeError("size mismatch")
        return super().forward(input_ids, past_kv, use_cache)


class NaN(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        return (logits * float("nan") if use_cache else logits), past_kv


class SamplesTheWrongToken(DecoderOnlyTransformer):
    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True):
        ids = super().generate(input_ids, max_new_tokens, 0, use_cache)
        new = ids[:, input_ids.size(1) :]
        return torch.cat([input_ids, new.roll(1, dims=1)], dim=1) if use_cache else ids


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (OnlyLastLogits, "only the new tokens go in, and only theirs come out"),
        (Raises, "RuntimeError: size mismatch"),
        (NaN, "by inf"),
        (SamplesTheWrongToken, "generate with use_cache=True: first differs at position"),
    ],
)
def test_other_faults_are_named(cls, words):
    right, wrong = small_model(), small_model(cls)
    report = kv_evaluate(wrong, cases_for(right, [(1, 7)]), stop=True)
    assert not report.all_passed
    assert words in " ".join(report.problems)


def test_wrong_weights_fail_evaluate_and_kv_evaluate():
    cases = cases_for(small_model(seed=0))
    other = small_model(seed=1)
    assert evaluate(other, cases).num_passed == 0
    assert kv_evaluate(other, cases).num_passed == 0


@pytest.mark.parametrize("room", [1, 2, 3, 4])
def test_a_right_cache_with_hardly_any_room_passes(room):
    model = small_model(max_seq_len=room)
    report = kv_evaluate(model, cases_for(model, shapes=((1, 1),)))
    assert report.all_passed, report.problems


class FewCaches(DecoderOnlyTransformer):
    most, made = 9, 0

    def new_cache(self, batch_size):
        self.made += 1
        if self.made > self.most:
            raise RuntimeError("there is no room for another text")
        return super().new_cache(batch_size)


class WithoutGradients(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if use_cache and torch.is_grad_enabled():
            raise RuntimeError("not with gradients")
        return super().forward(input_ids, past_kv, use_cache)


class WrongAfterARefusal(DecoderOnlyTransformer):
    refused = False

    def forward(self, input_ids, past_kv=None, use_cache=False):
        try:
            logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        except ValueError:
            self.refused = True
            raise
        return logits + self.refused, past_kv


def test_with_many_caches_with_gradients_and_after_a_refusal_less_is_asked():
    many = [step for name in "ABCDEFGHIJ" for step in (New(cache=name), Feed(1, cache=name))]
    assert replay(small_model(FewCaches), many).problem is None
    few = small_model(FewCaches)
    few.most = 8
    assert "no room for another text" in replay(few, many).problem

    model = small_model(WithoutGradients)
    assert replay(model, [New(), Feed(2, carelessly=True), Feed(1)]).problem is None

    model = small_model(WrongAfterARefusal)
    too_many = [New(), Feed(3), Feed(SMALL["max_seq_len"])]
    assert replay(model, [*too_many, Feed(1)]).problem is None
    assert replay(model, [*too_many, New(), Feed(1)]).problem is not None


def test_what_is_not_offered_is_not_judged_and_said_so():
    reference = small_model()

    def left_out(model):
        report = kv_evaluate(model, cases_for(model, [(1, 1)]))
        return {result.name: result.not_judged for result in report.others if result.not_judged}

    padding = {"Prompts of different length": "the model has no `padded_cache`"}
    rollback = {"After a rollback": "the cache has no `truncate`"}
    rows = {"Rows reordered": "the cache has no `reorder`"}
    assert left_out(reference) == padding
    assert left_out(small_model(LeftPaddedTransformer)) == {}
    found = left_out(CATALOGUE["prompt_dropped"].build(reference))
    other = dict.fromkeys(("In bfloat16", "In float16"), "something is wrong already")
    assert found == padding | rollback | rows | other


class Unfinished(GrowingCache):
    def reorder(self, rows):
        raise NotImplementedError


def test_a_stub_is_not_offered():
    model = small_model(with_cache(Unfinished))
    report = kv_evaluate(model, cases_for(model, [(1, 1)]))
    assert report.all_passed
    (reordered,) = [result for result in report.others if result.name == "Rows reordered"]
    assert reordered.word == "not judged, because the cache has no `reorder`"


def test_a_verdict_repeats():
    wrong = CATALOGUE["heads_mixed_up"].build(small_model())
    reports = [kv_evaluate(wrong, cases_for(small_model(), [(1, 3)])) for _ in range(2)]
    assert str(reports[0]) == str(reports[1])
    assert reports[0].smallest.script == reports[1].smallest.script


def test_the_smallest_failing_use_is_shown_and_can_be_played_again():
    wrong = CATALOGUE["stale"].build(small_model())
    report = kv_evaluate(wrong, cases_for(small_model(), [(1, 7)]))
    assert report.smallest.line == "replay(model, [New(), Feed(1), Feed(1), Feed(1)])"
    found = eval(report.smallest.line, {**vars(evaluation), "model": wrong})
    assert str(found).startswith("wrong from position 2 on, by")
    assert f"  Again: {report.smallest.line}" in str(report).splitlines()
    shown = (
        "  Smallest failing use: 3 tokens, 1 at a time from an empty cache: wrong from position 2"
    )
    assert shown in str(report)


def test_thorough_draws_ten_times_as_many(monkeypatch):
    numbers = []

    def search(fails, offers, room, number, *rest):
        numbers.append(number)
        fails([New(), Feed(1)])

    monkeypatch.setattr(trial, "search", search)
    for thorough in (False, True):
        kv_evaluate(small_model(), cases_for(small_model(), [(1, 1)]), thorough=thorough)
    assert numbers == [60, 12, 600, 120]


def test_a_brief_judgement_plays_fewer_scripts_and_all_that_generate():
    """Tokens tell less than logits: from wrong positions often comes the same likeliest token."""
    lists = dict.fromkeys((False, True))
    for brief in lists:
        report = kv_evaluate(small_model(), [], brief=brief)
        lists[brief] = [p.script for p in report.trial.played if p.lane is report.trial.main]
    generating = [s for s in lists[False] if any(isinstance(step, Generate) for step in s)]
    systematic = generating[: len(list(generations(SMALL["max_seq_len"])))]
    assert len(systematic) > 15
    assert all(script in lists[True] for script in systematic)
    assert len(lists[True]) < len(lists[False]) / 2


class In16Bits(DecoderOnlyTransformer):
    """Its buffers are registered, so that `.double()` makes them exact."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("precision", torch.zeros(1, dtype=torch.float16))

    def new_cache(self, batch_size):
        cache = GrowingCache(self, batch_size)
        append, dtype = cache.append, self.precision.dtype

        def rounded(layer, k, v):
            return append(layer, k.to(dtype).to(k.dtype), v.to(dtype).to(v.dtype))

        cache.append = rounded
        return cache


def test_what_double_would_hide_is_seen_in_the_models_own_dtype():
    model = small_model(In16Bits, dtype=torch.float32)
    model.precision = model.precision.half()
    report = kv_evaluate(model, cases_for(small_model(In16Bits), [(1, 3)]))
    assert not report.all_passed
    assert report.smallest.line.endswith("torch.float32)")


class KeptInFloat32(GrowingCache):
    def append(self, layer, k, v):
        found = super().append(layer, k.float(), v.float())
        return tuple(stored.to(k.dtype) for stored in found)

    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.keys, self.values = ([t.float() for t in part] for part in (self.keys, self.values))


def test_a_cache_kept_in_float32_is_judged_in_float32_if_the_model_is():
    model = small_model(with_cache(KeptInFloat32), dtype=torch.float32)
    report = kv_evaluate(model, cases_for(model, [(1, 3)]))
    assert report.all_passed, report
    (exact,) = [result for result in report.others if result.name == "In float64"]
    assert exact.not_judged == "the cache keeps float32, whatever the model's dtype"
    assert not kv_evaluate(model.double(), cases_for(model, [(1, 3)]), stop=True).all_passed


class Locked(DecoderOnlyTransformer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lock = threading.Lock()


def test_a_model_that_cannot_be_copied_is_judged():
    model = small_model(Locked)
    with pytest.raises(TypeError):
        copy.deepcopy(model)
    assert kv_evaluate(model, cases_for(model, [(1, 3)])).all_passed


def test_the_model_comes_back_as_it_went_in():
    model = small_model(dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attributes = set(vars(model))
    model.train()
    kv_evaluate(model, cases_for(model, [(1, 3)]))
    assert model.training
    assert set(vars(model)) == attributes
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


class PackedBefore(DecoderOnlyTransformer):
    """With a cache it uses a copy of its last bias, made when the weights were loaded."""

    packed = None

    def forward(self, input_ids, past_kv=None, use_cache=False):
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        if use_cache and self.packed is not None:
            logits = logits - self.output_projection.bias + self.packed
        return logits, past_kv


@pytest.mark.parametrize("packed", [False, True])
def test_the_other_model_has_other_weights_unless_the_class_is_wrong_with_them(packed):
    model = small_model(PackedBefore, dtype=torch.float64)
    if packed:
        model.packed = model.output_projection.bias.detach().clone()
    lane = lane_in(model)
    bias = lane.another().output_projection.bias
    assert torch.equal(bias, model.output_projection.bias) == packed
    in_turns = [New(), New(cache="B", twin=True), Feed(3), Feed(3, 1, "B"), Feed(1)]
    assert lane.play(in_turns).problem is None
