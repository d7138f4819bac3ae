"""The harness sees every wrong cache, names the first wrong position, and trusts a right one."""

import pytest
import torch
from helpers import cases_for, random_ids, small_model

from course_utils.cache_bugs import CATALOGUE
from course_utils.evaluation import evaluate, first_difference, in_portions, kv_evaluate, uncached
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.left_padding import LeftPaddedTransformer
from course_utils.transformer import DecoderOnlyTransformer

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
        found = in_portions(wrong, case.input_ids, (case.input_ids.size(1),))
        assert first_difference(case.with_cache, found, 1e-9) is None


@pytest.mark.parametrize("name", FIRST_WRONG)
def test_first_wrong_position_is_named(name):
    right, wrong = wrong_pair(name)
    portions, position = FIRST_WRONG[name]
    ids = random_ids(1, 7)
    difference = first_difference(uncached(right, ids), in_portions(wrong, ids, portions), 1e-9)
    assert difference.position == position
    problems = kv_evaluate(wrong, cases_for(right, [(1, 7)])).problems
    assert any(f"first differs at position {position} of row 0" in p for p in problems)


def test_shared_rows_show_in_the_second_row_only():
    right, wrong = wrong_pair("rows_shared")
    ids = random_ids(2, 7)
    difference = first_difference(uncached(right, ids), in_portions(wrong, ids, (4, 1, 1, 1)), 1e-9)
    assert (difference.row, difference.position) == (1, 0)
    problems = kv_evaluate(wrong, cases_for(right, [(1, 7)])).problems
    assert len(problems) == 1
    assert "in a batch with other rows: first differs at position 0 of row 1" in problems[0]


def test_a_leak_shows_in_the_second_generation():
    right, wrong = wrong_pair("leaks_into_the_next")
    ids = random_ids(1, 7)
    portions = (4, 1, 1, 1)
    assert first_difference(uncached(right, ids), in_portions(wrong, ids, portions), 1e-9) is None
    again = first_difference(uncached(right, ids), in_portions(wrong, ids, portions), 1e-9)
    assert again.position == 0


def with_cache(kind):
    class Own(DecoderOnlyTransformer):
        def new_cache(self, batch_size):
            return kind(self, batch_size)

    return Own


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("cache", [GrowingCache, PreallocatedCache])
def test_no_false_alarm(cache, seed):
    shape = {"num_heads": (1, 2, 4)[seed % 3], "num_layers": 1 + seed % 3}
    model = small_model(with_cache(cache), seed=seed, **shape)
    cases = cases_for(model, [(1, 1), (1 + seed % 3, 2 + seed % 7)], seed=100 * seed)
    report = kv_evaluate(model, cases)
    assert report.all_passed, report


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
    problems = kv_evaluate(wrong, cases_for(right, [(1, 7)])).problems
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
    assert report.problems == [
        "Filled to max_seq_len: token 25 on a full cache: no error was raised; expected one that "
        "says the sequence is too long"
    ]


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
        return ids.roll(1, dims=1) if use_cache else ids


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
    report = kv_evaluate(wrong, cases_for(right, [(1, 7)]))
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


def test_a_rollback_and_padding_are_judged_only_where_they_are_offered():
    reference = small_model()
    cases = cases_for(reference, [(1, 1)])

    def judged(model):
        return {result.name for result in kv_evaluate(model, cases).others}

    always = {"Filled to max_seq_len", "On another device"}
    assert judged(CATALOGUE["prompt_dropped"].build(reference)) == always
    assert judged(reference) == always | {"After a rollback"}
    assert judged(small_model(LeftPaddedTransformer)) == always | {
        "After a rollback",
        "Prompts of different length",
    }
