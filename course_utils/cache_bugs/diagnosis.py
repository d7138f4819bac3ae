"""Which wrong cache of the catalogue a model behaves like (notebook 05)."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..evaluation import TestCase, kv_evaluate, precise_copy, uncached
from ..transformer import DecoderOnlyTransformer
from .catalogue import CATALOGUE
from .entry import CacheBug
from .probes import EXTRAS, agree, evidence, outcome, probes

UNKNOWN = "No wrong cache of the catalogue behaves like this."


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; `bug` is None if the model is right, or wrong in no known way."""

    right: bool
    bug: CacheBug | None
    message: str

    def __str__(self) -> str:
        return self.message


class _Examination:
    """A model and a right one with the same weights, in the same probes."""

    def __init__(self, model: nn.Module, reference: DecoderOnlyTransformer):
        self.reference, self.tolerance = precise_copy(reference)
        self.model = precise_copy(model)[0]
        self.runs = probes(self.reference)
        self.plain = [name for name in self.runs if name not in EXTRAS]
        self.expected, self.found = {}, {}

    def wrong(self, names: Iterable[str]) -> list[str]:
        """Run the probes that have not been run; return the names of those that are wrong."""
        for name in names:
            if name not in self.found:
                self.expected[name] = outcome(self.runs[name], self.reference)
                self.found[name] = outcome(self.runs[name], self.model)
        return [name for name in names if not self.agrees(name, self.expected[name])]

    def agrees(self, name: str, other: Tensor | str) -> bool:
        return agree(self.found[name], other, self.tolerance, name)

    def wrong_without_cache(self) -> bool:
        run = self.runs["without a cache, afterwards"]
        return not agree(outcome(run, self.model), outcome(run, self.reference), self.tolerance)

    def evidence(self, name: str) -> str:
        return evidence(name, self.found[name], self.expected[name], self.tolerance)

    def matches(self, candidate: nn.Module, names: Iterable[str]) -> bool:
        return all(self.agrees(name, outcome(self.runs[name], candidate)) for name in names)


def diagnose(model: nn.Module, reference: DecoderOnlyTransformer) -> Diagnosis:
    """Is the model's cache right, and if not, which wrong cache of the catalogue is it?

    `reference` is a right model with the same weights. A name is given only to a model that
    agrees with the catalogue's entry in every probe (if it is wrong in plain decoding already, the
    `EXTRAS` are left out); otherwise the evidence is shown. Give it a model that has not generated
    yet: what one keeps from an earlier call changes its outcomes.
    """
    seen = _Examination(model, reference)
    if seen.wrong_without_cache():
        return Diagnosis(
            False, None, "The model is wrong without its cache. Make evaluate pass first."
        )
    compared = seen.plain if seen.wrong(seen.plain) else list(seen.runs)
    wrong = seen.wrong(compared)
    if not wrong:
        return _judged(seen)
    for entry in CATALOGUE.values():
        if seen.matches(entry.build(seen.reference), compared):
            return Diagnosis(
                False,
                entry,
                f"{seen.evidence(wrong[0])} Identical to `{entry.name}`: {entry.mistake}. What it "
                f"leads to: {entry.symptom}. Where to look: {entry.look}.",
            )
    return _unknown(seen)


def _judged(seen: _Examination) -> Diagnosis:
    """The verdict on a model that no probe finds wrong."""
    report = kv_evaluate(seen.model, _cases(seen.reference))
    if report.all_passed:
        return Diagnosis(True, None, "The cache gives the uncached logits.")
    return Diagnosis(False, None, f"{report.problems[0]}. {UNKNOWN}")


def _unknown(seen: _Examination) -> Diagnosis:
    """The evidence on a model that is wrong in no known way."""
    first, *others = seen.wrong(seen.runs)
    layer = _first_wrong_layer(seen.model, seen.reference, seen.runs[first], seen.tolerance)
    still = [name for name in seen.runs if name not in (first, *others)] or ["nothing"]
    message = f"{seen.evidence(first)} {UNKNOWN}{layer} Still right: {', '.join(still)}."
    return Diagnosis(False, None, message)


def _first_wrong_layer(
    model: nn.Module, reference: nn.Module, run: Callable, tolerance: float
) -> str:
    """Which layer's output is off first, if the model has layers that can be listened to."""
    heard = []
    for candidate in (reference, model):
        outputs = [[] for _ in getattr(candidate, "layers", [])]
        hooks = [
            layer.register_forward_hook(lambda _, args, out, kept=kept: kept.append(out))
            for layer, kept in zip(getattr(candidate, "layers", []), outputs, strict=True)
        ]
        with contextlib.suppress(Exception):
            run(candidate)
        for hook in hooks:
            hook.remove()
        heard.append(outputs)
    for number, (right, found) in enumerate(zip(*heard, strict=False), start=1):
        pairs = list(zip(right, found, strict=False))
        shapes_agree = all(getattr(b, "shape", None) == a.shape for a, b in pairs)
        if not shapes_agree or len(right) != len(found):
            return ""
        if not all(torch.allclose(a, b, 0, tolerance) for a, b in pairs):
            return f" The output of layer {number} is the first that is off."
    return ""


def _cases(reference: DecoderOnlyTransformer) -> list[TestCase]:
    """A few inputs with the right logits, for `kv_evaluate`."""
    generator = torch.Generator().manual_seed(1)
    cases = []
    for shape in ((1, 1), (1, 7), (2, 5)):
        ids = torch.randint(reference.token_embedding.num_embeddings, shape, generator=generator)
        logits = uncached(reference, ids.to(reference.device)).cpu().double()
        cases.append(TestCase(ids, logits, logits, logits))
    return cases
