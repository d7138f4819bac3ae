"""Attention with a cache that goes wrong as students' does, and what to say (notebook 04)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..attention import KeyValueStore, MultiHeadAttention, attention, causal_mask

Pair = tuple[Tensor, Tensor]
Through = Callable[[KeyValueStore, int, Tensor, Tensor, Tensor], Pair]


class _Wrong(MultiHeadAttention):
    """The course's, with what may go wrong in `forward` as functions and names."""

    matrices = "qkv"
    projected = projected_cached = True
    before = 0

    def through(self, cache: KeyValueStore, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Pair:
        return cache.append(layer, k, v)

    def mask(self, num_queries: int, num_keys: int, cached: bool) -> Tensor | None:
        return causal_mask(num_queries, num_keys)

    def forward(self, x: Tensor, cache: KeyValueStore | None = None, layer: int = 0) -> Tensor:
        q, k, v = (self.split_heads(getattr(self, f"W_{name}")(x)) for name in self.matrices)
        if cache is not None:
            self.before = cache.length
            k, v = self.through(cache, layer, q, k, v)
        mask = self.mask(q.size(-2), k.size(-2), cache is not None)
        mixed = self.merge_heads(attention(q, k, v, mask))
        projected = self.projected if cache is None else self.projected_cached
        return self.W_o(mixed) if projected else mixed


def _with(**attributes: object) -> type[_Wrong]:
    return type("Wrong", (_Wrong,), attributes)


def _through(through: Through) -> type[_Wrong]:
    return _with(through=lambda self, cache, layer, q, k, v: through(cache, layer, q, k, v))


def _masked(mask: Callable[[int, int, bool], Tensor | None]) -> type[_Wrong]:
    return _with(mask=lambda self, q, k, cached: mask(q, k, cached))


def _shifted(shift: Callable[[int, int], int]) -> type[_Wrong]:
    """A triangle that is shifted by so much where there are more keys than queries."""

    def mask(q: int, k: int, cached: bool) -> Tensor:
        return torch.ones(q, k, dtype=torch.bool).tril(k - q + (shift(q, k) if k > q else 0))

    return _masked(mask)


def _from_length(self: _Wrong, q: int, k: int, cached: bool) -> Tensor:
    start = self.before if cached else 0
    return torch.arange(k)[None, :] <= start + torch.arange(q)[:, None]


class _NotMerged(_Wrong):
    def merge_heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.size(0), x.size(2), -1)


class _NotSplit(_Wrong):
    def split_heads(self, x: Tensor) -> Tensor:
        return x


class _OneHead(_NotSplit):
    def merge_heads(self, x: Tensor) -> Tensor:
        return x


