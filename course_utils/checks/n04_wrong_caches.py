"""Caches that go wrong as students' do, and what those are told (notebook 04)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..kv_cache import GrowingCache, PreallocatedCache

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
    (_grown(_new_first, _new_first), "The new positions come first: what is stored goes first."),
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


class _Written(PreallocatedCache):
    """A preallocated cache with what may go wrong in `append` as functions and names."""

    takes = "kv"
    gives = "kv"

    def start(self, layer: int, new: int) -> int:
        return self.lengths[layer]

    def written(self, start: int, end: int) -> slice:
        return slice(start, end)

    def given(self, start: int, end: int) -> slice:
        return slice(0, end)

    def count(self, layer: int, start: int, end: int) -> None:
        self.lengths[layer] = end

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        new = {"k": k, "v": v, "0": torch.zeros_like(k)}
        start = self.start(layer, k.size(2))
        end = start + k.size(2)
        for room, name in zip((self.keys, self.values), self.takes, strict=True):
            if name in new:
                room[layer, :, :, self.written(start, end)] = new[name]
        self.count(layer, start, end)
        found = {"k": self.keys, "v": self.values}
        return tuple(found[name][layer, :, :, self.given(start, end)] for name in self.gives)


def _written(**attributes: object) -> type[PreallocatedCache]:
    return type("Wrong", (_Written,), attributes)


def _counted(end: Callable[[int, int, int], int]) -> type[PreallocatedCache]:
    """One that remembers another length, from the one before, the start and the end."""

    def count(self: _Written, layer: int, start: int, stop: int) -> None:
        self.lengths[layer] = end(self.lengths[layer], start, stop)

    return _written(count=count)


def _of_layer_0(self: _Written, layer: int, new: int) -> int:
    return self.lengths[0]


def _into_layer_0(self: _Written, layer: int, start: int, end: int) -> None:
    self.lengths[0] = end


OWN = "Each layer counts for itself: read and write self.lengths[layer]."
FIRST = "Layer 0 has appended before layer 1 does, so its length is already the new one. " + OWN

PREALLOCATED = [
    (
        _written(given=lambda self, start, end: slice(None)),
        "append returns the whole room. Return the filled part: positions 0 to end.",
    ),
    (
        _written(given=lambda self, start, end: slice(start, end)),
        "append returns only the new positions. Attention needs those of all positions so far.",
    ),
    (
        _written(given=lambda self, start, end: slice(0, start)),
        "append returns what was stored before. The new positions belong to it, too.",
    ),
    (
        _written(count=_into_layer_0),
        "The length of layer 0 is set for all layers, and the others stay at 0. " + OWN,
    ),
    (_written(start=_of_layer_0), FIRST),
    (_written(start=_of_layer_0, count=_into_layer_0), FIRST),
    (
        _written(
            start=lambda self, layer, new: self.lengths[layer] + new,
            count=lambda self, layer, start, end: self.lengths.__setitem__(layer, start),
        ),
        "The new positions are counted before `start` is read. It is the length before them.",
    ),
    (
        _counted(lambda before, start, end: before),
        "The new length is forgotten: set self.lengths[layer] = end.",
    ),
    (
        _counted(lambda before, start, end: end + end - start),
        "The new positions are counted twice: set self.lengths[layer] = end.",
    ),
    (
        _counted(lambda before, start, end: before + end),
        "`end` is added to the length, and holds it already: set self.lengths[layer] = end.",
    ),
    (
        _counted(lambda before, start, end: end - start),
        "The length that is remembered is that of the last chunk alone: it is `end`.",
    ),
    (
        _counted(lambda before, start, end: before + 1),
        "The length grows by 1 in each append. It grows by the new positions, k.size(2).",
    ),
    (
        _counted(lambda before, start, end: end + 1),
        "The length that is remembered is one too many: it is `end`.",
    ),
    (
        _counted(lambda before, start, end: end - 1),
        "The length that is remembered is one too few: it is `end`.",
    ),
    (
        _written(written=lambda self, start, end: slice(0, end - start)),
        "Each chunk is written to the start of the room. It goes to start:end.",
    ),
    (
        _written(given=lambda self, start, end: slice(0, end - 1)),
        "The last position is not returned: a slice ends before its second number.",
    ),
    (
        _written(given=lambda self, start, end: slice(0, end + 1)),
        "One position too many is returned: return :end.",
    ),
    (_written(takes="k0"), "The values that are stored are 0, not v."),
    (_written(takes="k-"), "v is not stored: NaN is a place that nothing was written to."),
    (_written(takes="-v"), "k is not stored: NaN is a place that nothing was written to."),
    (_written(takes="--"), "Nothing is stored: NaN is a place that nothing was written to."),
    (_written(gives="kk"), KEYS_TWICE),
    (_written(gives="vv"), VALUES_TWICE),
    (_written(gives="vk"), EXCHANGED),
    (
        GrowingCache,
        "It grows, and copies everything in each append. Write into self.keys[layer], at start:end "
        "of the positions, and return a slice.",
    ),
]
