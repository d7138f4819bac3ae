"""Is the cache of a model of `transformers` right? The course's judgement, with the model's own
properties told apart (chapter 13)."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...evaluation import Failure, Report, kv_evaluate, replay
from .adapter import Adapted, Use, first_cache
from .caches import KINDS
from .installed import from_folder, library
from .measured import Measured, measure
from .mistakes import named
from .small import small_model

OTHER_USES = (
    ("told its positions, with a mask of ones", {"told": True}),
    ("fed one token at a time after the first call", {"singly": True}),
    ("told its positions and fed one token at a time", {"told": True, "singly": True}),
)


@dataclass
class Judgement:
    """A report, and what it is about: what was judged, how, and which uses are right if not all."""

    name: str
    model: Adapted = field(repr=False)
    cache: str
    measured: Measured
    report: Report
    right_if: str = ""
    mistake: str = ""
    line: str = "model"

    @property
    def all_passed(self) -> bool:
        return self.report.all_passed

    def __str__(self) -> str:
        lines = [str(self.report), f"  Judged: {self.name}; cache: {self.cache}"]
        lines.append(f"  Compared in {self.measured}")
        if not self.all_passed:
            lines.append(f"  The model of that line: model = {self.line}")
            lines += [f"  Identical to a known mistake: {self.mistake}"] * bool(self.mistake)
            lines.append(
                f"  Right if {self.right_if}" if self.right_if else "  Right in no other use"
            )
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.report.as_dict(),
            "model": self.name,
            "cache": self.cache,
            "spread": self.measured.spread,
            "float32": list(self.measured.rounded),
            "right_if": self.right_if or None,
            "mistake": self.mistake or None,
            "made_by": self.line,
            "versions": {"torch": torch.__version__, "transformers": library().__version__},
        }


def model_of(name: str, layers: int | None = None, seed: int = 0) -> nn.Module:
    """A model by the name of its type, with drawn weights, or from a checkpoint's folder."""
    return from_folder(Path(name)) if Path(name).is_dir() else small_model(name, layers, seed)


def adapted(
    name: str,
    layers: int | None = None,
    seed: int = 0,
    cache: str = "own",
    room: int | None = None,
    **use: bool,
) -> Adapted:
    """A model by name, with the course's interface: what `replay` takes."""
    return Adapted(model_of(name, layers, seed), Use(cache, **use), room)


def judge(
    model: nn.Module,
    name: str = "",
    cache: str = "own",
    room: int | None = None,
    thorough: bool = False,
    stop: bool = False,
    line: str = "model",
    brief: bool = False,
) -> Judgement:
    """Judge the cache of a model of the library as `kv_evaluate` judges the course's.

    If it fails, other ways of using it are tried: are they all right? Raises ValueError for a kind
    of cache that the model cannot have; NoCache if it has none; Unfit if it can't be judged. With
    `brief`, as `kv_evaluate` has it.
    """
    if cache not in KINDS:
        raise ValueError(f"--cache {cache}: expected one of {', '.join(KINDS)}.")
    model = model if isinstance(model, Adapted) else Adapted(model, Use(cache), room)
    kept = first_cache(model)
    measured = measure(model)
    model.pads = measured.pads
    report = kv_evaluate(model, [], thorough, stop, measured.tolerance, brief)
    found = Judgement(name or type(model.model).__name__, model, kept, measured, report, line=line)
    if not report.all_passed:
        mistake = named(report, model)
        found.mistake = f"{mistake.name}: {mistake.words}" if mistake else ""
        found.right_if = right_if(model, measured, report, brief)
    return found


def right_if(model: Adapted, measured: Measured, report: Report, brief: bool = False) -> str:
    """The first other way of using the model in which all is right that has failed in the report.

    What cannot be judged in that way is not right in it. Most ways are ruled out by the smallest
    script that failed.
    """
    plain, failed = model.use, {result.name for result in report.others if result.problems}
    for words, change in OTHER_USES:
        model.use = replace(plain, **change)
        try:
            if fails_again(model, measured, report.smallest):
                continue
            found = kv_evaluate(model, [], False, True, measured.tolerance, brief)
            judged = {result.name for result in found.others if not result.not_judged}
            if found.all_passed and failed <= judged:
                return words
        except Exception:
            continue
        finally:
            model.use = plain
    return ""


def fails_again(model: Adapted, measured: Measured, smallest: Failure | None) -> bool:
    """Does the smallest script that failed do so in this use, too? False if there is none."""
    if smallest is None or smallest.dtype or not smallest.replays:
        return False
    return replay(model, smallest.script, tolerance=measured.tolerance).problem is not None
