"""Mistakes that caches of the library have had, planted in a right one: is a wrong one among them?

A mistake is named only if the model with the library's own cache and that mistake gives the same
logits, or the same exceptions, in every script that was played without `generate`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from ...cache_bugs.diagnosis import _alike
from ...evaluation import Generate, Report, Script, copied, lane_in
from .adapter import Adapted, first_cache
from .caches import Kept, layers_of


@dataclass(frozen=True)
class Mistake:
    """What is wrong, in words, and how it is planted in what a model keeps."""

    name: str
    words: str
    plant: Callable[[Kept], None]


class Mistaken(Adapted):
    """A model of the library with a right cache, and one mistake in it, or none."""

    def __init__(self, judged: Adapted, mistake: Mistake | None = None):
        cache = judged.use.cache
        if cache == "own":
            cache = "static" if "Static" in first_cache(judged) else "dynamic"
        super().__init__(
            of_the_library(judged.model), replace(judged.use, cache=cache), judged.room
        )
        self.mistake, self.pads, self.exact = mistake, judged.pads, judged.exact

    def new(self, seen: Tensor | None = None) -> Kept:
        kept = super().new(seen)
        if self.mistake is not None:
            self.mistake.plant(kept)
        return kept

    def told(self, kept: Kept, input_ids: Tensor) -> dict[str, Tensor]:
        said = super().told(kept, input_ids)
        return getattr(kept, "says", lambda _, same: same)(input_ids, said)


def of_the_library(model: nn.Module) -> nn.Module:
    """The model, without what a class outside the library has changed in it."""
    own = (kind for kind in type(model).__mro__ if kind.__module__.startswith("transformers."))
    plain = copied(model, share_parameters=True)
    plain.__class__ = next(own)
    return plain


def named(report: Report, model: Adapted) -> Mistake | None:
    """The mistake that does the same in all that was played, or None.

    None, too, where the library's own class and cache are wrong: then nothing right is there in
    which a mistake could be planted; and where only `generate` is.
    """
    fed = (p for p in report.trial.played if p.given is None and not _generates(p.script))
    once = {(p.lane.name, repr(p.script)): p for p in fed}
    hardest_first = sorted(once.values(), key=lambda p: (p.outcome.problem is None, len(p.script)))
    if not hardest_first or hardest_first[0].outcome.problem is None:
        return None
    if not _is_right(Mistaken(model), hardest_first[0]):
        return None
    for mistake in MISTAKES:
        lanes: dict[str, Any] = {}
        try:
            wrong = Mistaken(model, mistake)
            if all(_agrees(wrong, played, lanes) for played in hardest_first):
                return mistake
        except Exception:
            continue
    return None


def _generates(script: Script) -> bool:
    """The library's `generate` calls the model past the adapter, where a mistake may be."""
    return any(isinstance(step, Generate) for step in script)


def _is_right(model: Adapted, played: Any) -> bool:
    lane = played.lane
    dtype = None if lane.eps else next(lane.model.parameters()).dtype
    return lane_in(model, dtype, lane.tolerance).play(played.script).problem is None


def _agrees(wrong: Adapted, played: Any, lanes: dict[str, Any]) -> bool:
    lane = played.lane
    if lane.name not in lanes:
        dtype = None if lane.eps else next(lane.model.parameters()).dtype
        lanes[lane.name] = lane_in(wrong, dtype, lane.tolerance)
    here = lanes[lane.name].play(played.script, None, len(played.script))
    return _alike(here, played.outcome, lane.tolerance * len(lane.direction))


def _window_one_short(kept: Kept) -> None:
    """A layer forgets the oldest token that its window still shows."""
    sliding = [layer for layer in layers_of(kept.past) if hasattr(layer, "sliding_window")]
    if not sliding:
        raise NotImplementedError("it has no window")
    for layer in sliding:
        layer.sliding_window -= 1


def _positions_from_zero(kept: Kept) -> None:
    """Every call counts its positions from 0."""

    def says(input_ids: Tensor, said: dict[str, Tensor]) -> dict[str, Tensor]:
        positions = torch.arange(input_ids.size(1), device=input_ids.device)
        return {**said, "position_ids": positions.expand_as(input_ids)}

    kept.says = says


def _padding_ignored(kept: Kept) -> None:
    """After the first call, padding is looked at."""

    def says(input_ids: Tensor, said: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in said.items() if name == "position_ids"}

    kept.says = lambda input_ids, said: says(input_ids, said) if kept.length else said


def _crop_keeps_one(kept: Kept) -> None:
    """A rollback leaves a token too many in every layer, and counts right."""
    for layer in layers_of(kept.past):
        right = layer.crop
        layer.crop = lambda count, right=right: right(min(count + 1, 0))


def _reorder_leaves_values(kept: Kept) -> None:
    """Rows are reordered in the keys only."""
    for layer in layers_of(kept.past):

        def reorder(layer: Any, rows: Tensor) -> None:
            layer.keys = layer.keys[rows]
            if len(rows) != layer.values.size(0):
                layer.values = layer.values[torch.zeros_like(rows)]

        layer.reorder_cache = layer.batch_select_indices = MethodType(reorder, layer)


def _reorder_ignored(kept: Kept) -> None:
    """Rows stay where they were."""
    for layer in layers_of(kept.past):
        layer.reorder_cache = lambda rows: None


def _mask_one_short(kept: Kept) -> None:
    """After the first call, a token does not see itself."""
    past = kept.past
    past.get_query_offset = lambda layer_idx=0: max(past.get_seq_length(layer_idx) - 1, 0)


MISTAKES = tuple(
    Mistake(plant.__name__.strip("_"), plant.__doc__.rstrip("."), plant)
    for plant in (
        _window_one_short,
        _positions_from_zero,
        _padding_ignored,
        _crop_keeps_one,
        _reorder_leaves_values,
        _reorder_ignored,
        _mask_one_short,
    )
)
