"""Playing a script: what a model returns, beside what is right (notebook 05).

Shapes: B batch, Q new tokens, T tokens so far, V vocab_size.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .differences import Difference
from .model import changed, max_seq_len, on_device, uncached
from .precise import refusing_nan
from .refusals import Ended, ending_the_script, only_if_offered, refuse
from .steps import Feed, Generate, New, Reorder, RollBack, Step, Uncached

NEARLY_GREEDY = 1e-8
AT_ONCE = 9  # caches; a model may have no room for more
TEMPERATURES = (1.0, 0.6, 1.7)


class Expected:
    """Uncached logits of a model that does nothing else; remembered, as scripts share texts."""

    MOST = 32

    def __init__(self, model: nn.Module):
        self.model = model
        self.known: list[tuple[Tensor, Tensor]] = []

    def __call__(self, ids: Tensor) -> Tensor:
        """Logits (B, T, V) of ids (B, T)."""
        for place, (longer, logits) in enumerate(self.known):
            same_rows = longer.size(0) == ids.size(0) and longer.size(1) >= ids.size(1)
            if same_rows and torch.equal(longer[:, : ids.size(1)], ids):
                self.known.insert(0, self.known.pop(place))
                return logits[:, : ids.size(1)]
        logits = uncached(self.model, ids)
        self.known = [(ids, logits), *self.known[: self.MOST]]
        return logits


@dataclass
class Story:
    """What a cache should hold: token ids (B, T), the first `padding[i]` of row i meaningless."""

    ids: Tensor
    padding: tuple[int, ...]


@dataclass
class Answer:
    """Logits that a step returned, for the tokens of `story` from column `start` on; perhaps they
    are those of the model's `twin`."""

    step: int
    logits: Tensor
    story: Story
    start: int
    twin: bool = False

    def parts(self) -> Iterator[tuple[int, Tensor, int, Tensor]]:
        """First row, ids (B, T), first position and logits (B, Q, V) of what can be compared.

        All rows at once, or one by one where they have padding, without it.
        """
        ids, padding = self.story.ids, self.story.padding
        if not any(padding):
            yield 0, ids, self.start, self.logits
            return
        for row, pad in enumerate(padding):
            skipped = max(pad - self.start, 0)
            logits = self.logits[row : row + 1, skipped:]
            if logits.size(1):
                yield row, ids[row : row + 1, pad:], self.start + skipped - pad, logits


@dataclass
class Outcome:
    """What came of a script. `problem` is None if all was right, `step` the first wrong one.

    `error` is what ended it, if something did; an answer may have been wrong before that. Not
    `offered` is one that could not be played to its end.
    """

    problem: str | None = None
    step: int = 0
    difference: Difference | None = None
    error: Exception | None = None
    offered: bool = True
    heard: list[Tensor] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        """What was wrong, in a few words."""
        found = self.difference
        if found is None:
            return self.problem or "right"
        size = "NaN or infinity" if math.isinf(found.error) else f"{found.error:.3g}"
        row = f" of row {found.row}" if found.row else ""
        return f"wrong from position {found.position}{row} on, by {size}"

    def wrong(self, step: int, problem: str, difference: Difference | None = None) -> None:
        self.step, self.problem, self.difference = step, problem, difference


