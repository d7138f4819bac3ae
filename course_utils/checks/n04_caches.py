"""What the check cells of the two caches call (notebook 04, exercises 1 and 5)."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ..kv_cache import GrowingCache, PreallocatedCache
from ..transformer import DecoderOnlyTransformer
from .common import is_stub, raised, verdict
from .elsewhere import follows_its_device
from .inputs import random
from .n04_wrong_caches import GROWING
from .n04_wrong_preallocated import PREALLOCATED
from .seen import Seen, judge_seen, some

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
HINTS = {
    "which was handed to append": "Work on new tensors: what comes in belongs to the caller.",
    "holds NaN": "NaN is a place that nothing was written to.",
    "Sizes of tensors must match": "The positions are dimension 2: torch.cat([...], dim=2).",
    "stack expects": "torch.cat appends along a dimension that is there, torch.stack makes one.",
    "is a list": "Return what belongs to the layer: self.keys[layer], self.values[layer].",
    "The expanded size": "The positions are dimension 2 of the layer's (B, H, S, d): "
    "self.keys[layer, :, :, start:end] has as many places as k.",
    "has no setter": "The length is read from self.lengths: set self.lengths[layer] = end.",
    "'int' object is not subscriptable": "self.lengths is a list, one number for each layer.",
    "bound method": "length is a property: `@property` goes above it.",
    "length is torch.Size": "It is one number: .size(2).",
}


@dataclass(frozen=True)
class Filling:
    """A cache, and the chunks that it is given, each layer after layer as a model does it."""

    name: str
    chunks: tuple[int, ...]
    rows: int = 1
    layers: int = 2
    heads: int = 3
    d_head: int = 4
    spare: int = 7
    dtype: torch.dtype = torch.float32
    beside: bool = False
    seed: int = 0

    def __str__(self) -> str:
        sizes = [(self.rows, "row"), (self.layers, "layer"), (self.heads, "head")]
        kind = "" if self.dtype == torch.float32 else f" in {self.dtype}"
        of = f"{', '.join(some(*size) for size in sizes)} of d = {self.d_head}{kind}"
        turn = ", filled in turn with another one" * self.beside
        return f"{self.name} with {of}{turn}: {self.when()},"

    def when(self) -> str:
        *before, last = self.chunks or (0,)
        if not self.chunks:
            return "before the first append"
        return f"after {some(sum(before), 'position')} and {last} more"

    def model(self) -> nn.Module:
        room = max(sum(self.chunks) + self.spare, 1)
        return model_for(self.layers, self.heads, self.d_head, room, self.dtype)


@lru_cache(maxsize=500)
def model_for(layers: int, heads: int, d_head: int, room: int, dtype: torch.dtype) -> nn.Module:
    """A model that a cache can be made for; its other sizes are as small as can be."""
    return DecoderOnlyTransformer(2, heads * d_head, 1, layers, room, heads, dropout=0.0).to(dtype)


@st.composite
def _fillings(draw: st.DrawFn, name: str) -> Filling:
    chunks = draw(st.lists(st.integers(1, 4), max_size=4))
    rows, layers, heads, d_head = (draw(st.integers(1, 3)) for _ in range(4))
    spare, dtype = draw(st.integers(0, 2)), draw(st.sampled_from(DTYPES))
    beside, seed = draw(st.booleans()), draw(st.integers(0, 9))
    return Filling(name, tuple(chunks), rows, layers, heads, d_head, spare, dtype, beside, seed)


@contextlib.contextmanager
def _never_written_is_nan() -> Iterator[None]:
    """`torch.empty` gives NaN, so that what an answer reads there is seen, and always the same."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def seen_of(cache_class: type, case: Filling) -> Seen:
    """What the last appends return, layer by layer, and what the cache says of itself then."""
    with _never_written_is_nan():
        cache, beside = (_asked("__init__", cache_class, case.model(), case.rows) for _ in "12")
        shape = (2, case.layers, case.rows, sum(case.chunks), case.heads, case.d_head)
        whole = random(case.seed, *shape).to(case.dtype).transpose(-3, -2)
        seen, given, at = {}, {}, 0
        for chunk in case.chunks:
            for layer in range(case.layers):
                new = whole[:, layer, ..., at : at + chunk, :]
                k, v = new.clone()
                keys, values = _appended(cache, layer, k, v)
                if case.beside:
                    _appended(beside, layer, *-new)
                seen[f"the tensor of keys that append returns for layer {layer}"] = keys
                seen[f"the tensor of values that append returns for layer {layer}"] = values
                given["k, which was handed to append,"] = k
                given["v, which was handed to append,"] = v
            at += chunk
        seen = given | seen
        for name in ("length", "batch_size", "nbytes"):
            if name != "nbytes" or hasattr(cache_class, name) and case.chunks:
                seen[name] = _number(name, _asked(name, getattr, cache, name))
        return seen


