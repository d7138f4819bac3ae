"""Preallocated caches that go wrong as students' do, and what those are told (notebook 04)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..kv_cache import GrowingCache, PreallocatedCache
from .n04_wrong_caches import EXCHANGED, KEYS_TWICE, VALUES_TWICE

ALL = slice(None)


class _Written(PreallocatedCache):
    """A preallocated cache with what may go wrong in `append` as functions and names."""

    takes = "kv"
    gives = "kv"
    counts = 2

    def end(self, start: int, k: Tensor) -> int:
        return start + k.size(self.counts)

    def place(self, layer: int, span: slice) -> tuple[int | slice, ...]:
        return layer, ALL, ALL, span

    def taken(self, layer: int, span: slice) -> tuple[int | slice, ...]:
        return layer, ALL, ALL, span

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
        end = self.end(start, k)
        for room, name in zip((self.keys, self.values), self.takes, strict=True):
            if name in new:
                room[self.place(layer, self.written(start, end))] = new[name]
        self.count(layer, start, end)
        found = {"k": self.keys, "v": self.values}
        given = self.taken(layer, self.given(start, end))
        return tuple(found[name][given] for name in self.gives)


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


def _placed(
    *places: Callable[[int, slice], tuple[int | slice, ...]],
) -> type[PreallocatedCache]:
    """One that writes, and reads if there is a second function, at another place."""
    methods = [lambda self, layer, span, at=at: at(layer, span) for at in places]
    return _written(**dict(zip(("place", "taken"), methods, strict=False)))


def _right(layer: int, span: slice) -> tuple[int | slice, ...]:
    return layer, ALL, ALL, span


def _heads(layer: int, span: slice) -> tuple[int | slice, ...]:
    return layer, ALL, span


def _all_layers(layer: int, span: slice) -> tuple[int | slice, ...]:
    return ALL, ALL, ALL, span


def _no_layer(layer: int, span: slice) -> tuple[int | slice, ...]:
    return ALL, ALL, span


def _in_place(self: _Written, start: int, k: Tensor) -> int:
    return k.size(2)


def _grows(self: _Written, layer: int, start: int, end: int) -> None:
    self.lengths[layer] += end


COLON = (
    "A colon is missing: the positions are dimension 2 of the layer's (B, H, S, d), "
    "self.keys[layer, :, :, start:end]."
)
LAYER = "The layer is missing: self.keys is (L, B, H, S, d), so self.keys[layer, :, :, start:end]."
END = "`end` is start + k.size(2): the new positions come after those that are there."
OWN = "Each layer counts for itself: read and write self.lengths[layer]."
FIRST = "Layer 0 has appended before layer 1 does, so its length is already the new one. " + OWN

PREALLOCATED = [
    (_placed(_heads), COLON),
    (_placed(_heads, _heads), COLON),
    (_placed(_right, _heads), COLON.replace("start", "")),
    (_placed(_all_layers), LAYER),
    (_placed(_no_layer), LAYER),
    (_placed(_all_layers, _all_layers), LAYER),
    (_placed(_no_layer, _no_layer), LAYER),
    (
        _placed(_right, _all_layers),
        "append returns all layers. Return those of the one: self.keys[layer, :, :, :end].",
    ),
    (_placed(_right, _no_layer), LAYER.replace("start", "")),
    (
        _placed(_right, lambda layer, span: (ALL,)),
        "append returns all layers, and the whole room: self.keys[layer, :, :, :end].",
    ),
    (_written(counts=0), "k.size(0) is the number of rows; the new positions are k.size(2)."),
    (_written(counts=1), "k.size(1) is the number of heads; the new positions are k.size(2)."),
    (_written(counts=3), "k.size(3) is d; the new positions are k.size(2)."),
    (_written(end=_in_place), END),
    (_written(end=_in_place, count=_grows), END),
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
        _written(written=lambda self, start, end: slice(0, end)),
        "The new positions are written over all that is there, too. They go to start:end.",
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
