"""Wrong for certain token ids only: one taken for padding, one that ends a text."""

import torch

from course_utils.attention import causal_mask

from .entry import model_of, reported
from .parts import MaskedAttention, SeenCache
from .uses import script


class HidesTokens(MaskedAttention):
    """Some tokens of the cache are hidden from those that come later."""

    def allowed(self, cache, stored, num_queries, num_keys):
        hidden = torch.zeros(cache.batch_size, num_keys, dtype=torch.bool, device=cache.seen.device)
        hidden[:, :stored] = self.hidden(cache.seen[:, :stored], cache.end_token)
        return (causal_mask(num_queries, num_keys, hidden.device) & ~hidden[:, None])[:, None]


class RemembersTokens:
    """A model whose caches remember the token ids; comes before another model's class."""

    def new_cache(self, batch_size):
        return SeenCache(self, batch_size)

    def forward(self, input_ids, past_kv=None, use_cache=False):
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        if use_cache:
            past_kv.seen = torch.cat([past_kv.seen, input_ids], dim=1)
        return logits, past_kv


def hiding(name, wrong, right):
    """Enter an attention class in a model whose caches remember the tokens."""

    def enter(cls):
        model_class = type(cls.__name__ + "Model", (RemembersTokens, model_of(cls)), {})
        model_class.__doc__ = cls.__doc__
        reported(name, wrong, right)(model_class)
        return cls

    return enter


@hiding("zero_taken_for_padding", script([3, 0, 5], 1), script(4, 1))
class ZeroTakenForPadding(HidesTokens):
    """Token 0 is taken for padding wherever it is, and hidden.

    Reported: a mask that is made from the ids, QwenLM/Qwen3#814.
    """

    def hidden(self, seen, end_token):
        return seen == 0


@hiding("end_token_left_out", script([3, 49, 5], 1), script(4, 1))
class EndTokenLeftOut(HidesTokens):
    """The token that ends a text is not kept, also if the text goes on.

    Reported: continuous decoding, microsoft/onnxruntime-genai#1814.
    """

    def hidden(self, seen, end_token):
        return seen == end_token


@hiding("end_token_empties", script([3, 49, 5], 1), script(4, 1))
class EndTokenEmpties(HidesTokens):
    """The token that ends a text empties the cache.

    Reported: chat programs (no address).
    """

    def hidden(self, seen, end_token):
        ends = (seen == end_token).flip(1).cumsum(1).flip(1)
        return ends > 0
