"""Growing caches that go wrong as students' do, and what those are told (notebook 04)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..kv_cache import GrowingCache

Kept = Callable[[Tensor, Tensor], Tensor]


def _old(old: Tensor, new: Tensor) -> Tensor:
    return old


def _new(old: Tensor, new: Tensor) -> Tensor:
    return new


def _both(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([old, new], dim=2)


def _new_first(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([new, old], dim=2)


def _twice(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([old, new, new], dim=2)


def _last_alone(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([old, new[:, :, -1:]], dim=2)


def _never_begun(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([old, new], dim=2) if old.size(2) else old


def _grown(stored: Kept, given: Kept) -> type[GrowingCache]:
    """A growing cache that stores and returns something else of what is there and what is new."""

    class Wrong(GrowingCache):
        def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            before = self.keys[layer], self.values[layer]
            self.keys[layer], self.values[layer] = map(stored, before, (k, v))
            return given(before[0], k), given(before[1], v)

    return Wrong


class _Filled(GrowingCache):
    """A growing cache in which layers, keys and values are mixed up."""

    first_layer_only = False
    gives = "kv"

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        k, v = super().append(0 if self.first_layer_only else layer, k, v)
        found = {"k": k, "v": v}
        return tuple(found[name] for name in self.gives)


def _filled(**attributes: object) -> type[GrowingCache]:
    return type("Wrong", (_Filled,), attributes)


def _long(length: Callable[[GrowingCache], int]) -> type[GrowingCache]:
    return type("Wrong", (_Counting,), {"length": property(length)})


class _Counting(GrowingCache):
    def __init__(self, model: torch.nn.Module, batch_size: int):
        super().__init__(model, batch_size)
        self.calls = self.last = 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.calls, self.last = self.calls + 1, k.size(2)
        return super().append(layer, k, v)


def _shaped(dim: int) -> Callable[[GrowingCache], int]:
    return lambda cache: cache.keys[0].size(dim)


SIZE = "It is the size of dimension 2 of one layer's keys: the positions."
KEYS_TWICE = "The keys come back as values, too: v is stored, and returned second."
VALUES_TWICE = "The values come back as keys, too: k is stored, and returned first."
EXCHANGED = "Keys and values are exchanged: append returns the keys first."

GROWING = [
    (
        _grown(_both, _new),
        "append returns only the new positions. Attention needs those of all positions so far.",
    ),
    (
        _grown(_new, _new),
        "What was stored before is overwritten: append to it, with torch.cat along dim=2.",
    ),
    (
        _grown(_both, _old),
        "append returns what was stored before. The new positions belong to it, too.",
    ),
    (_grown(_new_first, _new_first), "The new positions come first; what is stored should."),
    (
        _grown(_old, _both),
        "What append returns is right, and is not stored: assign it to self.keys[layer] and "
        "self.values[layer].",
    ),
    (
        _grown(_last_alone, _last_alone),
        "Only the last position of each chunk is stored: append all of them.",
    ),
    (_grown(_twice, _twice), "Each new position is appended twice."),
    (
        _grown(_never_begun, _never_begun),
        "An empty cache stays empty: the first chunk has to be stored like any other.",
    ),
    (
        _filled(first_layer_only=True),
        "All layers share what belongs to layer 0: use self.keys[layer] and self.values[layer].",
    ),
    (_filled(gives="kk"), KEYS_TWICE),
    (_filled(gives="vv"), VALUES_TWICE),
    (_filled(gives="vk"), EXCHANGED),
    (
        _long(lambda cache: cache.calls),
        "length counts the calls of append, not the positions. " + SIZE,
    ),
    (
        _long(lambda cache: cache.calls // len(cache.keys)),
        "length counts the chunks, not the positions. " + SIZE,
    ),
    (
        _long(lambda cache: sum(keys.size(2) for keys in cache.keys)),
        "length counts each position once for every layer. " + SIZE,
    ),
    (_long(lambda cache: 2 * _shaped(2)(cache)), "length counts each position twice. " + SIZE),
    (_long(lambda cache: cache.last), "length is that of the last chunk alone. " + SIZE),
    (_long(lambda cache: 0), "length stays 0. " + SIZE),
    (_long(_shaped(0)), "length is the number of rows. " + SIZE),
    (_long(_shaped(1)), "length is the number of heads. " + SIZE),
    (_long(_shaped(3)), "length is d, the numbers per head. " + SIZE),
    (_long(lambda cache: len(cache.keys)), "length is the number of layers. " + SIZE),
]