def _asked(what: str, answer: Callable, *given: object) -> object:
    try:
        return answer(*given)
    except Exception as error:
        if is_stub(error):
            raise
        raise AssertionError(f"{what} {raised(error)}") from error


def _number(what: str, found: object) -> object:
    if isinstance(found, Tensor) and found.numel() != 1:
        raise AssertionError(f"{what} is a tensor of shape {tuple(found.shape)}, expected a number")
    return found


def _appended(cache: object, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    found = _asked(f"append to layer {layer}", cache.append, layer, k, v)
    if not isinstance(found, tuple | list) or len(found) != 2:
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        raise AssertionError(
            f"append returns {kind}, and has to return two tensors: all keys, all values"
        )
    return found


def _judge(cache_class: type, right: type, mistakes: list[tuple[type, str]]) -> None:
    name = cache_class.__name__
    seen = seen_of if hasattr(cache_class, "nbytes") else _without_nbytes
    easy = [(2, 1, 4, 3)[:n] for n in range(5)]
    judge_seen(
        seen,
        cache_class,
        right,
        _fillings(name),
        mistakes,
        [Filling(name, (6, 1, 7)[:n], 2, 3, 8, 5) for n in range(4)],
        first=[Filling(name, chunks, rows) for rows in (1, 2) for chunks in easy],
        number=70,
        hints=HINTS,
    )

    large = Filling(name, (1100, 70, 1), 5, 5)
    judge_seen(seen, cache_class, right, st.just(large), (), (), first=[large], number=1)

    def use(model: nn.Module, device: torch.device) -> tuple[Tensor, Tensor]:
        cache = cache_class(model, 2)
        for layer in (0, 1, 0, 1):
            k, v = (torch.empty(2, 3, 2, 4, device=device) for _ in range(2))
            found = cache.append(layer, k, v)
        return tuple(found)

    follows_its_device(use, name, model_for(2, 3, 4, 9, torch.float32))


def _without_nbytes(cache_class: type, case: Filling) -> Seen:
    return {name: x for name, x in seen_of(cache_class, case).items() if name != "nbytes"}


@verdict
def check_cache(cache_class: type) -> str:
    """Notebook 04, exercise 1. Returns a verdict; raises AssertionError on a wrong cache."""
    _judge(cache_class, GrowingCache, GROWING)
    return (
        f"{cache_class.__name__} is right: chunks of all sizes, one layer and several, one row and "
        "several, two caches in turn, 16, 32 and 64 bits, and on any device."
    )


@verdict
def check_preallocated(cache_class: type) -> str:
    """Notebook 04, exercise 5. Returns a verdict; raises AssertionError on a wrong cache."""
    _judge(cache_class, PreallocatedCache, PREALLOCATED)
    _copies_nothing(cache_class)
    _no_further(cache_class)
    return (
        f"{cache_class.__name__} is right: chunks of all sizes up to the last position, one layer "
        "and several, one row and several, two caches in turn, 16, 32 and 64 bits, and on any "
        "device. Nothing is copied."
    )


def _copies_nothing(cache_class: type) -> None:
    """Raise AssertionError unless what append returns lies in the same memory each time."""
    cache = cache_class(model_for(2, 3, 4, 9, torch.float32), 2)
    kept = [
        cache.append(layer, *random(0, 2, 2, 3, 1, 4).float()) for _ in range(4) for layer in (0, 1)
    ]
    for layer in (0, 1):
        if any(len({x.data_ptr() for x in both}) > 1 for both in zip(*kept[layer::2], strict=True)):
            raise AssertionError(
                "The returned keys or values lie elsewhere in memory after each append, so they "
                "were copied. Return a slice of the cache's own tensor, which is a view."
            )


def _no_further(cache_class: type) -> None:
    """Raise AssertionError if three positions go where there is room for two."""
    cache = cache_class(model_for(1, 3, 4, 9, torch.float32), 2)
    cache.append(0, *random(0, 2, 2, 3, 7, 4).float())
    try:
        cache.append(0, *random(1, 2, 2, 3, 3, 4).float())
    except Exception:
        return
    raise AssertionError(
        "With max_seq_len=9, after 7 positions, 3 more are taken without an error, and there is no "
        "room for the last of them. Let PyTorch raise its error where positions do not fit."
    )
