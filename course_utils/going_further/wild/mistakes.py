"""Is a wrong cache one of the known mistakes? (chapter 13)

A mistake is named only if the model of the library, with the same weights, the library's own cache
and that mistake, gives the same logits, or the same exceptions, in every script that was played
without `generate`. So it does not matter what the judged class is called and where it comes from.
"""

import contextlib
import copy
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ...cache_bugs.diagnosis import _alike
from ...evaluation import Generate, Report, Script, lane_in
from .adapter import Adapted, first_past
from .caches import Kept, layers_of
from .installed import causal_types, class_of, library, module
from .planted import MISTAKES, Mistake


class Mistaken(Adapted):
    """A model of the library with a right cache, and one mistake in it, or none."""

    def __init__(self, judged: Adapted, plain: nn.Module, mistake: Mistake | None = None):
        cache = judged.use.cache
        cache = like_its_own(judged) if cache == "own" else cache
        super().__init__(plain, replace(judged.use, cache=cache), judged.room)
        self.mistake, self.pads, self.exact = mistake, judged.pads, judged.exact

    def new(self, seen: Tensor | None = None) -> Kept:
        kept = super().new(seen)
        if self.mistake is not None:
            self.mistake.plant(kept)
        return kept

    def told(self, kept: Kept, input_ids: Tensor) -> dict[str, Tensor]:
        said = super().told(kept, input_ids)
        return getattr(kept, "says", lambda _, same: same)(input_ids, said)

    def fed(self, kept: Kept, input_ids: Tensor) -> Tensor:
        with getattr(kept, "calls", contextlib.nullcontext)():
            return super().fed(kept, input_ids)


def like_its_own(judged: Adapted) -> str:
    """The kind of the library's cache that is most like the one that a model makes."""
    found, layers = module("cache_utils"), layers_of(first_past(judged))
    if any(isinstance(layer, found.StaticLayer) for layer in layers):
        return "static"
    if any(getattr(layer, "record_past", False) for layer in layers):
        return "recording"
    sliding = any(isinstance(layer, found.DynamicSlidingWindowLayer) for layer in layers)
    grows = bool(layers) and all(isinstance(layer, found.DynamicLayer) for layer in layers)
    return "growing" if grows and not sliding else "dynamic"


def of_the_library(model: nn.Module) -> nn.Module:
    """A model of the library's own class with these weights: of its type, or the one it extends.

    Raises what the library raises if it has no such class, or the weights do not fit it.
    """
    causal = set(causal_types().values())
    extended = (
        kind
        for kind in type(model).__mro__
        if kind.__name__ in causal and getattr(library(), kind.__name__, None) is kind
    )
    kind = next(extended, None) or class_of(model.config.model_type)
    plain = kind(copy.deepcopy(model.config))
    plain.load_state_dict(model.state_dict())
    weight = next(model.parameters())
    return plain.to(weight.device, weight.dtype).eval()


def named(report: Report, model: Adapted) -> Mistake | None:
    """The mistake that does the same in all that was played, or None.

    None, too, where the library's own class and cache are wrong: then nothing right is there in
    which a mistake could be planted, and where only `generate` is. A name is an extra: what fails
    on the way to it is not said.
    """
    with contextlib.suppress(Exception):
        played, plain = hardest_first(report), of_the_library(model.model)
        failed = bool(played) and played[0].outcome.problem is not None
        if failed and _is_right(Mistaken(model, plain), played[0]):
            return next((some for some in MISTAKES if _is_it(some, model, plain, played)), None)
    return None


def hardest_first(report: Report) -> list[Any]:
    """What was played, each script once: what failed first, and the short ones."""
    fed = (p for p in report.trial.played if p.given is None and not _generates(p.script))
    once = {(p.lane.name, repr(p.script)): p for p in fed}
    return sorted(once.values(), key=lambda p: (p.outcome.problem is None, len(p.script)))


def _is_it(mistake: Mistake, model: Adapted, plain: nn.Module, played: list[Any]) -> bool:
    lanes: dict[str, Any] = {}
    try:
        wrong = Mistaken(model, plain, mistake)
        return all(_agrees(wrong, some, lanes) for some in played)
    except Exception:
        return False


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
