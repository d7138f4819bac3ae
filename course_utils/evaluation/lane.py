"""A model in one dtype, and whether it is right in a script (notebook 05).

Shapes: B batch, Q new tokens, T tokens so far, V vocab_size.
"""

import contextlib
from dataclasses import replace

import torch
from torch import Tensor, nn

from .differences import first_difference
from .model import max_seq_len, on_device, uncached, vocab_size
from .play import NEARLY_GREEDY, Answer, Expected, Outcome, Play, generated
from .precise import copied, precise_copy, refuse_missing_rows, state
from .refusals import Ended, NotOffered, NotRefused, on_purpose
from .steps import Generate, Script, Step, feeds
from .texts import texts, uniform

EXACT = 1e-9
MARGIN = 8
SPARE = 16
MEASURED = 200
NUDGES, MOST_IN_VAIN = 6, 4
OTHERWISE = 0.1  # by how much of itself each weight of another model is off


class Lane:
    """A model as it came, in some dtype; each script is played on a copy that has played none."""

    def __init__(self, model: nn.Module, tolerance: float, name: str, eps: float | None = None):
        self.model, self.tolerance, self.name, self.eps = model, tolerance, name, eps
        self.room = max_seq_len(model)
        some = texts(vocab_size(model), self.room + SPARE)
        self.texts = torch.cat([some, uniform(some[0], vocab_size(model))])
        self.expected = Expected(copied(model))
        self.twin: nn.Module | None = None
        self.expected_of_twin = self.expected
        self.ready, self.state = model, None
        self.coldest: float | None = None
        self.generations: dict[str, Tensor | None] = {}
        self.compares_draws = True
        self.in_vain = 0
        directions = torch.randn(vocab_size(model), generator=torch.Generator().manual_seed(0))
        self.direction = directions.double()

    def copy(self) -> nn.Module:
        return copied(self.model, share_parameters=True)

    def fresh(self) -> nn.Module:
        """A copy of the model as it came; the last one, if that has kept nothing."""
        if self.state is None or state(self.ready) != self.state:
            self.ready = self.copy()
            self.state = state(self.ready)
        return self.ready

    def another(self) -> nn.Module:
        """A model of the same class with other weights; a copy, if the class is wrong with them."""
        if self.twin is None:
            self.twin = self.model
            other = nudged(self.model, torch.Generator().manual_seed(0), OTHERWISE)
            alone = Lane(other, self.tolerance, self.name, self.eps)
            few = feeds(*(1,) * min(3, self.room), text=1)
            if alone.play(few, self.texts.flip(-1)).problem is None:
                self.twin, self.expected_of_twin = other, alone.expected
        return copied(self.twin, share_parameters=True)

    def play(self, script: Script, given: Tensor | None = None, judged_from: int = 0) -> Outcome:
        """Play a script, of the lane's texts or of `given` (N, R, T).

        Every step's answer is compared, from step number `judged_from` on. An exception is always
        wrong, but where the room has ended.
        """
        twin = self.another() if any(getattr(step, "twin", False) for step in script) else None
        generates = any(isinstance(step, Generate) for step in script)
        if generates and self.coldest is None:
            self.coldest = self.coldest_for_greedy()
        coldest = self.coldest if generates else NEARLY_GREEDY
        play = Play(self.fresh(), self.texts if given is None else given, twin, coldest)
        outcome = Outcome(step=len(script))
        for number, step in enumerate(script):
            try:
                play.take(number, step)
            except Ended:
                break
            except NotOffered:
                outcome.offered = False
                break
            except NotRefused as error:
                outcome = Outcome(explain(error), number)
                past_the_end = error.result[0] if isinstance(error.result, tuple) else error.result
                outcome.heard.append(self.fingerprint(past_the_end))
                break
            except Exception as error:
                if play.runs_rows(step) and self.takes_one_row(type(step), error):
                    outcome.offered = False
                else:
                    outcome = Outcome(explain(error), number, error=error)
                break
        for answer in play.answers:
            outcome.heard.append(self.fingerprint(answer.logits))
            if judged_from <= answer.step < outcome.step:
                self.compare(answer, outcome)
        for number, step, prompt, ids in play.generations:
            outcome.heard.append(ids.cpu().double())
            if judged_from <= number < outcome.step:
                try:
                    problem = self.compare_ids(step, prompt, ids)
                except Exception as error:
                    problem = explain(error)
                if problem is not None:
                    outcome.wrong(number, problem)
        return outcome

    def coldest_for_greedy(self) -> float:
        """0 if `generate` takes that for greedy without a cache, else a temperature close to it."""
        step = Generate(1, min(3, self.room - 1), use_cache=False)
        prompt = on_device(self.texts[0, :1, :1], self.model)
        with contextlib.suppress(Exception):
            found = (generated(self.fresh(), prompt, step, cold) for cold in (0.0, NEARLY_GREEDY))
            return 0.0 if torch.equal(*found) else NEARLY_GREEDY
        return NEARLY_GREEDY

    @torch.no_grad()
    def takes_one_row(self, kind: type[Step], error: Exception) -> bool:
        """Is this error how the model says that it takes one row: the only one that it ever takes?

        Not if it was not raised on purpose, or not by a model that has done nothing before.
        """
        ids = on_device(self.texts[0, :2, :1], self.model)
        try:
            if kind is Generate:
                generated(self.copy(), ids, Generate(1, 1))
            else:
                self.copy()(ids, use_cache=True)
        except Exception as first:
            return type(first) is type(error) and on_purpose(first)
        return False

    def compare(self, answer: Answer, outcome: Outcome) -> None:
        """Note in `outcome` if an answer is wrong."""
        for row, ids, start, logits in answer.parts():
            try:
                expected = (self.expected_of_twin if answer.twin else self.expected)(ids)
                expected = expected[:, start : start + logits.size(1)]
                found = first_difference(expected, logits, self.tolerance, (row, start))
            except Exception as error:
                return outcome.wrong(answer.step, explain(error))
            if found is not None and not self.jumps(ids, found.largest):
                return outcome.wrong(answer.step, str(found), found)

    def jumps(self, ids: Tensor, error: float) -> bool:
        """May logits of ids (B, T) be that far off where numbers are rounded?

        They may if the model jumps, as one does that quantises its keys: then they move as far when
        all weights are nudged by about a rounding.
        """
        if self.tolerance == EXACT or self.in_vain >= MOST_IN_VAIN:
            return False
        plain, generator = uncached(self.model, ids), torch.Generator().manual_seed(0)
        for _ in range(NUDGES):
            other = uncached(nudged(self.model, generator, self.eps), ids)
            if error <= MARGIN * (other.cpu().double() - plain.cpu().double()).abs().max().item():
                return True
        self.in_vain += 1
        return False

    def fingerprint(self, logits: Tensor) -> Tensor:
        """One number for each token: enough to see that two models return the same."""
        if logits.size(-1) != len(self.direction):
            return logits.new_zeros(0)
        return logits.cpu().double() @ self.direction

    def compare_ids(self, step: Generate, prompt: Tensor, ids: Tensor) -> str | None:
        """What is wrong with generated ids (B, T), or None."""
        start = prompt.size(1)
        if ids.shape[:1] != prompt.shape[:1] or not torch.equal(ids[:, :start], prompt):
            return "what comes back does not begin with the prompt"
        if ids.size(1) > start + step.new:
            return f"{ids.size(1) - start} new tokens came back where {step.new} were asked for"
        if ids.size(1) < start + step.new and not self.has_ended(ids, start):
            number = ids.size(1) - start
            return f"stops after {number} of {step.new} tokens, and not because a text ends there"
        if step.sampled and not self.compares_draws:
            return None
        if step.use_cache:
            return self.unlike_uncached(step, prompt, ids)
        return None if step.sampled else self.unlikely(ids, start)

    def unlike_uncached(self, step: Generate, prompt: Tensor, ids: Tensor) -> str | None:
        """Are these the ids that the model generates without a cache? Ties may go either way."""
        plain = self.without_cache(step, prompt)
        if plain is None:
            return None if step.sampled else self.unlikely(ids, prompt.size(1))
        if torch.equal(ids, plain):
            return None
        if ids.shape != plain.shape:
            here, there = ids.size(1) - prompt.size(1), plain.size(1) - prompt.size(1)
            return f"stops after {here} new tokens, and after {there} without the cache"
        position = (ids != plain).any(0).nonzero()[0].item()
        logits = self.expected(plain[:, :-1])[:, position - 1]
        chosen = [logits.gather(1, some[:, position, None]) for some in (ids, plain)]
        error = (chosen[0] - chosen[1]).abs().max().item()
        if not step.sampled and (error <= self.tolerance or self.jumps(plain[:, :-1], error)):
            return None
        return f"first differs at position {position} from what comes without the cache"

    def has_ended(self, ids: Tensor, start: int) -> bool:
        """Is a row's last id one that ends texts? Then it ends others too, where it is likely."""
        if ids.size(1) == start:
            return False
        return any(self.is_an_end(row[-1].item()) for row in ids)

    def is_an_end(self, last: int) -> bool:
        for row in self.texts[:, :, : max(self.room - 4, 1)].flatten(0, 1)[:, :MEASURED]:
            prompt = on_device(row[None], self.model)
            likely = (self.expected(prompt)[0].argmax(-1) == last).nonzero()
            if len(likely):
                step = Generate(likely[0].item() + 1, 3, use_cache=False)
                if step.tokens + step.new < self.room:
                    found = generated(self.fresh(), prompt[:, : step.tokens], step)
                    return found.size(1) < step.tokens + step.new
        return True

    def without_cache(self, step: Generate, prompt: Tensor) -> Tensor | None:
        """What `generate` returns without a cache; None if it fails."""
        key = repr((step.new, step.sampled, prompt.tolist()))
        if key not in self.generations:
            self.generations[key] = None
            with contextlib.suppress(Exception):
                plain = replace(step, use_cache=False)
                self.generations[key] = generated(self.fresh(), prompt, plain)
        return self.generations[key]

    def unlikely(self, ids: Tensor, start: int) -> str | None:
        """Is each new id the likeliest? A row that has ended may repeat its last id."""
        logits = self.expected(ids[:, :-1])[:, start - 1 :] if ids.size(1) > start else None
        for column in range(start, ids.size(1)):
            here = logits[:, column - start]
            chosen = here.gather(1, ids[:, column, None])[:, 0]
            ended = (ids[:, column:] == ids[:, column - 1, None]).all(1)
            if ((chosen < here.amax(1) - self.tolerance) & ~ended).any():
                return f"first differs at position {column} from the likeliest token"
        return None


