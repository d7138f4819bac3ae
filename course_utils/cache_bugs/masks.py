"""Wrong caches: new tokens see too much, or too little (notebook 05)."""

import torch

from ..attention import MultiHeadAttention, attention
from .entry import SOLUTION, TEACHING, CacheBug, bug
from .models import WithAttention

BUGS: list[CacheBug] = []


class WrongAttention(MultiHeadAttention):
    """An attention layer that masks wrongly when there are more keys than queries."""

    def wrong_mask(self, num_queries, num_keys):
        raise NotImplementedError

    def attend(self, q, k, v):
        num_queries, num_keys = q.size(-2), k.size(-2)
        if num_queries == num_keys:
            return super().attend(q, k, v)
        mask = self.wrong_mask(num_queries, num_keys)
        return attention(q, k, v, None if mask is None else mask.to(q.device))


def shifted_mask(num_queries, num_keys, shift):
    """The right mask with every query seeing `shift` keys more (or fewer)."""
    offset = num_keys - num_queries + shift
    return torch.ones(num_queries, num_keys, dtype=torch.bool).tril(offset)


class NoMaskOffset(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        return shifted_mask(num_queries, num_keys, num_queries - num_keys)


@bug(
    BUGS,
    "no_mask_offset",
    "the triangle of the mask starts at the first key",
    "a new token sees only the first key",
    "the shape of your mask when one query meets six keys: the last row, not the first",
    SOLUTION,
)
class NoMaskOffsetModel(WithAttention):
    attention_class = NoMaskOffset


class MaskOneTooFar(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        return shifted_mask(num_queries, num_keys, 1)


@bug(
    BUGS,
    "mask_one_too_far",
    "each new token sees one key too many",
    "right as long as tokens come one by one; in a chunk, each sees the next one",
    "the last of several queries sees all keys, the one before it one fewer",
)
class MaskOneTooFarModel(WithAttention):
    attention_class = MaskOneTooFar


class MaskOneTooShort(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        return shifted_mask(num_queries, num_keys, -1)


@bug(
    BUGS,
    "self_excluded",
    "each new token sees one key too few: not its own",
    "decoded tokens attend to everything but themselves, and answers may still be right",
    "k and v of the new token are stored before its query attends",
    TEACHING,
)
class MaskOneTooShortModel(WithAttention):
    attention_class = MaskOneTooShort


class UnmaskedAppend(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        return None


@bug(
    BUGS,
    "append_unmasked",
    "no mask at all when there is a cache",
    "right as long as tokens come one by one; in a chunk, each sees those after it",
    "several new tokens need a mask of several rows",
    TEACHING,
)
class UnmaskedAppendModel(WithAttention):
    attention_class = UnmaskedAppend


class MaskColumns(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        square = torch.ones(num_keys, num_keys, dtype=torch.bool).tril()
        return square[:, num_keys - num_queries :].T


@bug(
    BUGS,
    "mask_columns",
    "the mask is cut along the keys instead of the queries",
    "a new token sees itself and nothing before it",
    "take the last Q rows of the square mask, not its last Q columns",
    TEACHING,
)
class MaskColumnsModel(WithAttention):
    attention_class = MaskColumns


class MaskInverted(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        return ~shifted_mask(num_queries, num_keys, 0)


@bug(
    BUGS,
    "mask_inverted",
    "with a cache, True and False of the mask are exchanged",
    "a single new token sees nothing at all: NaN",
    "whether your mask says 'may look' or 'may not look', and who reads it",
    TEACHING,
)
class MaskInvertedModel(WithAttention):
    attention_class = MaskInverted


class MaybeUnmasked(MultiHeadAttention):
    unmasked = False

    def attend(self, q, k, v):
        return attention(q, k, v) if self.unmasked else super().attend(q, k, v)


@bug(
    BUGS,
    "prefill_unmasked",
    "the prefill runs without a mask",
    "the tokens of the prompt have seen what comes after them, and so have their cached keys",
    "the first cached call needs the same square mask as an uncached one",
)
class PrefillUnmasked(WithAttention):
    attention_class = MaybeUnmasked

    def forward(self, input_ids, past_kv=None, use_cache=False):
        for layer in self.layers:
            layer.attention.unmasked = use_cache and past_kv is None
        return super().forward(input_ids, past_kv, use_cache)
