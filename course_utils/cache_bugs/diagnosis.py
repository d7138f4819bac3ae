"""Why a report failed: which wrong cache does the same, or what else is known (notebook 05)."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..evaluation import (
    Failure,
    Feed,
    Lane,
    Outcome,
    Report,
    Script,
    TestCase,
    follows_its_device,
    kv_evaluate,
    lane_in,
    on_device,
    words,
)
from ..evaluation.lane import EXACT
from ..evaluation.play import Play
from ..evaluation.trial import Played, Trial
from ..transformer import DecoderOnlyTransformer
from .catalogue import CATALOGUE
from .entry import CacheBug

UNKNOWN = "No wrong cache of the catalogue does the same everywhere."
WRONG_WITHOUT = "The model is wrong without its cache. Make evaluate pass first."
CASES = ((1, 1), (1, 7), (2, 5))


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; `bug` is None if the model is right, or wrong in no known way."""

    right: bool
    bug: CacheBug | None
    message: str

    def __str__(self) -> str:
        return self.message


def diagnose(
    judged: Report | nn.Module, reference: DecoderOnlyTransformer | None = None
) -> Diagnosis:
    """Why did this report of `kv_evaluate` fail?

    In place of a report, a model is judged first. `reference` is a right model with the same
    weights; without one, the course's model takes the weights, if it can. A bug of the catalogue
    is named only if the reference with that bug gives the same logits, or the same exceptions, in
    every script that the model has played. Otherwise it says what is known: the smallest failing
    use, the nearest one that is right, the first layer that is off, and what has passed.
    """
    if not isinstance(judged, Report):
        if reference is not None and not _same_without_cache(judged, reference):
            return Diagnosis(False, None, WRONG_WITHOUT)
        judged = kv_evaluate(judged, cases_of(judged))
    if judged.all_passed:
        return Diagnosis(True, None, "The cache gives the uncached logits.")
    failure, trial = judged.smallest, judged.trial
    if trial is None:
        return Diagnosis(False, None, _sentence(judged.problems[0]) + " " + WRONG_WITHOUT)
    reference = reference or reference_of(trial.model)
    if failure is not None and isinstance(failure.outcome.error, NotImplementedError):
        raise failure.outcome.error
    if reference is not None and not _same_without_cache(trial.model, reference):
        return Diagnosis(False, None, WRONG_WITHOUT)
    in_the_cache = failure is not None or trial.mixes_devices
    bug = _known(trial, reference) if reference is not None and in_the_cache else None
    if bug is not None:
        message = (
            f"{_sentence(failure or judged.problems[0])} Identical to `{bug.name}`: {bug.mistake}. "
            f"What it leads to: {bug.symptom}. Where to look: {bug.look}."
        )
        return Diagnosis(False, bug, message)
    return Diagnosis(False, None, " ".join(_evidence(judged, failure, trial.main, reference)))


def cases_of(model: nn.Module) -> list[TestCase]:
    """A few inputs for `kv_evaluate`, with the model's own uncached logits."""
    generator = torch.Generator().manual_seed(1)
    lane, cases = lane_in(model), []
    for shape in CASES:
        ids = torch.randint(model.token_embedding.weight.size(0), shape, generator=generator)
        logits = lane.expected(ids.to(model.token_embedding.weight.device)).cpu().double()
        cases.append(TestCase(ids, logits, logits, logits))
    return cases


def reference_of(model: nn.Module) -> DecoderOnlyTransformer | None:
    """The course's model with these weights, if it has the same logits without a cache."""
    with contextlib.suppress(Exception):
        state = model.state_dict()
        vocab_size, d_model = state["token_embedding.weight"].shape
        room, d_ff = state["pos_embedding.weight"].size(0), state["layers.0.feed_forward.fc1.bias"]
        layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers."))
        for heads in (n for n in range(1, d_model + 1) if d_model % n == 0):
            shape = (vocab_size, d_model, len(d_ff), layers, room, heads)
            found = DecoderOnlyTransformer(*shape, dropout=0.0)
            found.load_state_dict(state)
            found = found.to(state["token_embedding.weight"]).eval()
            if _same_without_cache(model, found):
                return found
    return None


def _same_without_cache(model: nn.Module, reference: nn.Module) -> bool:
    lanes = lane_in(model), lane_in(reference)
    try:
        ids = on_device(lanes[0].texts[0, :2, : min(12, lanes[0].room)], model)
        one, other = (lane.expected(ids) for lane in lanes)
        return one.shape == other.shape and torch.allclose(one, other, 0, lanes[0].tolerance)
    except NotImplementedError:
        raise
    except Exception:
        return False


