"""What the check cell of the mended layer calls (chapter 13, exercise 3)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from ....checks.common import verdict
from ....checks.judged import judge
from ....evaluation import Feed, New, Reorder, RollBack, lane_in, words
from .. import window as built
from ..adapter import Adapted
from ..caches import Kept
from ..installed import module
from ..small import small_model
from .stories import DONE, Step, answering, keys, refuse_a_stub, tried

ILL = "The layer is still the one of the package."
TOLERANCE = 1e-4  # the library computes a part in float32
CARD = "Write `crop` again; all else may stay as it is."


@dataclass(frozen=True)
class Story:
    """A layer's window and spare, and its steps: positive feeds tokens, another takes some back."""

    window: int
    spare: int
    steps: tuple[int, ...]
    rows: int = 1
    heads: int = 1
    dtype: torch.dtype = torch.float64

    def __str__(self) -> str:
        said = [f"{step} fed" if step > 0 else f"crop({step})" for step in self.steps]
        many = f"{self.rows} rows of {self.heads} heads in {self.dtype}, "
        many *= (self.rows, self.heads, self.dtype) != (1, 1, torch.float64)
        said = f"{many}{', then '.join(said)}"
        return f"CuredLayer({self.window}, {self.spare}), {said}: the outcome"

    def keys(self, start: int, length: int) -> Tensor:
        """Keys (rows, heads, length, 2), no two of them the same."""
        rows, heads = (torch.arange(n) for n in (self.rows, self.heads))
        each = 1000 * rows[:, None, None, None] + 100 * heads[:, None, None] + 1 / 3
        return (keys(start, length) + each).to(self.dtype)


@st.composite
def _stories(draw: st.DrawFn) -> Story:
    window, spare = draw(st.integers(2, 5)), draw(st.integers(1, 4))
    step = st.one_of(st.integers(-4, 5), st.integers(-3, 1))
    steps = draw(st.lists(step, min_size=1, max_size=6))
    sizes = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from((torch.float64, torch.float32, torch.float16)))
    return Story(window, spare, (draw(st.integers(1, 9)), *steps), *sizes, dtype)


def playing(layer_class: type) -> Callable[[Story], dict[str, object]]:
    """The answer to a story: what is refused, and what a token may look at after each step."""

    def play(story: Story) -> Iterator[Step]:
        layer, seen = layer_class(story.window, story.spare), 0
        for number, step in enumerate(story.steps, 1):
            at = f"step {number}"
            if step > 0:
                new = story.keys(seen, step)
                looked_at = layer.update(new, -new)
                seen += step
                yield from _last(f"{at}, looked at", looked_at, story.window - 1 + step)
            else:
                count = max(step, -seen)
                said = tried(layer.crop, count)
                seen += count * (said == DONE)
                yield at, said
            yield f"{at}, how many tokens were seen", layer.get_seq_length()
            yield from _last(f"{at}, kept", (layer.keys, layer.values), story.window - 1)
            yield f"{at}, where the next mask ends", sum(layer.get_mask_sizes(1))
            most = story.window - 1 + story.spare
            if layer.keys.size(2) > most:
                raise AssertionError(f"keeps {layer.keys.size(2)} tokens, more than {most}")

    return answering(play)


def _last(at: str, both: tuple[Tensor, Tensor], count: int) -> Iterator[Step]:
    """The last `count` of keys and values, fewer if there are not as many."""
    for name, x in zip(("keys", "values"), both, strict=True):
        yield f"{at}, {name}", x[:, :, max(x.size(2) - count, 0) :].clone()


class _Never(built.CuredLayer):
    def crop(self, tokens_to_remove: int) -> None:
        if self.seen > self.held:
            raise NotImplementedError("it would be too short")
        super().crop(tokens_to_remove)


class _Always(built.SpareLayer):
    def crop(self, tokens_to_remove: int) -> None:
        spare, self.spare = self.spare, self.seen
        super().crop(tokens_to_remove)
        self.spare = spare


