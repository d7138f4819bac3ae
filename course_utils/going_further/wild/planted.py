"""Mistakes that caches of `transformers` have had, each as a change of a right cache (chapter 13).

A `plant` is given a new, empty cache. It changes methods of that object, or leaves a hook for the
calls of the model: `says` changes what a call is told, `calls` is a context that it runs in.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .caches import Kept, layers_of

Said = dict[str, Tensor]


@dataclass(frozen=True)
class Mistake:
    """What is wrong, in words, and how it is planted in what a model keeps.

    `plant` raises NotImplementedError for a cache that can't have this mistake.
    """

    name: str
    words: str
    plant: Callable[[Kept], None]


def attention_of(past: Any) -> Any:
    """The part of a cache that holds a decoder's own keys and values."""
    return getattr(past, "self_attention_cache", past)


def window_of_layers(more: int, kept: Kept) -> None:
    sliding = [layer for layer in layers_of(kept.past) if hasattr(layer, "sliding_window")]
    if not sliding:
        raise NotImplementedError("it has no window")
    for layer in sliding:
        layer.sliding_window += more


def keys_dropped_early(kept: Kept) -> None:
    """Layers drop the oldest key that is shown, and do not say so to the mask."""
    sliding = [layer for layer in layers_of(kept.past) if hasattr(layer, "sliding_window")]
    if not sliding:
        raise NotImplementedError("it has no window")
    for layer in sliding:
        layer.update = partial(_update_and_drop, layer, layer.update)


def _update_and_drop(layer: Any, right: Callable, *given: Any, **more: Any) -> tuple:
    found = right(*given, **more)
    most = layer.sliding_window - 2
    layer.keys, layer.values = layer.keys[:, :, -most:], layer.values[:, :, -most:]
    return found


def window_of_the_mask(more: int, later: bool, kept: Kept) -> None:
    """Calls with a cache, or only those `later` than the first, have a mask of another window."""
    config = kept.model.config.get_text_config(decoder=True)
    if not isinstance(getattr(config, "sliding_window", None), int):
        raise NotImplementedError("it has no window")
    kept.calls = lambda: other_window(config, more * (not later or kept.length > 0))


@contextlib.contextmanager
def other_window(config: Any, more: int) -> Iterator[None]:
    config.sliding_window += more
    try:
        yield
    finally:
        config.sliding_window -= more


def window_of_both(more: int, later: bool, kept: Kept) -> None:
    window_of_layers(more, kept)
    window_of_the_mask(more, later, kept)


def positions_from_zero(even_if_told: bool, kept: Kept) -> None:
    def says(input_ids: Tensor, said: Said) -> Said:
        positions = torch.arange(input_ids.size(1), device=input_ids.device)
        if "position_ids" in said and not even_if_told:
            return said
        return {**said, "position_ids": positions.expand_as(input_ids)}

    kept.says = says


def padding_ignored(kept: Kept) -> None:
    def says(input_ids: Tensor, said: Said) -> Said:
        return {name: value for name, value in said.items() if name == "position_ids"}

    kept.says = lambda input_ids, said: says(input_ids, said) if kept.length else said


def crop_by_fewer(fewer: int | None, kept: Kept) -> None:
    """A rollback takes back so many tokens fewer; with None, it does nothing."""
    attention = attention_of(kept.past)
    right = attention.crop
    if fewer is None:
        attention.crop = lambda count: None
    else:
        attention.crop = lambda count: right(min(count + fewer, 0))


def crop_of_the_last_layer(kept: Kept) -> None:
    def crop(count: int) -> None:
        *most, last = attention.layers
        for layer in most:
            layer.crop(count)
        last.crop(min(count + 1, 0))

    attention = attention_of(kept.past)
    attention.crop = crop


def crop_uncounted(kept: Kept) -> None:
    """Layers that count their tokens take back all in the count, and one less in what they keep."""

    def crop(count: int) -> None:
        for layer in attention.layers:
            keys, values = layer.keys, layer.values
            layer.crop(count)
            end = keys.size(2) + count + 1
            layer.keys, layer.values = keys[:, :, :end], values[:, :, :end]

    attention = attention_of(kept.past)
    attention.crop = crop


def reorder_leaves_values(kept: Kept) -> None:
    """As many rows are reordered in the keys only; of more or fewer, all have row 0's values."""
    attention = attention_of(kept.past)

    def reorder(rows: Tensor) -> None:
        for layer in attention.layers:
            layer.keys = layer.keys[rows]
            if len(rows) != layer.values.size(0):
                layer.values = layer.values[torch.zeros_like(rows)]

    attention.reorder_cache = attention.batch_select_indices = reorder


def reorder_ignored(kept: Kept) -> None:
    attention_of(kept.past).reorder_cache = lambda rows: None


def mask_one_short(kept: Kept) -> None:
    past = kept.past
    past.get_query_offset = lambda layer_idx=0: max(past.get_seq_length(layer_idx) - 1, 0)


MISTAKES = (
    Mistake(
        "window_one_short",
        "a layer forgets the oldest token that its window still shows",
        partial(window_of_layers, -1),
    ),
    Mistake(
        "window_one_short_in_the_keys",
        "a layer forgets the oldest token that its window still shows, and its mask has a column "
        "for it",
        keys_dropped_early,
    ),
    *(
        Mistake(f"{name}{when}", f"{words}, in {calls}", partial(plant, more, later))
        for plant, more, name, words in (
            (
                window_of_the_mask,
                -1,
                "window_mask_one_short",
                "the mask hides the oldest token of the window",
            ),
            (
                window_of_the_mask,
                1,
                "window_mask_one_long",
                "the mask shows one token more than the window",
            ),
            (
                window_of_both,
                -1,
                "window_one_short_everywhere",
                "layers and mask have a window that is one too short",
            ),
            (
                window_of_both,
                1,
                "window_one_long",
                "layers keep one token more than the window, and the mask shows it",
            ),
        )
        for later, when, calls in (
            (False, "", "calls with a cache"),
            (True, "_later", "calls after the first"),
        )
    ),
    Mistake(
        "positions_from_zero",
        "every call counts its positions from 0",
        partial(positions_from_zero, True),
    ),
    Mistake(
        "positions_from_zero_unless_told",
        "every call that is not told its positions counts them from 0",
        partial(positions_from_zero, False),
    ),
    Mistake("padding_ignored", "after the first call, padding is looked at", padding_ignored),
    Mistake(
        "crop_keeps_one",
        "a rollback leaves a token too many in every layer",
        partial(crop_by_fewer, 1),
    ),
    Mistake(
        "crop_keeps_one_uncounted",
        "a rollback leaves a token too many in every layer, but counts as if it did not",
        crop_uncounted,
    ),
    Mistake(
        "crop_keeps_one_in_the_last_layer",
        "a rollback leaves a token too many in the last layer",
        crop_of_the_last_layer,
    ),
    Mistake("crop_keeps_all", "a rollback takes nothing back", partial(crop_by_fewer, None)),
    Mistake("reorder_leaves_values", "rows are reordered in the keys only", reorder_leaves_values),
    Mistake("reorder_ignored", "rows stay where they were", reorder_ignored),
    Mistake("mask_one_short", "after the first call, a token does not see itself", mask_one_short),
)