def _known(trial: Trial, reference: DecoderOnlyTransformer) -> CacheBug | None:
    """The bug that, on the reference, has the same outcome in all that was tried."""
    once = {(p.lane.name, repr(p.script), p.given is None, id(p.given)): p for p in trial.played}
    hardest_first = sorted(once.values(), key=lambda p: (p.outcome.problem is None, len(p.script)))
    for bug in CATALOGUE.values():
        candidates = _Candidates(bug.build(reference))
        agree = all(candidates.agree(played) for played in hardest_first)
        if agree and candidates.mixes_devices() == bool(trial.mixes_devices):
            return bug
    return None


class _Candidates:
    """A wrong model in the dtypes in which another one was played."""

    def __init__(self, model: nn.Module):
        self.model, self.lanes = model, {}

    def agree(self, played: Played) -> bool:
        """Has a script the same outcome here as it had there?"""
        lane = played.lane
        if lane.name not in self.lanes:
            dtype = next(lane.model.parameters()).dtype
            exact = lane.tolerance == EXACT
            self.lanes[lane.name] = lane_in(self.model, None if exact else dtype)
        here = self.lanes[lane.name].play(played.script, played.given, len(played.script))
        return _alike(here, played.outcome, lane.tolerance * len(lane.direction))

    def mixes_devices(self) -> bool:
        try:
            follows_its_device(lane_in(self.model).fresh())
        except RuntimeError:
            return True
        except Exception:
            return False
        return False


def _alike(one: Outcome, other: Outcome, tolerance: float) -> bool:
    if repr(one.error) != repr(other.error):
        return False
    return len(one.heard) == len(other.heard) and all(
        a.shape == b.shape and torch.allclose(a, b, 0, tolerance, equal_nan=True)
        for a, b in zip(one.heard, other.heard, strict=True)
    )


def _sentence(found: Failure | str) -> str:
    return str(found).rstrip(".") + "."


def _evidence(
    report: Report, failure: Failure | None, lane: Lane, reference: nn.Module | None
) -> Iterable[str]:
    """What is known of a failure that no entry of the catalogue explains."""
    yield _sentence(failure or report.problems[0])
    if reference is not None:
        yield UNKNOWN
    if failure is not None and not failure.dtype:
        nearest = _nearest_right(lane, failure.script)
        if nearest is not None:
            yield f"The nearest use that is right: {words(nearest)}."
        layer = _first_wrong_layer(lane, reference, failure.script)
        if layer is not None:
            yield f"The output of layer {layer} is the first that is off."
    passed = [result.name for result in report.others if result.passed]
    if passed:
        yield f"Still right: {', '.join(passed)}."


def _nearest_right(lane: Lane, script: Script) -> Script | None:
    """The same use with one token less, or without its last step, if that is right."""
    last = max((i for i, step in enumerate(script) if isinstance(step, Feed)), default=0)
    for number in (last, last - 1):
        step = script[number] if number > 0 else None
        if isinstance(step, Feed) and step.tokens > 1:
            fewer = [*script]
            fewer[number] = replace(step, tokens=step.tokens - 1)
            if lane.play(fewer).problem is None:
                return fewer
    shorter = list(script)[:last]
    if len(shorter) > 1 and lane.play(shorter).problem is None:
        return shorter
    return None


def _first_wrong_layer(lane: Lane, reference: nn.Module | None, script: Script) -> int | None:
    """Which layer's output is off first, counted from 1, if the layers can be listened to."""
    if reference is None:
        return None
    right, found = (_heard(one, script) for one in (lane_in(reference), lane))
    for number, (expected, outputs) in enumerate(zip(right, found, strict=False), start=1):
        if len(expected) != len(outputs):
            return None
        for a, b in zip(expected, outputs, strict=True):
            if getattr(b, "shape", None) != a.shape:
                return None
            if not torch.allclose(a, b, 0, lane.tolerance):
                return number
    return None


def _heard(lane: Lane, script: Script) -> list[list[torch.Tensor]]:
    """The outputs of each layer while a script is played."""
    model = lane.fresh()
    outputs = [[] for _ in getattr(model, "layers", [])]
    hooks = [
        layer.register_forward_hook(lambda _, args, out, kept=kept: kept.append(out))
        for layer, kept in zip(getattr(model, "layers", []), outputs, strict=True)
    ]
    play = Play(model, lane.texts)
    with contextlib.suppress(Exception):
        for number, step in enumerate(script):
            play.take(number, step)
    for hook in hooks:
        hook.remove()
    return outputs
