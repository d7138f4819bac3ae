"""Caches in the wild: right ones are never accused, wrong ones are refused and named."""

import pytest
import torch

from course_utils.evaluation import Feed, New, Reorder, Report, Result, RollBack, feeds, lane_in
from course_utils.evaluation.trial import Trial
from course_utils.going_further import wild
from course_utils.going_further.wild import mistakes
from course_utils.going_further.wild.installed import library, module

RIGHT = ("llama", "gpt2", "mistral", "gemma2", "lfm2")
USES = {
    "chunks over the window": feeds(5, 2, 1, 9, 3, 1),
    "one by one": feeds(*(1,) * 12),
    "rows": [New(3), Feed(4), Reorder((2, 0, 1)), Feed(1), Reorder((1, 1)), Feed(2)],
    "guesses": [New(1), Feed(6), RollBack(3), Feed(1, 1), Feed(1)],
    "padding": [New(2, (0, 3)), Feed(5), Feed(1), Feed(3)],
    "padding, rows": [New(3, (0, 3, 5)), Feed(8), Reorder((2, 0, 1)), Feed(1), Feed(1)],
}


def played(model, measured=None):
    """What comes of each of the uses on a model: None where it is right."""
    measured = measured or wild.measure(model)
    model.pads = measured.pads
    lane = lane_in(model, tolerance=measured.tolerance)
    return {name: lane.play(script).problem for name, script in uses(model).items()}


def uses(model):
    """Those of the uses that a model can be put to."""
    return {name: some for name, some in USES.items() if model.pads or "padding" not in name}


def small(name, seed=0, **use):
    return wild.Adapted(wild.small_model(name, seed=seed), wild.Use(**use), room=40)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", RIGHT)
def test_right_caches_are_not_accused(name, seed):
    assert set(played(small(name, seed)).values()) == {None}


@pytest.mark.parametrize("cache", ["dynamic", "growing", "recording", "static"])
def test_every_kind_of_cache_is_right_for_llama(cache):
    assert set(played(small("llama", cache=cache)).values()) == {None}


def wants_an_image(plain, **given):
    raise ValueError("expected pixel_values")


def lacks_memory(plain, **given):
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")


def writes_on_a_canvas(plain, **given):
    out = plain(**given)
    out.logits = out.logits[:, -1:].expand(-1, 256, -1)
    return out


def loses_everything_in_float32(plain, **given):
    out = plain(**given)
    if out.logits.dtype == torch.float32:
        out.logits = 100 * out.logits
    return out


NO_MEASURE = {
    wants_an_image: "a call with words alone fails: ValueError: expected pixel_values",
    writes_on_a_canvas: "tokens have logits in 256 rows; expected a row for each token",
    loses_everything_in_float32: "float32 moves its logits by .* and they spread by .* only",
}


@pytest.mark.parametrize("change", [*NO_MEASURE, lacks_memory], ids=lambda change: change.__name__)
def test_a_model_without_an_uncached_pass_is_not_judged(change):
    model = small("llama")
    plain = type(model.model)
    forward = {"forward": lambda self, **given: change(super(changed, self).forward, **given)}
    changed = model.model.__class__ = type(plain.__name__, (plain,), forward)
    refused = pytest.raises(wild.Unfit, match=NO_MEASURE.get(change))
    with refused if change in NO_MEASURE else pytest.raises(RuntimeError, match="memory"):
        wild.measure(model)


@pytest.mark.parametrize("name", ["llama", "bloom", "lfm2", "falcon_h1"])
def test_a_static_cache_gets_the_mask_that_generate_would_make(name):
    """Bloom wants one as long as the cache, a state one of the tokens so far, Falcon both."""
    assert set(played(small(name, cache="static")).values()) == {None}


def test_a_rollback_past_the_window_is_offered_where_the_past_is_kept():
    script = [New(1), Feed(14), RollBack(11), Feed(1, 1), Feed(2)]
    plain, recording = small("mistral"), small("mistral", cache="recording")
    assert not lane_in(plain, tolerance=1e-4).play(script).offered
    outcome = lane_in(recording, tolerance=1e-4).play(script)
    assert outcome.offered and outcome.problem is None


@pytest.mark.parametrize("name", ["mistral", "lfm2"])
def test_a_recorded_past_is_gone_after_a_rollback(name):
    """The library's layers keep after `crop` what the next call needs: a second one is too much."""
    lane = lane_in(small(name, cache="recording"), tolerance=1e-4)
    begin = [New(1), Feed(14), RollBack(11), Feed(2, 1)]
    assert not lane.play([*begin, RollBack(9), Feed(1)]).offered
    outcome = lane.play([*begin, RollBack(12), Feed(1), Feed(2)])
    assert outcome.offered and outcome.problem is None