def _result_unused(cache: KeyValueStore, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Pair:
    cache.append(layer, k, v)
    return k, v


def _twice(cache: KeyValueStore, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Pair:
    cache.append(layer, k, v)
    return cache.append(layer, k, v)


def _twice_over(cache: KeyValueStore, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Pair:
    return cache.append(layer, *cache.append(layer, k, v))


def _joined_again(cache: KeyValueStore, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Pair:
    keys, values = cache.append(layer, k, v)
    return torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)


def _only_filled(cache: KeyValueStore, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Pair:
    return cache.append(layer, k, v) if cache.length else (k, v)


SPLIT = "q, k and v have to be split into heads: self.split_heads(self.W_q(x)), and so on."
HANDED = "cache.append(layer, k, v) takes the keys first, then the values."

WRONG_ATTENTION = [
    (
        _with(projected=False, projected_cached=False),
        "W_o is missing: it goes last, on the merged heads.",
    ),
    (
        _with(projected_cached=False),
        "With a cache W_o is missing: it goes last, on the merged heads.",
    ),
    (
        _NotMerged,
        "The heads are not merged in order: self.merge_heads is that of notebook 01, with its "
        "transpose before the reshape.",
    ),
    (_NotSplit, SPLIT),
    (_OneHead, "There is one head of all D numbers. " + SPLIT + " self.merge_heads comes last."),
    (_with(matrices="qkk"), "W_k is used for the values, too: they have W_v."),
    (_with(matrices="qvv"), "W_v is used for the keys, too: they have W_k."),
    (_with(matrices="qqv"), "W_q is used for the keys, too: they have W_k."),
    (_with(matrices="kkv"), "W_k is used for the queries, too: they have W_q."),
    (_with(matrices="kqv"), "W_q and W_k are exchanged."),
    (_with(matrices="qvk"), "W_k and W_v are exchanged."),
    (
        _masked(lambda q, k, cached: None),
        "Nothing is masked: self.attend makes the mask, also without a cache.",
    ),
    (
        _masked(lambda q, k, cached: None if cached else causal_mask(q, k)),
        "With a cache nothing is masked: in a chunk, each new position would see those after it. "
        "self.attend makes the mask from the shapes of q and k.",
    ),
    (
        _shifted(lambda q, k: q - k),
        "The mask has no offset: the first new position would see only the first key. The "
        "queries are the *last* of the positions: causal_mask(num_queries, num_keys).",
    ),
    (
        _masked(lambda q, k, cached: causal_mask(q, q)),
        "The mask is made for the queries alone. It has one column for each key: self.attend "
        "makes it from the shapes of q and k.",
    ),
    (
        _with(mask=_from_length),
        "cache.length is that of layer 0, which has appended before the other layers do. "
        "self.attend makes the mask from the shapes of q and k.",
    ),
    (
        _shifted(lambda q, k: 1),
        "With a cache, each new position sees one key too many: that after its own.",
    ),
    (
        _shifted(lambda q, k: -1),
        "With a cache, each new position sees one key too few: its own is missing.",
    ),
    (
        _masked(lambda q, k, cached: torch.arange(k) <= k - q if k > q else causal_mask(q, k)),
        "With a cache, all new positions see only what the first of them may see. The mask has "
        "one row for each.",
    ),
    (
        _through(_result_unused),
        "What append returns is not used: each chunk attends only to itself. Attend to the "
        "*returned* keys and values.",
    ),
    (
        _through(lambda cache, layer, q, k, v: (k, v)),
        "The cache is not used: `k, v = cache.append(layer, k, v)` comes before attending.",
    ),
    (
        _through(_only_filled),
        "The cache is used only when it holds something, so it never gets filled. Ask `if cache "
        "is not None`.",
    ),
    (
        _through(lambda cache, layer, q, k, v: cache.append(0, k, v)),
        "All layers append to layer 0: hand `layer` on to append.",
    ),
    (
        _through(lambda cache, layer, q, k, v: cache.append(layer, v, k)),
        "k and v are exchanged on their way into the cache. " + HANDED,
    ),
    (
        _through(lambda cache, layer, q, k, v: cache.append(layer, v, k)[::-1]),
        "k and v are exchanged on their way into the cache, and again on their way out. " + HANDED,
    ),
    (
        _through(lambda cache, layer, q, k, v: cache.append(layer, k, v)[::-1]),
        "What append returns is exchanged: all keys come first, then all values.",
    ),
    (
        _through(lambda cache, layer, q, k, v: cache.append(layer, q, v)),
        "q is appended as the keys. " + HANDED,
    ),
    (
        _through(lambda cache, layer, q, k, v: cache.append(layer, k, q)),
        "q is appended as the values. " + HANDED,
    ),
    (
        _through(lambda cache, layer, q, k, v: cache.append(layer, q, k)),
        "q and k are appended. " + HANDED,
    ),
    (
        _through(lambda cache, layer, q, k, v: cache.append(layer, k, k)),
        "k is appended as the values, too. " + HANDED,
    ),
    (
        _through(lambda cache, layer, q, k, v: cache.append(layer, v, v)),
        "v is appended as the keys, too. " + HANDED,
    ),
    (
        _through(lambda cache, layer, q, k, v: cache.append(layer, k, v)[:1] * 2),
        "The returned keys are used as values, too: append returns two things.",
    ),
    (
        _through(lambda cache, layer, q, k, v: cache.append(layer, k, v)[1:] * 2),
        "The returned values are used as keys, too: append returns two things.",
    ),
    (
        _through(lambda cache, layer, q, k, v: (cache.append(layer, k, v)[0], v)),
        "Only the keys come from the cache: the values, too, are those that append returns.",
    ),
    (
        _through(lambda cache, layer, q, k, v: (k, cache.append(layer, k, v)[1])),
        "Only the values come from the cache: the keys, too, are those that append returns.",
    ),
    (_through(_twice), "Each chunk is appended twice: call append once."),
    (
        _through(_twice_over),
        "What append returns is appended again: it is in the cache already. Call append once.",
    ),
    (
        _through(_joined_again),
        "The new keys are there twice: what append returns holds them already.",
    ),
]