def explain(error: Exception) -> str:
    """An exception in one line."""
    lines = str(error).strip().splitlines()
    if isinstance(error, ValueError) and lines:
        return str(error)
    return ": ".join([type(error).__name__, *lines[:1]])


def lane_in(
    model: nn.Module, dtype: torch.dtype | None = None, tolerance: float | None = None
) -> Lane:
    """A lane for a model in float64, or in `dtype`, with the tolerance that fits.

    In float64 that is 1e-9, or `tolerance` for a model that computes in float32 whatever its dtype.
    In any other dtype it is a multiple of what the model itself loses by rounding: how far its
    uncached logits are from those in float64. Without float64 it is 1e-3 at least. Raises what the
    model raises in that dtype.
    """
    given = tolerance
    exact, tolerance = precise_copy(model)
    if dtype is None and given is not None:
        eps = torch.finfo(torch.float32).eps
        name = str(next(exact.parameters()).dtype).removeprefix("torch.")
        return Lane(exact, max(given, tolerance), name, eps)
    if dtype is None:
        return Lane(exact, tolerance, str(next(exact.parameters()).dtype).removeprefix("torch."))
    rounded = copied(model).eval()
    if dtype != next(model.parameters()).dtype:  # or its buffers would change, too
        rounded = rounded.to(dtype)
    refuse_missing_rows(rounded)
    if dtype != next(exact.parameters()).dtype:
        least = 0.0 if tolerance == EXACT else tolerance
        tolerance = max(MARGIN * rounding(exact, rounded), least)
    return Lane(rounded, tolerance, str(dtype).removeprefix("torch."))


@torch.no_grad()
def nudged(model: nn.Module, generator: torch.Generator, eps: float | None = None) -> nn.Module:
    """A copy whose weights are off by about a rounding each: `eps`, or that of their dtype."""
    other = copied(model)
    for weight in other.parameters():
        noise = torch.randn(weight.shape, generator=generator).to(weight)
        weight.mul_(1 + (eps or torch.finfo(weight.dtype).eps) * noise)
    return other


def rounding(exact: nn.Module, rounded: nn.Module) -> float:
    """The largest difference of their uncached logits, over some texts."""
    length = min(max_seq_len(exact), MEASURED)
    ids = on_device(texts(vocab_size(exact), length)[:, 0], exact)
    one, other = (uncached(model, ids).cpu().double() for model in (exact, rounded))
    return (one - other).abs().max().item()