def with_layers(kind, layer_class, **arguments):
    """A class of the library's whose own cache has layers of this class."""

    class Planted(kind):
        def forward(self, input_ids=None, past_key_values=None, use_cache=None, **more):
            if use_cache and past_key_values is None:
                number = self.config.num_hidden_layers
                layers = [layer_class(**arguments) for _ in range(number)]
                past_key_values = module("cache_utils").Cache(layers=layers)
            more |= {"past_key_values": past_key_values, "use_cache": use_cache}
            return super().forward(input_ids, **more)

    return Planted


def short_window():
    cache = module("cache_utils")
    kind = with_layers(
        library().MistralForCausalLM, cache.DynamicSlidingWindowLayer, sliding_window=7
    )
    return "mistral", kind


def greedy_crop():
    class Greedy(module("cache_utils").DynamicLayer):
        def crop(self, tokens_to_remove):
            super().crop(min(tokens_to_remove + 1, 0))

    return "llama", with_layers(library().LlamaForCausalLM, Greedy)


def keys_only():
    class KeysOnly(module("cache_utils").DynamicLayer):
        def reorder_cache(self, beam_idx):
            self.keys = self.keys[beam_idx]

        def batch_select_indices(self, indices):
            self.keys, self.values = self.keys[indices], self.values[[0] * len(indices)]

    return "llama", with_layers(library().LlamaForCausalLM, KeysOnly)


def from_zero():
    class FromZero(library().LlamaForCausalLM):
        def forward(self, input_ids=None, past_key_values=None, position_ids=None, **more):
            position_ids = torch.arange(input_ids.size(1)).expand_as(input_ids)
            more |= {"past_key_values": past_key_values, "position_ids": position_ids}
            return super().forward(input_ids, **more)

    return "llama", FromZero


def deaf_to_padding():
    class Deaf(library().LlamaForCausalLM):
        def forward(self, input_ids=None, past_key_values=None, attention_mask=None, **more):
            if past_key_values is not None and past_key_values.get_seq_length():
                attention_mask = None
            more |= {"past_key_values": past_key_values, "attention_mask": attention_mask}
            return super().forward(input_ids, **more)

    return "llama", Deaf


def short_mask():
    class ShortMask(library().StaticCache):
        def get_query_offset(self, layer_idx=0):
            return max(self.get_seq_length(layer_idx) - 1, 0)

    class Planted(library().LlamaForCausalLM):
        def forward(self, input_ids=None, past_key_values=None, use_cache=None, **more):
            if use_cache and past_key_values is None:
                past_key_values = ShortMask(config=self.config, max_cache_len=40)
            more |= {"past_key_values": past_key_values, "use_cache": use_cache}
            return super().forward(input_ids, **more)

    return "llama", Planted


PLANTED = {
    "window_one_short": (short_window, "chunks over the window"),
    "crop_keeps_one": (greedy_crop, "guesses"),
    "reorder_leaves_values": (keys_only, "rows"),
    "positions_from_zero": (from_zero, "one by one"),
    "padding_ignored": (deaf_to_padding, "padding"),
    "mask_one_short": (short_mask, "one by one"),
}


def planted(name):
    """A model with a mistake, adapted; and its trial, in which the uses were played."""
    type_name, kind = PLANTED[name][0]()
    model = wild.small_model(type_name)
    model.__class__ = kind
    model = wild.Adapted(model, room=40)
    measured = wild.measure(model)
    model.pads = measured.pads
    trial = Trial(model, False, measured.tolerance)
    return model, trial, trial.judge(Result("uses", ""), uses(model))


@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_cache_is_refused_and_named(name):
    model, trial, result = planted(name)
    assert any(problem.startswith(PLANTED[name][1] + ":") for problem in result.problems)
    report = Report("", 0.0, [], [result], trial.smallest(), trial)
    assert mistakes.named(report, model).name == name


def test_another_mistake_is_not_named():
    """A cache that forgets all: none of those that have a name."""

    class Forgetful(module("cache_utils").DynamicLayer):
        def update(self, key_states, value_states, *rest, **more):
            super().update(key_states, value_states)
            self.values = torch.zeros_like(self.values)
            return self.keys, self.values

    model = wild.small_model("llama")
    model.__class__ = with_layers(library().LlamaForCausalLM, Forgetful)
    model = wild.Adapted(model, room=40)
    trial = Trial(model, False, wild.measure(model).tolerance)
    result = trial.judge(Result("uses", ""), uses(model))
    assert result.problems
    assert mistakes.named(Report("", 0.0, [], [result], None, trial), model) is None