class _OneMore(built.CuredLayer):
    def crop(self, tokens_to_remove: int) -> None:
        if self.seen > self.held and self.held + tokens_to_remove < self.window:
            raise NotImplementedError("it would be too short")
        super().crop(tokens_to_remove)


class _OneLess(_Always):
    def crop(self, tokens_to_remove: int) -> None:
        if self.seen > self.held and self.held + tokens_to_remove < self.window - 2:
            raise NotImplementedError("it would be too short")
        super().crop(tokens_to_remove)


class _UsedUp(built.SpareLayer):
    def crop(self, tokens_to_remove: int) -> None:
        super().crop(tokens_to_remove)
        self.spare += tokens_to_remove


class _EvenWhole(built.CuredLayer):
    def crop(self, tokens_to_remove: int) -> None:
        if self.held + tokens_to_remove < self.window - 1:
            raise NotImplementedError("it would be too short")
        super().crop(tokens_to_remove)


WRONG = [
    (playing(built.SpareLayer), ILL),
    (
        playing(_Never),
        "Nothing is taken back once a token was forgotten: that is what the spare is for.",
    ),
    (playing(_Always), "A rollback that leaves a window too short has to be refused."),
    (playing(_OneMore), "window - 1 tokens are enough for the next one: it brings its own key."),
    (playing(_OneLess), "One token too few is left: the next one's window needs window - 1."),
    (
        playing(_UsedUp),
        "The spare fills up again when tokens are fed: look at what is held, not at a count.",
    ),
    (
        playing(_EvenWhole),
        "While nothing has been forgotten yet, any number of tokens can be taken back.",
    ),
]
FIRST = [
    Story(8, 3, (15, -3, 1)),
    Story(8, 3, (15, -3, -1, 1)),
    Story(8, 3, (15, -4)),
    Story(8, 3, (5, -4, 2)),
    Story(8, 3, (15, -3, 3, -3, 1)),
    Story(8, 3, (15, -3, 1, -3, 1)),
]
SCRIPTS = (
    [New(), Feed(15), RollBack(12), RollBack(11), Feed(1, text=1)],
    [New(), Feed(15), RollBack(12), Feed(2, text=1), Feed(1, text=1)],
    [New(2), Feed(9), Feed(3), Reorder((1, 0)), RollBack(10), Feed(2)],
    [New(), Feed(6), RollBack(2), Feed(9), RollBack(8), Feed(1)],
)


class _With(Adapted):
    """A model of the library whose cache has layers of a class."""

    def __init__(self, layer_class: type, *sizes: int):
        super().__init__(small_model("mistral", layers=1), room=24)
        self.layer_class, self.sizes = layer_class, sizes

    def new(self, seen: Tensor | None = None) -> Kept:
        layers = [self.layer_class(*self.sizes)]
        return Kept(self.model, module("cache_utils").Cache(layers=layers), seen)


def _fed(layer_class: type, count: int) -> built.SpareLayer:
    layer = layer_class(8, 3)
    layer.update(keys(0, count), keys(0, count))
    return layer


@verdict
def check_cured_layer(layer_class: type) -> str:
    """Chapter 13, exercise 3. Returns a verdict; raises AssertionError on another layer."""
    refuse_a_stub(lambda: _fed(layer_class, 5).crop(-1))
    judge(
        playing(layer_class),
        playing(built.CuredLayer),
        _stories(),
        WRONG,
        first=FIRST,
        number=150,
        advice=CARD,
    )
    lane = lane_in(_With(layer_class, 8, 3), tolerance=TOLERANCE)
    for script in SCRIPTS:
        found = lane.play(script)
        if found.problem is not None:
            raise AssertionError(f"In a model with a window of 8, {words(script)}: {found}.")
    return "CuredLayer is right: it takes back what it can, and refuses what it cannot."