class Play:
    """One run of a script on a model, which is used up by it, as is its `twin`."""

    def __init__(
        self,
        model: nn.Module,
        texts: Tensor,
        twin: nn.Module | None = None,
        coldest: float = NEARLY_GREEDY,
    ):
        self.model, self.twin, self.coldest = model, twin, coldest
        self.models: dict[str, nn.Module] = {}
        self.texts = on_device(texts, model)
        self.room = max_seq_len(model)
        self.caches: dict[str, object] = {}
        self.paddings: dict[tuple[int, ...], Tensor] = {}
        self.refused: set[str] = set()
        self.stories: dict[str, Story] = {}
        self.answers: list[Answer] = []
        self.said: Tensor | None = None
        self.given: Tensor | None = None
        self.generations: list[tuple[int, Generate, Tensor, Tensor]] = []

    def ahead(self, step: Feed) -> Tensor:
        """The tokens (B, Q) that `step` feeds: those of its text at the next positions."""
        story = self.stories[step.cache]
        start = story.ids.size(1)
        return self.texts[step.text, : story.ids.size(0), start : start + step.tokens]

    def hand_in(self, ids: Tensor) -> Tensor:
        """Tokens as callers have them: a part of others, or where others were that are gone."""
        if not ids.is_contiguous():
            return ids
        self.given = None
        # Unless the model holds the last ones, NumPy uses their memory for the next ones.
        self.given = on_device(torch.from_numpy(ids.cpu().numpy().copy()), self.model)
        return self.given

    @torch.no_grad()
    def take(self, number: int, step: Step) -> None:
        """Do one step. Raises what the model raises, ValueError for logits of another shape.

        A cache that has refused tokens is not used any more: Ended.
        """
        if not isinstance(step, New) and getattr(step, "cache", None) in self.refused:
            raise Ended
        match step:
            case New():
                self.begin(step)
            case Feed():
                self.feed(number, step)
            case RollBack():
                self.change(step.cache, "truncate", step.length)
                story = self.stories[step.cache]
                self.stories[step.cache] = Story(story.ids[:, : step.length], story.padding)
            case Reorder():
                rows = on_device(torch.tensor(step.rows), self.model)
                self.change(step.cache, "reorder", rows)
                story = self.stories[step.cache]
                padding = tuple(story.padding[row] for row in step.rows)
                self.stories[step.cache] = Story(story.ids[rows], padding)
            case Uncached():
                ids = self.beginning(step)
                if step.tokens > self.room:
                    refuse(lambda: uncached(self.model, ids))
                    return
                story = Story(ids, (0,) * step.rows)
                self.answers.append(Answer(number, uncached(self.model, ids), story, 0))
            case Generate():
                prompt = self.prompt(step)
                cold = self.coldest if step.new % 2 else NEARLY_GREEDY
                self.said = only_if_offered(
                    step.rows > 1, lambda: generated(self.model, self.hand_in(prompt), step, cold)
                )
                self.generations.append((number, step, prompt, self.said))

    def prompt(self, step: Generate) -> Tensor:
        ids = self.beginning(step)
        return torch.cat([self.said, ids], dim=1) if step.goes_on else ids

    def beginning(self, step: Uncached | Generate) -> Tensor:
        return self.texts[step.text, : step.rows, : step.tokens]

    def begin(self, step: New) -> None:
        padding = step.padding or (0,) * step.rows
        model = self.models[step.cache] = self.twin if step.twin else self.model
        self.stories[step.cache] = Story(self.texts[0, : step.rows, :0], padding)
        self.caches[step.cache] = None
        self.refused.discard(step.cache)
        if step.padding:
            columns = on_device(torch.tensor(padding), self.model)
            columns = self.paddings.setdefault(padding, columns)
            self.caches[step.cache] = model.padded_cache(columns)

    def feed(self, number: int, step: Feed) -> None:
        ids, story = self.ahead(step), self.stories[step.cache]
        model = self.models[step.cache]
        start = story.ids.size(1)
        if start + step.tokens > self.room:
            refuse(lambda: model(ids, past_kv=self.caches[step.cache], use_cache=True))
            self.refused.add(step.cache)
            return
        may_fail = step.carelessly or len(self.caches) > AT_ONCE
        with torch.set_grad_enabled(step.carelessly), ending_the_script(may_fail):
            logits, cache = only_if_offered(
                len(ids) > 1 and start == 0,
                lambda: model(self.hand_in(ids), past_kv=self.caches[step.cache], use_cache=True),
            )
        if step.carelessly:
            logits = written_over(logits)
        if logits.shape[:2] != ids.shape:
            raise ValueError(
                f"feeding {step.tokens} tokens gave logits for {tuple(logits.shape[:2])} "
                f"(batch, seq_len), expected {tuple(ids.shape)}: only the new tokens go in, "
                "and only theirs come out"
            )
        self.caches[step.cache] = cache
        story.ids = torch.cat([story.ids, ids], dim=1)
        self.answers.append(Answer(number, logits, story, start, model is self.twin))

    def runs_rows(self, step: Step) -> bool:
        """Does a step run several rows with a cache?"""
        if isinstance(step, Generate | New):
            return step.rows > 1
        return isinstance(step, Feed | Reorder) and len(self.stories[step.cache].ids) > 1

    def change(self, cache: str, method: str, argument: object) -> None:
        """Call `truncate` or `reorder`."""
        old = self.caches[cache]
        self.caches[cache] = only_if_offered(True, lambda: changed(old, method, argument))


def written_over(logits: Tensor) -> Tensor:
    """A copy of the logits, which are written over, as sampling often does it."""
    kept = logits.detach().clone()
    with torch.inference_mode(), contextlib.suppress(RuntimeError):
        logits.zero_()
    return kept


def generated(
    model: nn.Module, ids: Tensor, step: Generate, coldest: float = NEARLY_GREEDY
) -> Tensor:
    """What `generate` returns; drawn from a fixed seed, or so cold that it is greedy.

    A `generate` that takes no generator draws from PyTorch's own, which has the seed, too.
    """
    temperature = TEMPERATURES[step.new % len(TEMPERATURES)] if step.sampled else coldest
    how = {"temperature": temperature, "use_cache": step.use_cache}
    if step.sampled:
        how["generator"] = torch.Generator(ids.device).manual_seed(step.tokens)
    with torch.random.fork_rng(), refusing_nan(model):
        torch.manual_seed(step.tokens)
        try:
            return model.generate(ids, step.new, **how)
        except TypeError as error:
            if "generator" not in how or "generator" not in str(error):
                raise
        del how["generator"]
        return model.generate(ids, step.new, **how)
