"""Wrong models and loops that students write to notebook 04: each is told what is wrong with it."""

import pytest
import torch

from course_utils import cache_bugs, checks
from course_utils.generation import next_token
from course_utils.kv_cache import GrowingCache
from course_utils.transformer import DecoderOnlyTransformer


class NoCacheReturned(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        return logits, None


class AlwaysACache(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        return super().forward(input_ids, past_kv, True)


class OneTooFar(DecoderOnlyTransformer):
    def embed(self, input_ids, start=0):
        return super().embed(input_ids, start + (start > 0))


class CacheNotHandedOn(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        past_kv = past_kv or (self.new_cache(1) if use_cache else None)
        x = self.embed(input_ids, past_kv.length if past_kv else 0)
        if past_kv:
            past_kv.lengths[0] += input_ids.size(1)
        for layer in self.layers:
            x = layer(x)
        return self.output_projection(self.norm(x)), past_kv


class LayerNotNumbered(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        past_kv = past_kv or (GrowingCache(self, 1) if use_cache else None)
        x = self.embed(input_ids, past_kv.length if past_kv else 0)
        for layer in self.layers:
            x = layer(x, past_kv)
        return self.output_projection(self.norm(x)), past_kv


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (cache_bugs.NoPositionOffset, "starts at position 0 again"),
        (cache_bugs.NoMaskOffsetModel, "Identical to `no_mask_offset`"),
        (cache_bugs.PromptDropped, "Identical to `prompt_dropped`"),
        (cache_bugs.WholeSequenceAgain, "Identical to `whole_text_again`"),
        (NoCacheReturned, "returned no cache although use_cache=True"),
        (AlwaysACache, "returned a cache although use_cache=False"),
        (OneTooFar, "Fed in chunks of \\(7, 1.*wrong from position 1 on"),
        (CacheNotHandedOn, "Each chunk sees only itself"),
        (LayerNotNumbered, "output of layer 2 is the first that is off"),
    ],
)
def test_wrong_model(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_cached_model(cls)


def loop(feed, keep=True):
    def answer(model, ids, new, use_cache, past_kv=None, stop_token=None, **sampling):
        text = ids
        for _ in range(new):
            logits, found = model(ids, past_kv=past_kv, use_cache=use_cache)
            past_kv = found if keep else None
            token = next_token(logits[:, -1], **sampling)
            text = torch.cat([text, token[:, None]], dim=1)
            yield token
            ids = feed(text, token[:, None], use_cache)

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (loop(lambda text, token, cached: token), "use_cache=False the model was run on \\[5, 1"),
        (loop(lambda text, token, cached: text[:, -2:]), "run on \\[5, 2, 2"),
        (loop(lambda text, token, cached: token if cached else text, keep=False), "a greedy token"),
        (
            loop(lambda text, token, cached: token.flip(0) if cached else text),
            "use_cache=True, a greedy token",
        ),
        (
            loop(lambda text, token, cached: text[:, :1] if cached else text),
            "use_cache=True, a greedy token",
        ),
    ],
)
def test_wrong_loop(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_decode_loop(answer)


def test_a_loop_that_feeds_everything_again_is_told_what_it_fed():
    with pytest.raises(AssertionError, match="run on \\[5, 6, 7\\] tokens, expected \\[5, 1, 1"):
        checks.check_decode_loop(loop(lambda text, token, cached: text))


def test_a_model_that_returns_its_logits_alone():
    class LogitsAlone(DecoderOnlyTransformer):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)[0]

    with pytest.raises(AssertionError, match="returns two things"):
        checks.check_cached_model(LogitsAlone)


def test_the_right_model_passes():
    checks.check_cached_model(DecoderOnlyTransformer)
