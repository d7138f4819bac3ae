"""All that is tried on one model, and what was seen (notebook 05)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .lane import Lane, lane_in
from .model import offers, on_device, uncached
from .play import Outcome, generated
from .random_scripts import search
from .report import Failure, Result
from .smaller import possible, reduced
from .steps import Generate, Script, feeds, size, words

FIRST_LOOK, LONGER_LOOK = feeds(3, 1, 2), feeds(3, 1, 12)
FIRST_USES = (feeds(1), feeds(1, 1), feeds(1, 2), feeds(2, 1, 1), FIRST_LOOK)
MOST_REDUCTIONS = 100
DRAWS, RUNS = 12, 4
FEW = 7
NOT_OFFERED = "the cache refuses it"


@dataclass(frozen=True)
class Played:
    """A script that was played, in which lane and with which texts, and what came of it."""

    lane: Lane
    script: Script
    given: Tensor | None
    outcome: Outcome


class Trial:
    """All that is tried on one model."""

    def __init__(
        self,
        model: nn.Module,
        thorough: bool,
        tolerance: float | None = None,
        brief: bool = False,
    ):
        self.model, self.thorough, self.tolerance = model, thorough, tolerance
        self.brief = brief
        self.dtype = next(model.parameters()).dtype
        self.main = lane_in(model, tolerance=tolerance)
        self.played: list[Played] = []
        self.not_in_main_dtype = ""
        self.mixes_devices = ""
        uncached(self.main.fresh(), on_device(self.main.texts[0, :1, :1], model))
        if self.dtype != next(self.main.model.parameters()).dtype:
            self.own = lane_in(model, self.dtype)
            self.choose_main()
        else:
            self.own = self.main
            if self.dtype == torch.float32 and next(model.parameters()).device.type != "mps":
                self.not_in_main_dtype = "without a cache it fails there"
        self.own.compares_draws = self.own is self.main
        self.offers = offers(self.main.fresh())
        self.repeats_draws = not self.offers.generate or repeats_draws(self.main)
        self.main.compares_draws = self.repeats_draws

    def choose_main(self) -> None:
        """Judge in the model's own dtype if all that is off is a rounding to that: of its cache, or
        of a part of its computation."""
        first = FIRST_LOOK if self.main.room >= 6 else feeds(*(1,) * self.main.room)
        for script, what in ((first, "the cache keeps"), (LONGER_LOOK, "a part is computed in")):
            seen = self.main.play(script) if possible(script, self.main.room) else Outcome()
            if seen.difference is None or self.own.play(script).problem is not None:
                continue
            if seen.difference.largest < self.own.tolerance:
                self.not_in_main_dtype = f"{what} {self.own.name}, whatever the model's dtype"
                self.main = self.own
                return

    def lane_in(self, dtype: torch.dtype) -> Lane:
        """Another lane, in which a draw that comes out differently may be rounding."""
        lane = self.own if dtype == self.dtype else lane_in(self.model, dtype)
        lane.compares_draws = lane is self.main and self.repeats_draws
        return lane

    def long_lane(self) -> Lane:
        """Long texts are judged in the model's own float32: what they show is not small."""
        return self.own if self.dtype == torch.float32 else self.main

    def play(self, lane: Lane, script: Script, given: Tensor | None = None) -> Outcome:
        outcome = lane.play(script, given)
        self.played.append(Played(lane, script, given, outcome))
        return outcome

    def judge(
        self,
        result: Result,
        scripts: Iterable[Script] | dict[str, Script],
        lane: Lane | None = None,
        given: Tensor | None = None,
    ) -> Result:
        """Play scripts, named or not, and note in `result` what was wrong."""
        named = scripts.items() if isinstance(scripts, dict) else [(None, s) for s in scripts]
        named = self.few(list(named)) if self.brief else named
        for name, script in named:
            outcome = self.play(lane or self.main, script, given)
            result.checks += outcome.offered or bool(outcome.heard)
            if outcome.problem is not None:
                result.problems.append(f"{name or words(script)}: {outcome.problem}")
        if result.checks == 0:
            result.not_judged = NOT_OFFERED
        return result

    def few(self, named: list[tuple[str | None, Script]]) -> list[tuple[str | None, Script]]:
        """Some from the first to the last, and all that generate: tokens tell less than logits."""
        nth = max(len(named) // FEW, 1)
        return [
            (name, script)
            for place, (name, script) in enumerate(named)
            if place % nth == 0 or any(isinstance(step, Generate) for step in script)
        ]

    def draw(self, result: Result, lane: Lane, number: int, seed: int, most: int) -> Result:
        """Look for a failing script among drawn ones, and then for the smallest of its kind."""
        before = len(self.played)

        def fails(script: Script) -> bool:
            return self.play(lane, script).problem is not None

        number *= 10 if self.thorough else 1
        search(fails, self.offers, lane.room, number, seed, most)
        played = self.played[before:]
        result.checks += len(played)
        failed = [p for p in played if p.outcome.problem is not None]
        if failed:
            least = min(failed, key=lambda p: size(p.script))
            result.problems.append(f"{words(least.script)}: {least.outcome.problem}")
        return result

    def smallest(self) -> Failure | None:
        """The smallest script that failed, made smaller; with the texts that `replay` has, if it
        fails there, or else some simple use does."""
        failed = [p for p in self.played if p.outcome.problem is not None]
        failed.sort(key=lambda p: (size(p.script), p.given is not None))
        if not failed:
            return None
        simple = (Played(self.main, script, self.main.texts, Outcome()) for script in FIRST_USES)
        for played in (*failed, *simple):
            lane = played.lane
            outcome = lane.play(played.script) if played.given is not None else played.outcome
            if outcome.problem is not None:
                break
        else:
            return Failure(failed[0].script, "", failed[0].outcome, self.tolerance, replays=False)
        seen = {repr(played.script): outcome}

        def fails(script: Script) -> bool:
            seen[repr(script)] = outcome = self.play(lane, script)
            return outcome.problem is not None

        script = reduced(played.script, fails, lane.room, MOST_REDUCTIONS)
        found = seen[repr(script)]
        if lane is not self.main:
            in_main = self.play(self.main, script)
            if in_main.problem is None:
                return Failure(script, lane.name, found, self.tolerance)
            found = in_main
        return Failure(script, "", found, self.tolerance)


def repeats_draws(lane: Lane) -> bool:
    """Does `generate` draw the same tokens from the same seed? Else draws can't be compared."""
    step = Generate(1, min(DRAWS, lane.room - 1), rows=3, use_cache=False, sampled=True)
    prompt = on_device(lane.texts[0, :3, :1], lane.model)
    try:
        runs = [generated(lane.fresh(), prompt, step) for _ in range(RUNS)]
    except Exception:
        return True  # then something else is wrong with it, which is found elsewhere
    return all(torch.equal(runs[0], run) for run in runs)
